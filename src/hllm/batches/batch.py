"""A batch: each distinct item once, and sequences of rows that point to the items."""

# Proved by tests/batches/test_loader.py, tests/models/test_text.py.

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm.batches.negatives import Negatives, distinct
from hllm.batches.points import Points
from hllm.data.labels import UNKNOWN
from hllm.data.tokens import TokenCache
from hllm.losses.contrastive import Odds


@dataclass(frozen=True)
class ItemBatch:
    """Items for the item tier to encode, each once."""

    index: Int[Tensor, " item"]
    """item_index of each; -1 for an item that is known only by its text."""
    tokens: Int[Tensor, " token"]
    """Token ids of all items, one item after another; empty for models that read no text."""
    lengths: Int[Tensor, " item"]
    """Number of tokens of each item; 0 for one that comes without its text."""
    prefix: int = 0
    """Number of first tokens that all items with a text have in common: of the prompt, or of the first field's name. It
    is less than the tokens of any of them."""

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> "ItemBatch":
        """Return the batch on `device`, without waiting for it; lengths stay on the host, where they are needed."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in ("index", "tokens")}
        return replace(self, **moved)

    def take(self, rows: Int[np.ndarray, " row"]) -> "ItemBatch":
        """Return some of the items."""
        chosen = torch.from_numpy(rows)
        lengths = self.lengths[chosen]
        starts = (self.lengths.cumsum(0) - self.lengths)[chosen]
        places = torch.repeat_interleave(starts - (lengths.cumsum(0) - lengths), lengths) + torch.arange(
            int(lengths.sum())
        )
        device = self.tokens.device
        index = self.index[chosen.to(device, non_blocking=True)]
        return ItemBatch(index, self.tokens[places.to(device, non_blocking=True)], lengths, self.prefix)


@dataclass(frozen=True)
class PointBatch:
    """Candidates to score at some places of the histories, and their labels."""

    anchors: Int[Tensor, "batch point"]
    """The last position of the history that is known when the candidates are scored."""
    candidates: Int[Tensor, "batch point candidate"]
    """Rows of `items`."""
    labels: Int[Tensor, "batch point candidate target"]
    """1, 0, or -1 where the label is not known; all -1 at points that pad a row."""
    num_labels: int
    """How many labels the whole optimizer step has."""

    @property
    def own_labels(self) -> int:
        """Return how many labels these points have."""
        return int((self.labels != UNKNOWN).sum())

    def to(self, device: torch.device) -> "PointBatch":
        """Return the points on `device`, without waiting for it."""
        names = ("anchors", "candidates", "labels")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return replace(self, **moved)

    def __getitem__(self, part: slice) -> "PointBatch":
        """Return the points of some of the sequences."""
        return replace(self, **{name: getattr(self, name)[part] for name in ("anchors", "candidates", "labels")})


@dataclass(frozen=True)
class SequenceBatch:
    """Histories and their targets. `history`, `targets` and both kinds of negatives are rows of `items`."""

    items: ItemBatch
    users: Int[Tensor, " batch"]
    """user_index of the user of each history. For training alone: no tier reads it."""
    history: Int[Tensor, "batch position"]
    targets: Int[Tensor, "batch position"]
    """The item after each position of `history`."""
    mask: Bool[Tensor, "batch position"]
    """True where both history and target are real; padding is on the right and points at row 0."""
    lengths: Int[Tensor, " batch"]
    """How many positions of each row are real; on the host, so that nobody waits for a device to count the mask."""
    times: Int[Tensor, "batch position"]
    """When each item of `history` was met, in seconds since 1970; 0 where the data do not tell."""
    actions: Int[Tensor, "batch position"]
    """What the user did with each item of `history`: a position in the dataset's action_names."""
    negatives: Int[Tensor, " negative"]
    """Shared by all positions; empty where each has its own."""
    own_negatives: Int[Tensor, "query k"] | None
    """For each True of `mask`, row by row."""
    expected_counts: Float[Tensor, " item"] | None
    """How often each item of `items` is expected among a position's negatives, if it is not in the position's own
    window, or `holds_windows` is False. None: it was not asked for."""
    num_expected: float = 0.0
    """The sum of the expected counts over the whole catalogue."""
    holds_windows: bool = False
    """The items of a position's own window are among its negatives with certainty."""
    points: PointBatch | None = None
    """For the ranking objective."""
    weights: Float[Tensor, "batch position"] | None = None
    """How much the loss of each target counts; None: 1. On the host, as `lengths`."""

    @property
    def num_targets(self) -> int:
        """Return the number of positions with a target."""
        return int(self.lengths.sum())

    @property
    def target_weight(self) -> int | float:
        """Return the sum of the targets' weights: their number, if they have none."""
        weights = self._host_weights
        return self.num_targets if weights is None else float(weights.sum(dtype=torch.float64))

    @property
    def query_weights(self) -> Float[Tensor, " query"] | None:
        """Return the weight of each position with a target, row by row, or None if all are 1."""
        weights = self._host_weights
        return None if weights is None else weights.to(self.mask.device, non_blocking=True)

    @property
    def places(self) -> Int[Tensor, " query"]:
        """Return where each position with a target is among all positions, row by row."""
        return self._host_mask.flatten().nonzero()[:, 0].to(self.mask.device, non_blocking=True)

    def odds(self, windows: Int[Tensor, " query"]) -> Odds | None:
        """Return how often items are expected among the negatives of queries in these `windows`; None if not known."""
        counts = self.expected_counts
        if counts is None:
            return None
        if not self.holds_windows:
            return Odds(counts.log()[None], counts.new_full((1,), self.num_expected), torch.zeros_like(windows))
        real = torch.cat([self.mask[:, :1], self.mask], dim=1)
        own = torch.cat([self.history[:, :1], self.targets], dim=1).where(real, self.history[:, :1])
        each = counts.repeat(len(own), 1).scatter_(1, own, 1.0)
        return Odds(each.log(), self.num_expected + (each - counts).sum(1), windows)

    @property
    def _host_mask(self) -> Bool[Tensor, "batch position"]:
        return torch.arange(self.mask.shape[1]) < self.lengths[:, None]

    @property
    def _host_weights(self) -> Float[Tensor, " query"] | None:
        return None if self.weights is None else self.weights[self._host_mask]

    def to(self, device: torch.device) -> "SequenceBatch":
        """Return the batch on `device`, without waiting for it."""
        on_host = ("lengths", "weights", "num_expected", "holds_windows")
        parts = {name: value for name, value in vars(self).items() if name not in on_host and value is not None}
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value.to(device)
            for name, value in parts.items()
        }
        return replace(self, **moved)

    def __getitem__(self, part: slice) -> "SequenceBatch":
        """Return some of the sequences, over the same items and shared negatives."""
        names = ("users", "history", "targets", "mask", "lengths", "times", "actions")
        rows = {name: getattr(self, name)[part] for name in names}
        own = self.own_negatives
        if own is not None:
            ends = [0, *self.lengths.cumsum(0).tolist()]
            first, last, _ = part.indices(len(self.mask))
            own = own[ends[first] : ends[max(first, last)]]
        points = self.points[part] if self.points is not None else None
        weights = self.weights[part] if self.weights is not None else None
        return replace(self, **rows, own_negatives=own, points=points, weights=weights)


