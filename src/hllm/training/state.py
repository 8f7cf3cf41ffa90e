"""Checkpoints hold what training goes on from: position, weights, and the state of the stage in its middle."""

# Proved by tests/training/test_resume.py.

from dataclasses import dataclass
from pathlib import Path
from typing import final

from safetensors.torch import load_file, save_file
from torch import Tensor

from hllm.models.checkpoint import save_checkpoint
from hllm.models.recommender import SequentialRecommender
from hllm.recipe.recipe import Recipe
from hllm.runs.position import Position
from hllm.runs.run import Run
from hllm.training.parallel import Parallel
from hllm.training.training_data import TrainingData


@dataclass(frozen=True)
class StageState:
    """Tensors by name that a stage needs, besides weights and position, to go on as if it had not stopped."""

    optimizer: dict[str, Tensor]
    average: dict[str, Tensor] | None = None
    """The running mean of the weights, in a stage that has one."""
    memory: dict[str, Tensor] | None = None
    """The item vectors that a stage reuses, as "memory"."""

    def save(self, folder: Path) -> None:
        """Write a safetensors file for each part."""
        for name, file in _files(folder).items():
            if (tensors := getattr(self, name)) is not None:
                save_file(tensors, file)

    @classmethod
    def load(cls, folder: Path) -> "StageState":
        """Read what `save` wrote."""
        return cls(**{name: load_file(file) for name, file in _files(folder).items() if file.is_file()})


def _files(folder: Path) -> dict[str, Path]:
    names = {"optimizer": "optimizer", "average": "average", "memory": "item-memory"}
    return {part: folder / f"{name}.safetensors" for part, name in names.items()}


@final
class Checkpoints:
    """The checkpoints of a run that trains `model`."""

    def __init__(
        self, model: SequentialRecommender, recipe: Recipe, data: TrainingData, run: Run, parallel: Parallel
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.data = data
        self.run = run
        self.parallel = parallel
        self._recipe_fingerprint = run.recipe_fingerprint
        self._saved_s = 0.0

    def resume(self) -> tuple[Position, Path | None]:
        """Load the newest good weights; return where training stands, and their checkpoint unless nothing is done yet.

        Newer checkpoints, which are damaged, are set aside. What was logged after it is forgotten.
        """
        group = self.parallel.group
        position, checkpoint = self.run.resume_point()
        group.wait()  # all have looked
        if group.first:
            self.run.set_aside_after(position)
            self.run.forget_after(position)
        if checkpoint is not None:
            self.parallel.load_weights(self.model, checkpoint)
        lost = position.best >= 0 and not self.run.best_is_good()
        self._saved_s = position.elapsed_s
        return position.moved(best=-1.0) if lost else position, checkpoint

    def due(self, position: Position) -> bool:
        """Return whether a checkpoint is to be written after this step; all processes agree."""
        every = self.recipe.checkpoints
        due = every.every_steps is not None and position.step % every.every_steps == 0
        return due or self.parallel.group.any(position.elapsed_s - self._saved_s >= every.every_s)

    def save(self, position: Position, state: StageState | None) -> None:
        """Write a checkpoint to go on from, with the state of the stage if it is in its middle."""
        self._write(self.run.checkpoint(position.step), position, {}, state)
        if self.parallel.group.first:
            self.run.forget_checkpoints(self.recipe.checkpoints.keep)
        self._saved_s = position.elapsed_s

    def save_best(self, position: Position, metrics: dict[str, float]) -> None:
        """Write the checkpoint that is the best so far, with its metrics."""
        self._write(self.run.best_path, position, metrics, None)

    def load_best(self) -> None:
        """Fill the model with the weights of the best checkpoint."""
        self.parallel.load_weights(self.model, self.run.best_path)

    def _write(self, path: Path, position: Position, metrics: dict[str, float], state: StageState | None) -> None:
        model = self.parallel.full_model(self.model)
        if state is not None:
            parts = {name: part and self.parallel.full_state(part) for name, part in vars(state).items()}
            state = StageState(**parts)
        start = self.recipe.start
        if self.parallel.group.first:
            save_checkpoint(
                path,
                model,
                self.recipe.model,
                num_items=self.data.dataset.num_items,
                num_actions=len(self.data.dataset.action_names),
                tokenizer=self.data.tokenizer,
                details={
                    "position": position.model_dump(),
                    "validation": metrics,
                    "dataset": self.data.dataset.fingerprint,
                    "recipe": self._recipe_fingerprint,
                    "backbones": self.data.backbones,
                    **({"imported": start.imported.model_dump()} if start is not None and start.imported else {}),
                },
                extra_files=state.save if state is not None else None,
            )
        self.parallel.group.wait()
