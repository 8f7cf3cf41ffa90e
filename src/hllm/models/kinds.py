"""The two families of tiers: the facts and settings that a kind declares, and the context that it is built in."""

# Proved by tests/test_parts.py.

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hllm.data.prompt import PromptConfig
from hllm.models.backbone.backbone import Backbone
from hllm.models.heads import RankingConfig
from hllm.models.language_model import LanguageModel, NetworkWeights
from hllm.parts import PARTS, PartConfig, spec


@dataclass(frozen=True)
class ItemFacts:
    """Abilities of all item tiers of a kind."""

    reads_text: bool
    """It reads items. So it can embed a new text, and its language model can be frozen, reused or moved by Muon."""


@dataclass(frozen=True)
class UserFacts:
    """Abilities of all user tiers of a kind."""

    retrieves: bool = True
    """It makes a vector of a user, to which items are near or not. Else it only scores given candidates."""
    ranks: bool = False
    """It can read candidates one by one behind a history, as the heads of `model.ranking` need."""
    reads_both_ways: bool = False
    """A position sees those behind it too, so the tier learns to fill in hidden items (objective "masked-item")."""


class TierConfig(PartConfig):
    """Base of the settings of both families."""

    @property
    def language_model(self) -> LanguageModel | None:
        """Return the language model that the tier is or reads with, if there is one."""
        return None


class ItemTierConfig(TierConfig):
    """Base of the settings of all item tiers."""

    family: ClassVar[str] = "item"

    @property
    def facts(self) -> ItemFacts:
        """Return the abilities of this kind."""
        facts: ItemFacts = spec(self.family, self.kind).facts
        return facts

    @property
    def text_prompt(self) -> PromptConfig | None:
        """Return how an item becomes a text, if the tier reads text."""
        return None


class UserTierConfig(TierConfig):
    """Base of the settings of all user tiers."""

    family: ClassVar[str] = "user"

    @property
    def facts(self) -> UserFacts:
        """Return the abilities of this kind."""
        facts: UserFacts = spec(self.family, self.kind).facts
        return facts

    def check_ranking(self, ranking: RankingConfig | None) -> None:
        """Raise ValueError if the tier cannot stand below these heads; None stands for no heads."""
        if ranking is not None and not self.facts.ranks:
            able = [f'"{kind}"' for kind in PARTS["user"] if spec("user", kind).facts.ranks]
            raise ValueError(
                f'ranking needs user.kind = {", ".join(able[:-1])} or {able[-1]}: "{self.kind}" cannot read candidates '
                "one by one behind a history"
            )


@dataclass(frozen=True)
class UserContext:
    """A user tier is built from this and from its settings."""

    max_history: int
    """The most items of a history that it reads."""
    ranks: bool
    """Whether it reads candidates, or a [USER] vector, behind a history: that is one position more."""
    shared: bool
    """Whether the Item LLM reads with the same network."""
    base: Path
    """The folder in which relative paths start."""
    weights: NetworkWeights | None
    """The weights of its language model, if they are at hand already."""
    fast: bool = True
    """Whether its language model may use what makes it fast."""

    @property
    def max_positions(self) -> int:
        """Return how many positions the tier reads at most."""
        return self.max_history + self.ranks


@dataclass(frozen=True)
class ItemContext:
    """An item tier is built from this and from its settings."""

    num_items: int
    dim: int
    """Size of the embeddings that the user tier reads."""
    shared: Backbone | None
    """The User LLM's network, where one language model is to be both tiers."""
    base: Path
    """The folder in which relative paths start."""
    weights: NetworkWeights | None
    """The weights of its language model, if they are at hand already."""
    fast: bool = True
    """Whether its language model may use what makes it fast."""