def item_batch(
    index: Int[np.ndarray, " item"], tokens: TokenCache | None, read: Bool[np.ndarray, " item"] | None = None
) -> ItemBatch:
    """Gather the items' tokens from the cache, or those of the items to `read`; without a cache there are none."""
    if tokens is None:
        empty = torch.zeros(0, dtype=torch.long)
        return ItemBatch(torch.from_numpy(index.astype(np.int64)), empty, torch.zeros(len(index), dtype=torch.long))
    ids, of_read = tokens.take(index if read is None else index[read])
    lengths = of_read
    if read is not None:
        lengths = np.zeros(len(index), dtype=np.int64)
        lengths[read] = of_read
    numbers, flat, counts = (torch.from_numpy(array.astype(np.int64)) for array in (index, ids, lengths))
    return ItemBatch(numbers, flat, counts, _shared_prefix(ids, of_read))


def text_batch(token_ids: Sequence[Sequence[int]]) -> ItemBatch:
    """Make a batch of items that are known by their text alone."""
    lengths = torch.tensor([len(ids) for ids in token_ids], dtype=torch.long)
    flat = torch.tensor([token for ids in token_ids for token in ids], dtype=torch.long)
    return ItemBatch(torch.full((len(token_ids),), -1), flat, lengths, _shared_prefix(flat.numpy(), lengths.numpy()))


