"""The User LLM: a causal language model that reads item embeddings instead of words."""

# Proved by tests/models/test_ranking.py, tests/models/backbone/test_backbone.py.

from pathlib import Path
from typing import Literal

from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from hllm.errors import ConfigError
from hllm.models.backbone.backbone import Backbone, save_backbone_config
from hllm.models.backbone.lora import LoraConfig
from hllm.models.kinds import UserContext, UserFacts, UserTierConfig
from hllm.models.language_model import Attention, LanguageModel, attention_of
from hllm.models.tiers import History, SuffixEncoder
from hllm.parts import Spec


class UserLLMConfig(UserTierConfig):
    """A user tier that is a language model, without word embeddings and LM head."""

    kind: Literal["llm"] = "llm"
    backbone: str
    """A model fetched by `hllm model fetch`, or a Hugging Face model directory; it must be a decoder."""
    num_layers: int | None = Field(default=None, ge=1)
    """Keep only the first layers of the model. None keeps all."""
    pretrained: bool = True
    """False takes only the model's shape and starts from fresh weights."""
    lora: LoraConfig | None = None
    """Leave the model's weights as they are and train low-rank additions to them. None trains the weights."""

    @model_validator(mode="after")
    def _lora_has_a_base(self) -> "UserLLMConfig":
        if self.lora is not None and not self.pretrained:
            raise ValueError("lora needs pretrained = true: fresh weights that stay as they are know nothing")
        return self

    @property
    @override
    def language_model(self) -> LanguageModel:
        # It reads no words, so without weights its shape is enough.
        return LanguageModel(self.backbone, self.num_layers, self.pretrained, self.lora, needs_files=self.pretrained)


class UserLLM(SuffixEncoder):
    """Item embeddings in, user embeddings out: the state at each position predicts the next item.

    With `shared`, the Item LLM reads with the same network, which keeps its word embeddings.

    Source: arXiv:2409.12740, section 3.2.
    """

    causal = True
    reads_times = False

    def __init__(self, backbone: Backbone, *, shared: bool = False) -> None:
        super().__init__()
        if not backbone.causal:
            raise ConfigError(
                f"{backbone.config.model_type!r} reads both ways: as a user tier it would see what it is to predict. "
                "Choose a decoder, such as smollm2-135m"
            )
        if not shared:
            backbone.drop_word_embeddings()
        self.backbone = backbone
        self.dim = backbone.width

    @override
    def forward(self, history: History) -> Float[Tensor, "batch position dim"]:
        states: Tensor = self.backbone(history.embeddings, history.mask)
        return states

    @property
    @override
    def language_model(self) -> Backbone:
        return self.backbone

    @property
    @override
    def attention(self) -> Attention:
        return attention_of(self.backbone)

    @override
    def keep_files(self, folder: Path) -> None:
        save_backbone_config(self.backbone, folder)

    @override
    def packs(self, history: History) -> bool:
        return self.backbone.packs(history.embeddings)

    @override
    def with_suffixes(
        self, history: History, suffixes: Float[Tensor, "batch suffix dim"], anchors: Int[Tensor, "batch suffix"]
    ) -> tuple[Float[Tensor, "batch position dim"], Float[Tensor, "batch suffix dim"]]:
        return self.backbone.with_suffixes(history.embeddings, suffixes, anchors)

    @override
    def after(self, history: History) -> Float[Tensor, "batch dim"]:
        ends = history.mask.sum(-1, keepdim=True) - 1
        return self.backbone.at(history.embeddings, history.mask, ends)[:, 0]


def _build(config: UserLLMConfig, context: UserContext) -> UserLLM:
    backbone = config.language_model.open(context.base, context.weights, fast=context.fast)
    backbone.require_positions(context.max_positions, f"model.max_history = {context.max_history}")
    if context.ranks and backbone.causal:
        backbone.require_suffixes(context.max_history)
    return UserLLM(backbone, shared=context.shared)


SPEC = Spec(config=UserLLMConfig, build=_build, facts=UserFacts(ranks=True))
