"""A recipe: one TOML file that says what a run is made of."""

import warnings
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import field_validator, model_validator

from hllm import artifacts
from hllm.batches.loader import WindowConfig
from hllm.batches.negatives import NegativesConfig
from hllm.config import Config
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.growth import KnownItems
from hllm.data.schema import DataConfig
from hllm.data.split import SplitConfig
from hllm.errors import HllmWarning, nearest
from hllm.evaluation.protocol import EvaluationConfig
from hllm.metrics import DEFINITIONS
from hllm.models.build import ModelConfig, require_separate_tiers
from hllm.models.heads import SAMPLED
from hllm.models.item.text import TextItemConfig
from hllm.models.user.llm import UserLLMConfig
from hllm.precision import Precision
from hllm.recipe.reference import with_reference_defaults
from hllm.recipe.stages import RANKING_METRICS, CheckpointsConfig, StageConfig
from hllm.recipe.tracking import TrackingConfig


class ParentConfig(Config):
    """The run whose weights and data a fine-tuned run begins with; `hllm fine-tune` fills in which."""

    checkpoint: str
    """Fingerprint of its best checkpoint."""
    dataset: str
    """Fingerprint of its data."""
    recipe: str
    """Fingerprint of its recipe."""
    known_items: KnownItems = "error"
    """What to do with an item that comes again with another text: refuse, "keep" the old text, or "update" it."""


