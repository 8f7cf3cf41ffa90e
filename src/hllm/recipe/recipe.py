"""A recipe: one TOML file that says what a run is made of."""

# Proved by tests/training/test_training.py, tests/test_recipes.py.

import warnings
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import field_validator, model_validator

from hllm import artifacts
from hllm.batches.loader import BatchContents
from hllm.batches.negatives import NegativesConfig
from hllm.batches.windows import WindowConfig
from hllm.config import Config
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.growth import KnownItems
from hllm.data.schema import DataConfig
from hllm.data.split import SplitConfig
from hllm.errors import HllmWarning
from hllm.evaluation.protocol import EvaluationConfig
from hllm.metrics import DEFINITIONS, RANKING_METRICS
from hllm.models.build import ModelConfig
from hllm.models.item.text import TextItemConfig
from hllm.models.user.llm import UserLLMConfig
from hllm.objectives.next_item import NextItemConfig
from hllm.precision import Precision
from hllm.recipe.reference import with_reference_defaults
from hllm.recipe.stages import CheckpointsConfig, StageConfig
from hllm.recipe.start import StartConfig, with_start
from hllm.recipe.tracking import TrackingConfig
from hllm.sources.data_sets import with_source_columns

_PROSE_AND_PLACES: Any = {
    "about": True,
    "checkpoints": True,
    "tracking": True,
    "compile": True,
    "fast": True,
    "data": {"source", "interactions", "items", "quarantine"},
    "stages": {"__all__": {"name"}},
    "start": {"weights"},
}
"""Keys that may be changed when a run goes on. Those of `model` that name a language model are compared by content."""


class ParentConfig(Config):
    """The run whose weights and data a fine-tuned run begins with; `hllm fine-tune` fills in its fingerprints."""

    checkpoint: str
    """Fingerprint of its best checkpoint."""
    dataset: str
    """Fingerprint of its data."""
    recipe: str
    """Fingerprint of its recipe."""
    known_items: KnownItems = "error"
    """If an item comes again with another text: refuse, "keep" the old text, or "update" it."""


