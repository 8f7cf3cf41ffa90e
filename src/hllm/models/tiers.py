"""The two tiers of a sequential recommender, as interfaces: items to vectors, histories to user vectors."""

# Proved by tests/models/test_user_tiers.py.

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hllm.batches.batch import ItemBatch
from hllm.models.backbone.backbone import Backbone
from hllm.models.item.projector import Projector
from hllm.models.language_model import Attention


@dataclass(frozen=True)
class History:
    """Sequences of item embeddings, oldest first, padded on the right."""

    embeddings: Float[Tensor, "batch position dim"]
    mask: Bool[Tensor, "batch position"]
    times: Int[Tensor, "batch position"]
    """When each item was met, in seconds since 1970; for tiers with `reads_times`."""


class ItemEncoder(nn.Module, ABC):
    """The item tier: one embedding for each item of a batch."""

    @abstractmethod
    def forward(self, items: ItemBatch) -> Float[Tensor, "item dim"]:
        """Return the items' embeddings, in the order given, not normalised."""

    @property
    def reader(self) -> "ReadingItemEncoder | None":
        """Return the tier that reads texts here: this one, one that it wraps, or none."""
        return None

    @property
    def projection(self) -> nn.Module | None:
        """Return the map that an item's vector passes last, if there is one."""
        return None

    @property
    def remembered(self) -> Float[Tensor, "num_items width"] | None:
        """Return the vectors that stand in for items whose text is not in a batch, to be changed in place, or None."""
        return None

    def keep_files(self, folder: Path, tokenizer: Path | None) -> None:
        """Put into `folder` what a checkpoint needs to build the tier again, besides weights: for most, nothing.

        `tokenizer` is the directory of the tokenizer that the texts were read with.
        """
        return


class ReadingItemEncoder(ItemEncoder, ABC):
    """An item tier in two halves: a language model reads a text, and a map brings its vector to the right size."""

    backbone: Backbone
    item_token: nn.Parameter | None
    """Learnt vectors that are read behind each text, if there are any."""
    projector: Projector | None
    """The map; None where the vectors have the right size."""

    @abstractmethod
    def pool(self, items: ItemBatch) -> Float[Tensor, "item width"]:
        """Return the language model's own vector of each item, before the map."""

    @abstractmethod
    def project(self, pooled: Float[Tensor, "item width"]) -> Float[Tensor, "item dim"]:
        """Map the language model's vectors to the embedding space."""

    def reading_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the vectors of `pool` depend on."""
        return [*self.backbone.parameters(), *([] if self.item_token is None else [self.item_token])]

    @property
    @abstractmethod
    def whitens(self) -> bool:
        """Return whether the map needs statistics of the language model's vectors before training."""

    @abstractmethod
    def fit_whitening(self, pooled: Float[Tensor, "item width"]) -> None:
        """Take these statistics from the vectors of the items that are known in training."""


class UserEncoder(nn.Module, ABC):
    """The user tier: at each position, an embedding of the user."""

    causal: bool
    """Whether a position reads only itself and those before it; else it is trained by the masked-item objective."""
    reads_times: bool
    """Whether `History.times` matters."""
    dim: int
    """Size of item and user embeddings."""

    @abstractmethod
    def forward(self, history: History) -> Float[Tensor, "batch position dim"]:
        """Return what the user may want at each position: next, if causal; in its place, if not.

        Values where the mask is False mean nothing.
        """

    def packs(self, history: History) -> bool:
        """Return whether `forward` reads histories of all lengths without padding most of them to the longest."""
        return False

    @property
    def language_model(self) -> Backbone | None:
        """Return the language model that reads the histories, if one does: an Item LLM can share it."""
        return None

    @property
    def attention(self) -> Attention:
        """Return the size of the tier's attention: none, unless it says otherwise."""
        return Attention()

    def keep_files(self, folder: Path) -> None:
        """Put into `folder` what a checkpoint needs to build the tier again, besides weights: for most, nothing."""
        return

    @abstractmethod
    def after(self, history: History) -> Float[Tensor, "batch dim"]:
        """Return what each user may want after the whole history, which has at least one item."""


class MaskingEncoder(UserEncoder, ABC):
    """A user tier that reads both ways, and fills in what is hidden from it."""

    @abstractmethod
    def masked(self, history: History, chosen: Bool[Tensor, "batch position"]) -> History:
        """Return the history with [MASK] in the place of what is at the chosen positions."""


class SuffixEncoder(UserEncoder, ABC):
    """A causal user tier that reads a history once, and then many possible next elements of it, each by itself."""

    @abstractmethod
    def with_suffixes(
        self, history: History, suffixes: Float[Tensor, "batch suffix dim"], anchors: Int[Tensor, "batch suffix"]
    ) -> tuple[Float[Tensor, "batch position dim"], Float[Tensor, "batch suffix dim"]]:
        """Return the states at the history's positions, as `forward` does, and those of the suffixes.

        Suffix j sees the history's positions up to `anchors[j]` (-1: none) and itself. It stands at the position
        behind its anchor. So its state is the last one of the history that is cut there and continued by the suffix.
        """


def at_last(
    states: Float[Tensor, "batch position dim"], mask: Bool[Tensor, "batch position"]
) -> Float[Tensor, "batch dim"]:
    """Return the states at the last real position of each row."""
    return states[torch.arange(len(states), device=states.device), mask.sum(-1) - 1]


def by_length(
    encoder: UserEncoder, history: History, lengths: Int[Tensor, " batch"]
) -> Float[Tensor, "batch position dim"]:
    """Run a user tier on histories of like length at a time, so that short ones are not padded to the longest.

    `lengths`, of the histories, are on the host. They are grouped by powers of two: at least half of what is computed
    is real. Where this would save less than half of the positions, everything is run at once: a CPU builds kernels for
    each new shape. Amazon Beauty in batches of 256, 6 items at the mean and 50 at most: 85 % are saved. A tier that
    packs gets everything at once too. Values behind the end of a history mean nothing.
    """
    if encoder.packs(history):
        packed: Tensor = encoder(history)
        return packed
    real = lengths.tolist()
    groups: dict[int, list[int]] = {}
    for row, length in enumerate(real):
        groups.setdefault(max(0, length - 1).bit_length(), []).append(row)
    width, device = history.mask.shape[1], history.mask.device
    grouped = sum(len(rows) * max(real[row] for row in rows) for rows in groups.values())
    if 2 * grouped > len(real) * width:
        states: Tensor = encoder(history)
        return states
    parts, order = [], []
    for _, rows in sorted(groups.items()):
        longest = max(1, max(real[row] for row in rows))
        chosen = torch.tensor(rows).to(device, non_blocking=True)
        part = History(*(value[chosen, :longest] for value in (history.embeddings, history.mask, history.times)))
        parts.append(F.pad(encoder(part), (0, 0, 0, width - longest)))
        order += rows
    back = torch.tensor(order).argsort().to(device, non_blocking=True)
    return torch.cat(parts)[back]
