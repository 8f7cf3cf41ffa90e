"""A run's numbers in TensorBoard, beside metrics.jsonl, which is always written."""

from pathlib import Path
from typing import Any

from hllm.extras import require

_PLACE = ("stage", "epoch", "step")  # where an event belongs, not what it measured


class TensorBoard:
    """Mirrors logged events as scalars in `folder`.

    `step` is the last step that counts: what an earlier, interrupted start wrote after it is no longer shown.
    Raises MissingExtraError without the package tensorboard.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        require("tensorboard", extra="track", purpose="tracking.tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1, flush_secs=10)

    def write(self, event: dict[str, Any]) -> None:
        """Add every number of `event` at its step: "step" events as train/loss …, others as validation/ndcg@10 ….

        An event without a step has no place on the axis and is left out.
        """
        if "step" not in event:
            return
        group = "train" if event["event"] == "step" else event["event"]
        for name, value in event.items():
            if name not in _PLACE and isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(f"{group}/{name}", value, event["step"])

    def close(self) -> None:
        """Write what is not yet on disk."""
        self._writer.close()
