"""A recipe: one TOML file that says what a run is made of."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from hllm import artifacts
from hllm.config import Config
from hllm.data.negatives import NegativesConfig
from hllm.data.schema import DataConfig
from hllm.data.split import SplitConfig
from hllm.evaluation.protocol import EvaluationConfig
from hllm.models.build import ModelConfig
from hllm.models.item.text import TextItemConfig
from hllm.models.user.llm import UserLLMConfig
from hllm.precision import Precision


class StageConfig(Config):
    """One stretch of training with its own schedule."""

    name: str = "train"
    """Shown in progress and metrics."""
    item_tier: Literal["train", "frozen"] = "train"
    """"frozen" encodes the catalogue once and trains the projector and the user tier on these vectors."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the training windows."""
    batch_size: int = Field(default=64, ge=1)
    """Windows in a step."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Peak rate of everything but the item tier's language model."""
    item_learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of the item tier's language model. None: learning_rate."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of the stage's steps in which the rate rises from 0; after it the rate falls to 0 as a cosine."""
    weight_decay: float = Field(default=0.01, ge=0)
    """On matrices; norms, biases, the [ITEM] vector and the scale have none."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    negatives: NegativesConfig = NegativesConfig()
    """What each position's target is told apart from."""


class Recipe(Config):
    """Data, split, model, training, evaluation."""

    about: str
    """What this recipe is for, in a sentence."""
    seed: int = 1
    """Of every random choice."""
    data: DataConfig
    split: SplitConfig = SplitConfig()
    model: ModelConfig
    stages: tuple[StageConfig, ...]
    """Run one after another, each from where the last one ended."""
    precision: Precision = "auto"
    """Format of matrix products: "auto" is bf16 where the device multiplies it in hardware, else fp32."""
    evaluation: EvaluationConfig = EvaluationConfig()

    @field_validator("stages")
    @classmethod
    def _some(cls, value: tuple[StageConfig, ...]) -> tuple[StageConfig, ...]:
        if not value:
            raise ValueError("at least one [[stages]] table is needed")
        return value

    @model_validator(mode="after")
    def _frozen_items_have_a_language_model(self) -> "Recipe":
        if self.model.item.kind == "id" and any(stage.item_tier == "frozen" for stage in self.stages):
            raise ValueError('item_tier = "frozen" needs model.item.kind = "llm": ids have nothing to start from')
        return self

    @property
    def fingerprint(self) -> str:
        """Return a hash of every setting."""
        return artifacts.fingerprint(self.model_dump(mode="json"))


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
