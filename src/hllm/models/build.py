"""Build a model from its settings: each tier is built by the Spec of its kind."""

# Proved by tests/models/backbone/test_backbone.py, tests/models/test_sharing.py.

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from pydantic import Field, SerializeAsAny, model_validator

from hllm.config import Config
from hllm.errors import ConfigError
from hllm.losses.contrastive import Similarity
from hllm.models.fusion import Fusion, InputsConfig
from hllm.models.heads import RankingConfig, RankingHeads
from hllm.models.kinds import ItemContext, ItemTierConfig, UserContext, UserTierConfig
from hllm.models.language_model import NetworkWeights
from hllm.models.recommender import SequentialRecommender
from hllm.models.tiers import ItemEncoder, UserEncoder
from hllm.parts import spec

_NO_WEIGHTS: Mapping[str, NetworkWeights] = MappingProxyType({})


class ModelConfig(Config):
    """The two tiers, and what they share."""

    max_history: int = Field(default=50, ge=1)
    """Most items the User LLM reads at once: the latest ones when scoring, windows of them when training."""
    item: SerializeAsAny[ItemTierConfig]
    """The item tier: kind "llm" reads text, kind "id" learns a vector for each item."""
    user: SerializeAsAny[UserTierConfig]
    """The user tier: kind "llm", "sasrec", "bert4rec", "hstu" or "gru4rec"; "din" scores candidates and no more."""
    share_backbone: bool = False
    """One language model, with one set of weights, is both the Item LLM and the User LLM."""
    inputs: InputsConfig = InputsConfig()
    """Parts that the user tier reads at each position besides the item's own vector."""
    ranking: RankingConfig | None = None
    """Heads that score given candidates, for user.kind "llm", "sasrec" and "din". None: the model only retrieves."""
    similarity: Similarity = "cosine"
    """The comparison of a user vector with item vectors; "dot" has no temperature."""
    temperature: float = Field(default=0.07, ge=0.01, le=1)
    """1 / scale of the cosines at the start of training."""
    learn_temperature: bool = True
    """Learn the temperature, between .01 and 1; False keeps it."""

    effective_with = {  # noqa: RUF012
        "temperature": ("similarity", ("cosine",)),
        "learn_temperature": ("similarity", ("cosine",)),
    }

    @model_validator(mode="after")
    def _sharing_needs_one_model(self) -> "ModelConfig":
        if self.share_backbone:
            item, user = self.item.language_model, self.user.language_model
            if item is None or user is None:
                raise ValueError('share_backbone = true needs item.kind = "llm" and user.kind = "llm"')
            for name in ("backbone", "num_layers", "pretrained", "lora"):
                ours, theirs = getattr(item, name), getattr(user, name)
                if ours != theirs:
                    raise ValueError(
                        f"share_backbone = true, but item.{name} is {ours!r} and user.{name} is {theirs!r}"
                    )
        return self

    @model_validator(mode="after")
    def _the_user_tier_can_rank(self) -> "ModelConfig":
        self.user.check_ranking(self.ranking)
        if self.ranking is None:
            return self
        if self.ranking.fusion == "early" and (self.inputs.timestamp or self.inputs.action):
            raise ValueError(
                'ranking.fusion = "early" reads candidates as elements of the history, but they have no time and no '
                'action yet: set inputs.timestamp = 0 and inputs.action = false, or fusion = "late"'
            )
        return self


def require_separate_tiers(config: ModelConfig, *, frozen: str) -> None:
    """Raise ConfigError for a stage that freezes one tier ("item" or "user") where both are one language model."""
    if config.share_backbone:
        raise ConfigError(
            f'{frozen}_tier = "frozen" cannot be with model.share_backbone = true: the other tier trains the same '
            "weights; freeze neither tier, or let them have their own"
        )


def build_model(
    config: ModelConfig,
    *,
    num_items: int,
    num_actions: int,
    base: Path,
    weights: Mapping[str, NetworkWeights] = _NO_WEIGHTS,
    fast: bool = True,
) -> SequentialRecommender:
    """Build the model with its pre-trained weights, as the recipe says; paths in it start at `base`.

    `weights` may hold those of the language models of "item" and "user"; then they are not read or drawn.
    `fast` = False leaves language models as transformers has them.
    """
    ranks = config.ranking is not None
    around_user = UserContext(config.max_history, ranks, config.share_backbone, base, weights.get("user"), fast)
    user: UserEncoder = spec("user", config.user.kind).build(config.user, around_user)
    shared = user.language_model if config.share_backbone else None
    around_item = ItemContext(num_items, user.dim, shared, base, weights.get("item"), fast)
    item: ItemEncoder = spec("item", config.item.kind).build(config.item, around_item)
    return _join(config, item, user, num_items, num_actions)


def outline_model(config: ModelConfig, *, num_items: int, num_actions: int, base: Path) -> SequentialRecommender:
    """Build the model's shape on the meta device: its parameters can be counted, but take no memory and hold nothing.

    Models that are not at hand are outlined from their known shapes.
    """
    with torch.device("meta"):
        return build_model(config, num_items=num_items, num_actions=num_actions, base=base)


def _join(
    config: ModelConfig, item: ItemEncoder, user: UserEncoder, num_items: int, num_actions: int
) -> SequentialRecommender:
    if config.user.facts.reads_both_ways and (config.inputs.timestamp or config.inputs.action):
        raise ConfigError(
            f'model.user.kind = "{config.user.kind}" reads whole training windows, and of their last item the batches '
            "do not tell time and action: set model.inputs.timestamp = 0 and action = false, or choose another kind"
        )
    if config.inputs.action and not num_actions:
        raise ConfigError("model.inputs.action = true needs data.action_col, the column that says what was done")
    cosine = config.similarity == "cosine"
    dim = user.dim
    model = SequentialRecommender(
        item,
        user,
        fusion=Fusion(config.inputs, dim, num_items=num_items, num_actions=num_actions) if config.inputs.any else None,
        ranker=RankingHeads(config.ranking, dim) if config.ranking is not None else None,
        similarity=config.similarity,
        scale=1 / config.temperature if cosine else 1.0,
    )
    model.log_scale.requires_grad_(cosine and config.learn_temperature)
    return model
