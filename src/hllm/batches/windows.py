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


def training_windows(dataset: Dataset, split: Split, config: WindowConfig) -> TrainingWindows:
    """Cut the training interactions of each user into windows of at most max_history + 1 items.

    If some of a user's interactions are held out (cold items, say), those on both sides are neighbours.
    """
    lengths = split.training_lengths(dataset)
    bounds, users = [], []
    for user, (end, length) in enumerate(zip(np.cumsum(lengths).tolist(), lengths.tolist(), strict=True)):
        own = [(end - length + first, end - length + last) for first, last in windows_of(length, config)]
        bounds += own
        users += [user] * len(own)
    return TrainingWindows(np.array(bounds, dtype=np.int64).reshape(-1, 2), np.array(users, dtype=np.int64))


def windows_of(length: int, config: WindowConfig) -> list[tuple[int, int]]:
    """Return where the windows of one history of `length` training items start and end."""
    size = config.max_history + 1
    if config.windows == "latest":
        ends = [length]
    elif config.windows == "blocks" and length > size:
        ends = list(range(length, size - 1, -size))
    elif config.windows == "strides":
        stride = config.window_stride or max(1, config.max_history // 2)
        ends = [length, *range(length - stride, size - stride, -stride)]
    else:
        ends = list(range(length, 1, -config.max_history))
    return [(max(0, end - size), end) for end in ends if end >= 2]
