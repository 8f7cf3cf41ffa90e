"""From a config to a model: one match statement for each tier."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from hllm.batches.loader import WindowConfig
from hllm.config import Config
from hllm.errors import ConfigError
from hllm.losses.contrastive import Similarity
from hllm.models.backbone.backbone import Backbone, load_backbone
from hllm.models.backbone.lora import add_lora
from hllm.models.fusion import Fusion, InputsConfig
from hllm.models.heads import RankingConfig, RankingHeads
from hllm.models.item.ids import IdItemConfig, IdItemEncoder
from hllm.models.item.text import TextItemConfig, TextItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.tiers import ItemEncoder, UserEncoder
from hllm.models.user.bert4rec import BERT4Rec, BERT4RecConfig
from hllm.models.user.din import DIN, DINConfig
from hllm.models.user.gru4rec import GRU4Rec, GRU4RecConfig
from hllm.models.user.hstu import HSTU, HSTUConfig
from hllm.models.user.llm import UserLLM, UserLLMConfig
from hllm.models.user.sasrec import SASRec, SASRecConfig
from hllm.sources.language_models import resolve_backbone, resolve_shape

NetworkWeights = Mapping[str, Tensor]
"""A language model's tensors by its own names for them."""


class ModelConfig(WindowConfig):
    """Which tiers, and what they share."""

    item: Annotated[TextItemConfig | IdItemConfig, Field(discriminator="kind")]
    """The item tier: kind "llm" reads text, kind "id" learns a vector for each item."""
    user: Annotated[
        UserLLMConfig | SASRecConfig | BERT4RecConfig | HSTUConfig | GRU4RecConfig | DINConfig,
        Field(discriminator="kind"),
    ]
    """The user tier: kind "llm", "sasrec", "bert4rec", "hstu" or "gru4rec"; "din" scores candidates and no more."""
    share_backbone: bool = False
    """One language model, with one set of weights, is both the Item LLM and the User LLM."""
    inputs: InputsConfig = InputsConfig()
    """What the user tier reads at each position besides the item's own vector."""
    ranking: RankingConfig | None = None
    """Heads that score given candidates, for user.kind "llm", "sasrec" and "din". None: the model only retrieves."""
    similarity: Similarity = "cosine"
    """How a user vector is compared with item vectors; "dot" has no temperature."""
    temperature: float = Field(default=0.07, ge=0.01, le=1)
    """Where 1 / scale of the cosines starts."""
    learn_temperature: bool = True
    """Learn the temperature, between .01 and 1; False keeps it."""

    @model_validator(mode="after")
    def _sharing_needs_one_model(self) -> "ModelConfig":
        if self.share_backbone:
            if not (isinstance(self.item, TextItemConfig) and isinstance(self.user, UserLLMConfig)):
                raise ValueError('share_backbone = true needs item.kind = "llm" and user.kind = "llm"')
            for name in ("backbone", "num_layers", "pretrained", "lora"):
                ours, theirs = getattr(self.item, name), getattr(self.user, name)
                if ours != theirs:
                    raise ValueError(
                        f"share_backbone = true, but item.{name} is {ours!r} and user.{name} is {theirs!r}"
                    )
        return self

    @model_validator(mode="after")
    def _the_user_tier_can_rank(self) -> "ModelConfig":
        if self.user.kind == "din" and (self.ranking is None or self.ranking.fusion != "early"):
            raise ValueError('user.kind = "din" needs the table ranking, with fusion = "early"')
        if self.ranking is None:
            return self
        if self.user.kind not in ("llm", "sasrec", "din"):
            raise ValueError(
                f'ranking needs user.kind = "llm", "sasrec" or "din": "{self.user.kind}" cannot read candidates one by '
                "one behind a history"
            )
        if isinstance(self.user, SASRecConfig) and self.user.positions == "end":
            raise ValueError(
                'ranking needs user.positions = "start", "rotary" or "none": counted from the end, the positions of a '
                "history change with each candidate behind it"
            )
        if self.ranking.fusion == "early" and (self.inputs.timestamp or self.inputs.action):
            raise ValueError(
                'ranking.fusion = "early" reads candidates as elements of the history, but they have no time and no '
                'action yet: set inputs.timestamp = 0 and inputs.action = false, or fusion = "late"'
            )
        return self

    @property
    def max_positions(self) -> int:
        """Return how many positions the user tier reads at most: a candidate, or [USER], is one more."""
        return self.max_history + (self.ranking is not None)


def require_separate_tiers(config: ModelConfig, *, frozen: str) -> None:
    """Raise ConfigError for a stage that freezes one tier ("item" or "user") where both are one language model."""
    if config.share_backbone:
        raise ConfigError(
            f'{frozen}_tier = "frozen" cannot be with model.share_backbone = true: the other tier trains the same '
            "weights; freeze neither tier, or let them have their own"
        )


def build_model(config: ModelConfig, *, num_items: int, num_actions: int, base: Path) -> SequentialRecommender:
    """Build the model with its pre-trained weights, as the recipe says; paths in it start at `base`."""
    if config.item.kind == "llm" and not config.item.pretrained and config.item.whiten:
        raise ConfigError(
            "model.item: whiten = true needs pretrained = true: fresh weights have no statistics to remove"
        )
    user, dim = _user_encoder(config, base)
    return _join(config, _item_encoder(config, dim, num_items, base, user), user, dim, num_items, num_actions)


