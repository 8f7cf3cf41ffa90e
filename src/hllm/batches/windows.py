"""Training windows: where each user's history is cut."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from hllm.data.dataset import Dataset
from hllm.data.split import Split

Windows = Literal["all-targets", "latest", "blocks", "strides"]


@dataclass(frozen=True)
class WindowConfig:
    """Settings of how histories are cut into training windows.

    Raises ValueError for a stride that the kind of window does not have.
    """

    max_history: int
    """Most items that the user tier reads at once; a window has one more, its last target."""
    windows: Windows = "all-targets"
    """The kind of window; the settings of a stage say what each is."""
    window_stride: int | None = None
    """"strides" only: items between the ends of neighbouring windows. None: half of max_history."""

    def __post_init__(self) -> None:
        """Refuse a stride that has no effect, or skips items."""
        if self.window_stride is not None and self.windows != "strides":
            raise ValueError(f'window_stride has no effect on windows = "{self.windows}"; it is for "strides"')
        if self.window_stride is not None and self.window_stride > self.max_history:
            raise ValueError(
                f"window_stride {self.window_stride} is beyond max_history {self.max_history}: some items would be "
                "no target"
            )


@dataclass(frozen=True)
class TrainingWindows:
    """The windows of all users, user by user."""

    bounds: Int[np.ndarray, "window 2"]
    """Where each window starts and ends among the training interactions."""
    users: Int[np.ndarray, " window"]
    """user_index of the user whose window it is."""

    def __len__(self) -> int:
        return len(self.users)

    def holding(self, item_index: Int[np.ndarray, " interaction"], num_items: int) -> Int[np.ndarray, " num_items"]:
        """Return how many windows hold each item; `item_index` is that of the training interactions."""
        order = np.argsort(item_index, kind="stable")
        again = np.flatnonzero(np.diff(item_index[order]) == 0) + 1
        earlier = np.full(len(order), -1)  # the interaction before it with the same item
        earlier[order[again]] = order[again - 1]
        counts = np.zeros(num_items, dtype=np.int64)
        for part in range(0, len(self), _WINDOWS_AT_ONCE):
            starts, ends = self.bounds[part : part + _WINDOWS_AT_ONCE].T
            _, first, nth = _each(starts, ends - starts)
            places = first + nth
            counts += np.bincount(item_index[places[earlier[places] < first]], minlength=num_items)
        return counts


_WINDOWS_AT_ONCE = 20_000


def training_windows(dataset: Dataset, split: Split, config: WindowConfig) -> TrainingWindows:
    """Cut the training interactions of each user into windows of at most max_history + 1 items.

    If some of a user's interactions are held out (cold items, say), those on both sides are neighbours.
    """
    lengths = split.training_lengths(dataset)
    users, bounds = _cut(lengths, config)
    return TrainingWindows(bounds + (np.cumsum(lengths) - lengths)[users, None], users)


def windows_of(length: int, config: WindowConfig) -> list[tuple[int, int]]:
    """Return where the windows of one history of `length` training items start and end, the latest first."""
    return [(start, end) for start, end in _cut(np.array([length]), config)[1].tolist()]


def _cut(
    lengths: Int[np.ndarray, " user"], config: WindowConfig
) -> tuple[Int[np.ndarray, " window"], Int[np.ndarray, "window 2"]]:
    """Return whose each window is, and where in that user's history it starts and ends; the latest first."""
    size, step, counts = config.max_history + 1, config.max_history, np.ones(len(lengths), dtype=np.int64)
    match config.windows:
        case "all-targets":
            counts = -(-(lengths - 1) // step)
        case "blocks":
            step, counts = size, np.maximum(1, lengths // size)
        case "strides":
            step = config.window_stride or max(1, config.max_history // 2)
            counts = 1 - (np.minimum(0, size - lengths) // step)
    users, length, nth = _each(lengths, np.where(lengths < 2, 0, counts))
    ends = length - nth * step
    return users, np.stack([np.maximum(0, ends - size), ends], axis=1)


def _each(
    values: Int[np.ndarray, " row"], counts: Int[np.ndarray, " row"]
) -> tuple[Int[np.ndarray, " each"], Int[np.ndarray, " each"], Int[np.ndarray, " each"]]:
    """Repeat each row so many times; return the rows' numbers, their values, and 0, 1, … within each."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return rows, values[rows], np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