class Recipe(Config):
    """Data, split, model, training, evaluation."""

    about: str
    """What this recipe is for, in a sentence."""
    compat: Literal["none", "reference"] = "none"
    """"reference": every option that this recipe leaves out is as in the HLLM paper's code, to match its numbers."""
    seed: int = 1
    """Of every random choice."""
    data: DataConfig
    split: SplitConfig = LeaveOneOutSplit()
    model: ModelConfig
    stages: tuple[StageConfig, ...]
    """Run one after another, each from where the last one ended."""
    select_by: str = "ndcg@10"
    """The validation metric, such as "recall@50", that picks the best checkpoint and ends stages early. "auc" and
    "gauc" score candidates with labels, for models with the table model.ranking; of several targets, their mean."""
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    """When training is saved; may be changed when a run goes on."""
    tracking: TrackingConfig = TrackingConfig()
    """Where a run's numbers go besides metrics.jsonl; may be changed when a run goes on."""
    precision: Precision = "auto"
    """Format of matrix products: "auto" is bf16 where the device multiplies it in hardware, else fp32."""
    compile: bool = False
    """Compile the language models' layers in the first steps (torch.compile), which takes minutes and a C++ compiler.
    What it gains depends on the machine; may be changed when a run goes on."""
    evaluation: EvaluationConfig = EvaluationConfig()
    parent: ParentConfig | None = None
    """Set by `hllm fine-tune`: the run that this one goes on from."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_reference(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("compat") == "reference" and {"model", "stages"} <= set(values):
            return with_reference_defaults(values)
        return values

    @field_validator("stages")
    @classmethod
    def _some(cls, value: tuple[StageConfig, ...]) -> tuple[StageConfig, ...]:
        if not value:
            raise ValueError("at least one [[stages]] table is needed")
        return value

    @field_validator("select_by")
    @classmethod
    def _a_metric(cls, value: str) -> str:
        if value in RANKING_METRICS:
            return value
        name, _, k = value.partition("@")
        if name not in DEFINITIONS or not k.isdigit() or int(k) < 1:
            raise ValueError(f"expected one of {', '.join(DEFINITIONS)} and a cut-off, such as ndcg@10")
        return value

    @model_validator(mode="after")
    def _frozen_items_have_a_language_model(self) -> "Recipe":
        if self.model.item.kind == "id" and any(stage.item_tier == "frozen" for stage in self.stages):
            raise ValueError('item_tier = "frozen" needs model.item.kind = "llm": ids have nothing to start from')
        if self.model.item.kind == "id" and any(stage.reuse.on for stage in self.stages):
            raise ValueError('reuse needs model.item.kind = "llm": ids are not read, so nothing is saved')
        if self.model.item.kind == "id" and any(stage.item_optimizer == "muon" for stage in self.stages):
            raise ValueError('item_optimizer = "muon" needs model.item.kind = "llm": it moves the matrices of layers')
        return self

    @model_validator(mode="after")
    def _a_best_one_is_known(self) -> "Recipe":
        if not self.stages[-1].validate_every:
            raise ValueError(
                f"stages.{len(self.stages) - 1}.validate_every is 0, but the last stage's is what is kept: set it to "
                "1 or more"
            )
        for number, stage in enumerate(self.stages):
            if stage.start == "best" and number and not any(s.validate_every for s in self.stages[:number]):
                raise ValueError(f'stages.{number}.start = "best", but no stage before it is validated: leave it out')
        return self

    @model_validator(mode="after")
    def _stages_fit_the_model(self) -> "Recipe":
        both_ways = self.model.user.kind == "bert4rec"
        if both_ways and (self.model.inputs.timestamp or self.model.inputs.action):
            raise ValueError('model.inputs cannot add times or actions to model.user.kind = "bert4rec": a hidden item '
                             "has none")  # fmt: skip
        for number, stage in enumerate(self.stages):
            if both_ways != (stage.objective == "masked-item"):
                raise ValueError(
                    f'stages.{number}.objective is "{stage.objective}" and model.user.kind "{self.model.user.kind}": '
                    '"masked-item" is for "bert4rec", which reads both ways, and for it alone'
                )
            for tier in ("item", "user"):
                if getattr(stage, f"{tier}_tier") == "frozen":
                    require_separate_tiers(self.model, frozen=tier)
            if stage.max_history is not None and stage.max_history > self.model.max_history:
                raise ValueError(
                    f"stages.{number}.max_history {stage.max_history} is beyond model.max_history, which is "
                    f"{self.model.max_history} and the most that the model reads anywhere"
                )
        return self

    @model_validator(mode="after")
    def _ranking_has_heads_and_labels(self) -> "Recipe":
        ranking, known = self.model.ranking, [target.name for target in self.data.targets]
        if SAMPLED in known:
            raise ValueError(f'data.targets: "{SAMPLED}" is the name of the target of sampled negatives; take another')
        if ranking is None and self.select_by in RANKING_METRICS:
            raise ValueError(f'select_by = "{self.select_by}" scores candidates: it needs the table model.ranking')
        for number, stage in enumerate(self.stages):
            if stage.objective == "ranking" and ranking is None:
                raise ValueError(f'stages.{number}.objective = "ranking" needs the table model.ranking: its heads')
            if self.model.user.kind == "din" and not stage.only_ranks:
                raise ValueError(
                    f'stages.{number}: model.user.kind = "din" learns candidates alone: set objective = "ranking" and '
                    "ranking.generative_weight = 0"
                )
        never_retrieves = self.parent is None and all(stage.only_ranks for stage in self.stages)
        if never_retrieves and self.model.user.kind != "din":
            warnings.warn(
                "ranking.generative_weight is 0 in every stage: the model learns to score candidates, not to retrieve, "
                "and hllm recommend will be no better than chance. Set it above 0 in one, or use hllm rank alone",
                HllmWarning, stacklevel=2,
            )  # fmt: skip
        if self.model.user.kind == "din" and self.select_by not in RANKING_METRICS:
            raise ValueError(f'model.user.kind = "din" does not retrieve: select_by = "auc", not "{self.select_by}"')
        if ranking is not None and not any(stage.objective == "ranking" for stage in self.stages):
            raise ValueError('model.ranking has heads that no stage trains: set objective = "ranking" in one')
        for name in ranking.targets if ranking is not None else ():
            if name not in known:
                raise ValueError(
                    f"model.ranking.targets: no [[data.targets]] table is named {name!r}{nearest(name, known)}"
                )
        return self

    def windows_in(self, stage: StageConfig) -> WindowConfig:
        """Return how histories are cut in a stage."""
        own = {"max_history": stage.max_history, "windows": stage.windows}
        return self.model.model_copy(update={name: value for name, value in own.items() if value is not None})

    @property
    def settings(self) -> dict[str, Any]:
        """Return every setting that the results depend on."""
        return self.model_dump(mode="json", exclude={"checkpoints", "tracking", "compile"})

    @property
    def fingerprint(self) -> str:
        """Return a hash of the settings that the results depend on."""
        return artifacts.fingerprint(self.settings)


def default_recipe() -> Recipe:
    """Return what `Recommender.fit` uses when it is given no recipe: small models, for a CPU.

    The first layers of MiniLM read the items, the first layers of SmolLM2 the histories; the user tier learns on
    frozen item vectors first, then both tiers together. `recipes/demo.toml` has the reasons.
    """
    return Recipe(
        about="The default: small models, first the user tier, then both tiers",
        data=DataConfig(),
        model=ModelConfig(
            item=TextItemConfig(backbone="minilm-l6", num_layers=3, pooling="mean", whiten=True),
            user=UserLLMConfig(backbone="smollm2-135m", num_layers=2),
        ),
        stages=(
            StageConfig(
                name="user tier on frozen items",
                item_tier="frozen",
                epochs=3,
                learning_rate=1e-3,
                negatives=NegativesConfig(num_sampled=2048),
            ),
            StageConfig(name="both tiers", epochs=2),
        ),
    )
