"""A position says where a run stands: stage, epoch, step and the best validation."""

# Proved by tests/training/test_training.py.

from pathlib import Path

from hllm import artifacts
from hllm.config import Config


class Position(Config):
    """The next step that training runs. With the seed, it determines all that follows."""

    stage: int = 0
    """Number of the stage, from 0; equal to the number of stages when all is done."""
    epoch: int = 0
    """Number of the epoch in the stage, from 0."""
    step_in_epoch: int = 0
    """Optimizer steps done in the epoch; all of them: its validation is still to come."""
    step: int = 0
    """Optimizer steps done in all stages."""
    elapsed_s: float = 0.0
    """Seconds spent training, over all starts."""
    best: float = -1.0
    """The best validation value so far; -1 before the first."""
    validations_since_best: int = 0
    """Validations of this stage that were no better than the best."""
    skipped: int = 0
    """Steps of this stage that were not finite."""
    collapsed: int = 0
    """The latest steps, in a row, whose item embeddings had collapsed."""
    masked: int = 0
    """The latest steps, in a row, whose negatives were mostly masked."""

    @property
    def is_inside_stage(self) -> bool:
        """Return whether the stage has begun."""
        return self.epoch > 0 or self.step_in_epoch > 0

    def moved(self, **changed: int | float) -> "Position":
        """Return the position with some numbers changed."""
        return self.model_copy(update=changed)

    def next_stage(self) -> "Position":
        """Return the position where the stage behind this one begins; what is counted in a stage starts at 0."""
        return self.moved(
            stage=self.stage + 1, epoch=0, step_in_epoch=0, validations_since_best=0, skipped=0, collapsed=0, masked=0
        )


def read_position(path: Path) -> Position:
    """Return the position that a checkpoint keeps; CheckpointError if it is damaged."""
    return Position.from_dict(artifacts.verify(path, "checkpoint").details["position"], where=str(path))