def _shared_prefix(tokens: Int[np.ndarray, " token"], lengths: Int[np.ndarray, " item"]) -> int:
    """Return how many first tokens all items have in common, less than the shortest has."""
    if len(lengths) < 2:
        return 0
    starts, shortest = np.cumsum(lengths) - lengths, int(lengths.min())
    for place in range(shortest - 1):
        column = tokens[starts + place]
        if (column != column[0]).any():
            return place
    return max(0, shortest - 1)


def sequence_batch(
    windows: Sequence[Int[np.ndarray, " _"]],
    negatives: Negatives,
    tokens: TokenCache | None,
    *,
    users: Int[np.ndarray, " batch"],
    times: Sequence[Int[np.ndarray, " _"]],
    actions: Sequence[Int[np.ndarray, " _"]],
    points: Points | None = None,
    readable: Bool[np.ndarray, " num_items"] | None = None,
    read_negatives: bool = True,
) -> SequenceBatch:
    """Turn windows of item indices, each of at least two, into inputs and shifted targets over distinct items.

    `users`, `times`, `actions` and `points` belong to the windows, as in SequenceBatch. Items that are not `readable`
    come without their tokens. So do, without `read_negatives`, items that are neither in a window nor candidates of
    `points`.
    """
    history, mask = pad([window[:-1] for window in windows])
    targets, _ = pad([window[1:] for window in windows])
    own = negatives.per_position
    candidates = [] if points is None else [points.candidates.ravel()]
    drawn = [negatives.shared] if own is None else [negatives.shared, own.ravel()]
    index = distinct(np.concatenate([*windows, *drawn, *candidates]))
    read = None if readable is None else readable[index]
    if not read_negatives:
        inside = np.isin(index, np.concatenate([*windows, *candidates]))
        read = inside if read is None else read & inside

    def rows(items: Int[np.ndarray, "..."]) -> Tensor:
        return torch.from_numpy(np.searchsorted(index, items))

    fill = index[0]  # padding points at row 0, an ordinary item; the mask keeps it out
    return SequenceBatch(
        items=item_batch(index, tokens, read),
        users=torch.from_numpy(users),
        history=rows(np.where(mask, history, fill)),
        targets=rows(np.where(mask, targets, fill)),
        mask=torch.from_numpy(mask),
        lengths=torch.from_numpy(mask.sum(1)),
        times=torch.from_numpy(pad([moments[:-1] for moments in times])[0]),
        actions=torch.from_numpy(pad([done[:-1] for done in actions])[0]),
        negatives=rows(negatives.shared),
        own_negatives=rows(own) if own is not None else None,
        expected_counts=None if negatives.counts is None else torch.from_numpy(negatives.counts[index]).float(),
        num_expected=negatives.total,
        holds_windows=negatives.holds_windows,
        points=_point_batch(points, rows(points.candidates)) if points is not None else None,
    )


def _point_batch(points: Points, candidates: Tensor) -> PointBatch:
    batch = PointBatch(torch.from_numpy(points.anchors), candidates, torch.from_numpy(points.labels), 0)
    return replace(batch, num_labels=batch.own_labels)


def pad(
    sequences: Sequence[Int[np.ndarray, " _"]],
) -> tuple[Int[np.ndarray, "batch position"], Bool[np.ndarray, "batch position"]]:
    """Put sequences side by side, padded on the right with 0, and return the mask of what is real."""
    lengths = np.array([len(s) for s in sequences])
    mask = np.arange(max(1, lengths.max())) < lengths[:, None]
    padded = np.zeros(mask.shape, dtype=np.int64)
    padded[mask] = np.concatenate(sequences)
    return padded, mask