def outline_model(config: ModelConfig, *, num_items: int, num_actions: int, base: Path) -> SequentialRecommender:
    """Build the model's shape on the meta device: its parameters can be counted, but take no memory and hold nothing.

    Models that are not at hand are outlined from their known shapes.
    """
    with torch.device("meta"):
        return build_model(config, num_items=num_items, num_actions=num_actions, base=base)


def rebuild_model(
    config: ModelConfig,
    *,
    num_items: int,
    num_actions: int,
    checkpoint: Path,
    item_network: NetworkWeights | None = None,
    user_network: NetworkWeights | None = None,
) -> SequentialRecommender:
    """Build the same shape from the configs kept in a checkpoint, to be filled with its weights.

    The weights of the language models, where given, are in them already, and need not be drawn first.
    """
    item, user = config.item, config.user
    if item.kind == "llm":
        kept = {"backbone": "item_backbone", "num_layers": None, "pretrained": False}
        item = item.model_copy(update=kept)
    if user.kind == "llm":
        user = user.model_copy(update={"backbone": "user_backbone", "num_layers": None, "pretrained": False})
    config = config.model_copy(update={"item": item, "user": user})
    user_encoder, dim = _user_encoder(config, checkpoint, user_network)
    item_encoder = _item_encoder(config, dim, num_items, checkpoint, user_encoder, item_network)
    return _join(config, item_encoder, user_encoder, dim, num_items, num_actions)


def _join(
    config: ModelConfig, item: ItemEncoder, user: UserEncoder, dim: int, num_items: int, num_actions: int
) -> SequentialRecommender:
    if not user.causal and (config.inputs.timestamp or config.inputs.action):
        raise ConfigError(
            f'model.user.kind = "{config.user.kind}" reads whole training windows, and of their last item the batches '
            "do not tell time and action: set model.inputs.timestamp = 0 and action = false, or choose another kind"
        )
    if config.inputs.action and not num_actions:
        raise ConfigError("model.inputs.action = true needs data.action_col, the column that says what was done")
    cosine = config.similarity == "cosine"
    return SequentialRecommender(
        item,
        user,
        fusion=Fusion(config.inputs, dim, num_items=num_items, num_actions=num_actions) if config.inputs.any else None,
        ranker=RankingHeads(config.ranking, dim) if config.ranking is not None else None,
        similarity=config.similarity,
        scale=1 / config.temperature if cosine else 1.0,
        learn_scale=cosine and config.learn_temperature,
    )


def _backbone(config: TextItemConfig | UserLLMConfig, base: Path, weights: NetworkWeights | None) -> Backbone:
    outline = torch.get_default_device().type == "meta"
    # What reads words needs a tokenizer, which a shape alone does not have.
    shape_is_enough = outline or (isinstance(config, UserLLMConfig) and not config.pretrained)
    path = (resolve_shape if shape_is_enough else resolve_backbone)(config.backbone, base)
    pretrained = config.pretrained and not outline
    backbone = load_backbone(path, num_layers=config.num_layers, pretrained=pretrained, weights=weights)
    if config.lora is not None:
        add_lora(backbone, config.lora)
    return backbone


def _user_encoder(config: ModelConfig, base: Path, weights: NetworkWeights | None = None) -> tuple[UserEncoder, int]:
    match config.user:
        case UserLLMConfig() as user:
            backbone = _backbone(user, base, weights)
            backbone.require_positions(config.max_positions, f"model.max_history = {config.max_history}")
            if config.ranking is not None and backbone.causal:
                backbone.require_suffixes(config.max_history)
            return UserLLM(backbone, shared=config.share_backbone), backbone.width
        case SASRecConfig() as user:
            return SASRec(max_history=config.max_positions, **_arguments(user)), user.dim
        case DINConfig() as user:
            return DIN(**_arguments(user)), user.dim
        case BERT4RecConfig() as user:
            return BERT4Rec(max_history=config.max_history, **_arguments(user)), user.dim
        case HSTUConfig() as user:
            return HSTU(max_history=config.max_history, **_arguments(user)), user.dim
        case GRU4RecConfig() as user:
            return GRU4Rec(**_arguments(user)), user.dim


def _item_encoder(
    config: ModelConfig,
    dim: int,
    num_items: int,
    base: Path,
    user: UserEncoder,
    weights: NetworkWeights | None = None,
) -> ItemEncoder:
    match config.item:
        case TextItemConfig() as item:
            shared = user.backbone if config.share_backbone and isinstance(user, UserLLM) else None
            backbone = shared or _backbone(item, base, weights)
            what = f"model.item.prompt.max_tokens = {item.prompt.max_tokens} with pooling {item.pooling!r}"
            backbone.require_positions(item.max_positions, what)
            return TextItemEncoder(
                backbone,
                dim,
                pooling=item.pooling,
                num_item_tokens=item.num_item_tokens,
                whiten=item.whiten,
                train_word_embeddings=item.train_word_embeddings or not item.pretrained,
            )
        case IdItemConfig() as item:
            return IdItemEncoder(num_items, dim, own_dim=item.dim, init_std=item.init_std)


def _arguments(config: Config) -> dict[str, Any]:
    """Return the fields of a config that are the arguments of the class it is for, under the same names."""
    return config.model_dump(exclude={"kind"})
