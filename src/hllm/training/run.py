"""A run's directory: its recipe, data, checkpoints, vectors and metrics, and where training stands."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hllm import artifacts
from hllm.config import Config
from hllm.errors import CheckpointError, ConfigError, StorageError
from hllm.training.recipe import Recipe


class Position(Config):
    """How far training has come: the next epoch to run."""

    stage: int
    """Number of the stage, from 0; equal to the number of stages when all is done."""
    epoch: int
    step: int
    """Optimizer steps done in all stages."""
    elapsed_s: float
    """Seconds spent training, over all starts."""
    best: float
    """The best validation value so far; -1 before the first."""


Listener = Callable[[dict[str, Any]], None]
"""Is told every event after it is logged."""


class StopTraining(Exception):
    """Raised by a listener on a "step" event: training ends here, with the best checkpoint so far."""


START = Position(stage=0, epoch=0, step=0, elapsed_s=0.0, best=-1.0)


@dataclass(frozen=True)
class Run:
    """Paths in a run's directory."""

    folder: Path
    listeners: tuple[Listener, ...] = ()

    @property
    def dataset(self) -> Path:
        """The dataset, so that the run can be used without the original tables."""
        return self.folder / "dataset"

    @property
    def tokens(self) -> Path:
        """The token cache."""
        return self.folder / "tokens"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from, with the optimizer's state."""
        return self.folder / "checkpoints" / "last"

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation value."""
        return self.folder / "checkpoints" / "best"

    @property
    def table(self) -> Path:
        """Item vectors of the best checkpoint."""
        return self.folder / "table"

    @property
    def metrics(self) -> Path:
        """One JSON object a line: steps, validations."""
        return self.folder / "metrics.jsonl"

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.folder / "recipe.json"

    def require_room_for(self, recipe: Recipe) -> None:
        """Raise ConfigError if the directory holds something else, or training of another recipe.

        A run without a checkpoint has nothing to lose: its recipe may be replaced.
        """
        if self.recipe.is_file():
            stored = self.read_recipe()
            if stored != recipe and self.last.exists():
                ours, theirs = recipe.model_dump(), stored.model_dump()
                differing = ", ".join(key for key in ours if ours[key] != theirs[key])
                raise ConfigError(
                    f"{self.folder} holds a run of another recipe (they differ in: {differing}); "
                    "give another --out, or remove that directory"
                )
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise ConfigError(f"{self.folder} is not empty and holds no run; give another --out")

    def write_recipe(self, recipe: Recipe) -> None:
        """Store the resolved recipe."""
        artifacts.write_text(self.recipe, recipe.model_dump_json(indent=1))

    def read_recipe(self) -> Recipe:
        """Read the resolved recipe; CheckpointError if this is not a run."""
        if not self.recipe.is_file():
            raise CheckpointError(f"{self.folder} is not a run: it has no recipe.json; make one with hllm train")
        try:
            values = json.loads(self.recipe.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{self.recipe} is damaged: {error}") from None
        return Recipe.from_dict(values, where=str(self.recipe))

    def position(self) -> Position:
        """Return where training stands, after checking the last checkpoint's bytes."""
        artifacts.recover(self.last)
        if not self.last.exists():
            return START
        return Position.from_dict(artifacts.verify(self.last, "checkpoint").details["position"], where=str(self.last))

    def log(self, event: dict[str, Any]) -> None:
        """Append one event to the metrics, and tell the listeners."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        except OSError as error:
            raise StorageError(f"{self.metrics} cannot be written: {error.strerror}") from error
        for listener in self.listeners:
            listener(event)

    def events(self) -> list[dict[str, Any]]:
        """Return all logged events, oldest first."""
        if not self.metrics.is_file():
            return []
        events = []
        for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            if line.endswith("\n"):  # a last line without its end was cut off by a kill or a full disk
                events.append(json.loads(line))
        return events

    def forget_after(self, step: int) -> None:
        """Drop events of steps that a resumed run does again."""
        kept = [event for event in self.events() if event["step"] <= step]
        artifacts.write_text(self.metrics, "".join(json.dumps(event) + "\n" for event in kept))