class Recipe(Config):
    """A recipe holds data, split, model, stages of training, and evaluation."""

    about: str
    """The purpose of this recipe, in a sentence."""
    compat: Literal["none", "reference"] = "none"
    """"reference": every option that this recipe leaves out is as in the HLLM paper's code, to match its numbers."""
    seed: int = 1
    """Seed of every random choice."""
    data: DataConfig
    split: SplitConfig = LeaveOneOutSplit()
    model: ModelConfig
    stages: tuple[StageConfig, ...]
    """Stages run one after another, each from where the last one ended."""
    select_by: str = "ndcg@10"
    """The validation metric, such as "recall@50", that picks the best checkpoint and ends stages early. "auc" and
    "gauc" score candidates with labels, for models with the table model.ranking; of several targets, their mean."""
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    """The times at which training is saved; may be changed when a run goes on."""
    tracking: TrackingConfig = TrackingConfig()
    """The places that a run's numbers go to besides metrics.jsonl; may be changed when a run goes on."""
    precision: Precision = "auto"
    """Format of matrix products: "auto" is bf16 where the device multiplies it in hardware, else fp32."""
    compile: bool = False
    """Compile the language models' layers in the first steps (torch.compile), which takes minutes and a C++ compiler.
    What it gains depends on the machine; may be changed when a run goes on."""
    fast: bool = True
    """Run language models with the devices that make them fast. False: as transformers has them; results differ by
    rounding alone. May be changed when a run goes on."""
    evaluation: EvaluationConfig = EvaluationConfig()
    start: StartConfig | None = None
    """The trained weights to start with, of another run or imported. None: those of the language models."""
    parent: ParentConfig | None = None
    """Set by `hllm fine-tune`: the run that this one goes on from."""

    @model_validator(mode="before")
    @classmethod
    def _with_what_it_leaves_out(cls, values: Any, info: Any) -> Any:
        if isinstance(values, Mapping):
            values = with_start(values, (info.context or {}).get("base", Path()))
        if isinstance(values, Mapping) and values.get("compat") == "reference" and {"model", "stages"} <= set(values):
            return with_reference_defaults(values)
        return values

    @field_validator("data")
    @classmethod
    def _writes_here(cls, value: DataConfig) -> DataConfig:
        if value.quarantine is not None:
            place = PurePath(value.quarantine)
            if place.is_absolute() or ".." in place.parts or value.quarantine.startswith("~"):
                raise ValueError(
                    f"quarantine is {value.quarantine!r}, which a recipe may not write to; expected a folder below the "
                    "working folder, such as quarantine. hllm data check --quarantine takes any"
                )
        return with_source_columns(value)

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
    def _a_best_one_is_known(self) -> "Recipe":
        if not self.stages[-1].validate_every:
            raise ValueError(
                f"stages.{len(self.stages) - 1}.validate_every is 0, but the last stage's is what is kept: set it to "
                "1 or more"
            )
        if self.stages[0].start == "best":
            raise ValueError('stages.0.start = "best" has no effect: nothing was trained before it; leave it out')
        for number, stage in enumerate(self.stages):
            if stage.start == "best" and not any(s.validate_every for s in self.stages[:number]):
                raise ValueError(f'stages.{number}.start = "best", but no stage before it is validated: leave it out')
        if self.select_by in RANKING_METRICS and self.model.ranking is None:
            raise ValueError(f'select_by = "{self.select_by}" scores candidates: it needs the table model.ranking')
        user = self.model.user
        if self.select_by not in RANKING_METRICS and not user.facts.retrieves:
            raise ValueError(
                f'model.user.kind = "{user.kind}" does not retrieve: select_by = "auc", not "{self.select_by}"'
            )
        return self

    @model_validator(mode="after")
    def _stages_fit_the_model(self) -> "Recipe":
        for number, stage in enumerate(self.stages):
            try:
                stage.check(self.model)
            except ValueError as error:
                raise ValueError(f"stages.{number}.{error}") from None
        return self

    @model_validator(mode="after")
    def _what_is_asked_of_the_model_is_learnt(self) -> "Recipe":
        if self.model.ranking is not None:
            self.model.ranking.check_targets([target.name for target in self.data.targets])
            if self.start is None and not any(stage.ranks for stage in self.stages):
                raise ValueError('model.ranking has heads that no stage trains: set objective.kind = "ranking" in one')
        begun = self.parent is not None or self.start is not None
        learnt = begun or any(stage.retrieves for stage in self.stages)
        if self.model.user.facts.retrieves and not learnt:
            warnings.warn(
                'no stage has the objective or the term "next-item": the model learns to score candidates, not to '
                "retrieve, and hllm recommend will be no better than chance. Add the term to one, or use hllm rank "
                "alone", HllmWarning, stacklevel=2,
            )  # fmt: skip
        return self

    def windows_in(self, stage: StageConfig) -> WindowConfig:
        """Return how histories are cut in a stage."""
        return stage.windows_of(self.model)

    def batches_in(self, stage: StageConfig) -> BatchContents:
        """Return the contents of a stage's batches."""
        return BatchContents(
            windows=self.windows_in(stage),
            batch_size=stage.batch_size,
            micro_batch_size=None if stage.gradient_cache else stage.micro_batch_size,
            negatives=stage.negatives,
            counts_expected=stage.loss is not None and bool(stage.loss.log_q),
            points=stage.points,
            labels=self.model.ranking.targets if self.model.ranking is not None else (),
            reuse=stage.reuse,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Return every setting that the results depend on; not prose, nor places, whose content is checked."""
        return self.model_dump(mode="json", exclude=_PROSE_AND_PLACES)

    @property
    def fingerprint(self) -> str:
        """Return a hash of the settings that the results depend on."""
        return artifacts.fingerprint(self.settings)


def default_recipe() -> Recipe:
    """Return the recipe that `Recommender.fit` takes if it is given none: small models, for a CPU.

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
                objective=NextItemConfig(negatives=NegativesConfig(num_sampled=2048)),
            ),
            StageConfig(name="both tiers", epochs=2),
        ),
    )
