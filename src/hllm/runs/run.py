"""A run's directory holds its recipe, data, checkpoints, vectors, metrics and results."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hllm import artifacts, records
from hllm.distributed import Group
from hllm.errors import BusyError, CheckpointError, ConfigError, HllmError, HllmWarning
from hllm.evaluation.evaluate import Part
from hllm.locks import locked_inside
from hllm.models.checkpoint import weights_of
from hllm.models.compact import Weights
from hllm.recipe.recipe import Recipe
from hllm.runs.position import Position, read_position

ResultKind = Literal["evaluation", "ranking", "cold-start", "ablations"]
"""What is kept of the verbs evaluate, evaluate-ranking, cold-start and ablate."""

_TIERS = ("item", "user")
Listener = Callable[[dict[str, Any]], None]
"""Is told every event after it is logged."""


class StopTraining(Exception):
    """A listener raises it on a "step" event: training then ends, with the best checkpoint so far."""


@dataclass(frozen=True)
class Run:
    """A run's directory, with the path of everything in it."""

    folder: Path
    listeners: tuple[Listener, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of the run in tables, which is its directory's."""
        return self.folder.resolve().name

    @property
    def dataset_path(self) -> Path:
        """Return where the dataset is, with which the run can be used without the original tables."""
        return self.folder / "dataset"

    @property
    def tokens_path(self) -> Path:
        """Return where the token cache is."""
        return self.folder / "tokens"

    def checkpoint(self, step: int) -> Path:
        """Return where the checkpoint after `step` steps is: to resume from, with the optimizer's state."""
        return self.folder / "checkpoints" / f"step-{step:08d}"

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints to resume from, oldest first, good or damaged."""
        return sorted((self.folder / "checkpoints").glob("step-*"))

    @contextmanager
    def claimed(self, group: Group) -> Iterator[None]:
        """Hold the lock of the run, in the first process for all, and remove what killed writers left in it.

        Raises BusyError, in all processes, if others write to the run.
        """
        with ExitStack() as stack:
            refusal: HllmError | None = None
            if group.first:
                try:
                    stack.enter_context(locked_inside(self.folder))
                    for folder in (self.folder, self.folder / "checkpoints"):
                        artifacts.sweep(folder)
                except HllmError as error:
                    refusal = error
            if group.any(refusal is not None):
                raise refusal or BusyError(f"{self.folder} was not claimed; the first process says why")
            yield

    def part_locked(self, path: Path) -> AbstractContextManager[None]:
        """Hold the run's lock, which all who write single parts share, if `path` is a part of the run."""
        is_part = self.folder.resolve() in path.resolve().parents
        return locked_inside(self.folder, shared=True) if is_part else nullcontext()

    def set_aside_after(self, position: Position) -> None:
        """Rename checkpoints newer than the one that training goes on from: they are damaged."""
        for path in self.checkpoints():
            if path > self.checkpoint(position.step):
                aside = path.with_name(f"damaged-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)

    def forget_checkpoints(self, keep: int) -> None:
        """Remove all but the last `keep` checkpoints; the best one is not among them."""
        for path in self.checkpoints()[:-keep]:
            shutil.rmtree(path)

    @property
    def best_path(self) -> Path:
        """Return where the checkpoint with the best validation value is."""
        return self.folder / "checkpoints" / "best"

    @property
    def has_best(self) -> bool:
        """Return whether there is a best checkpoint yet."""
        return artifacts.standing(self.best_path).exists()

    @property
    def table_path(self) -> Path:
        """Return where the item vectors of the best checkpoint are."""
        return self.folder / "table"

    @property
    def user_table_path(self) -> Path:
        """Return where the vectors of all users are, once somebody has asked for an audience."""
        return self.folder / "user-table"

    @property
    def index_path(self) -> Path:
        """Return where the index over the item vectors is, once `hllm index` has made it."""
        return self.folder / "index"

    @property
    def metrics_path(self) -> Path:
        """Return where steps and validations are logged, one JSON object a line."""
        return self.folder / "metrics.jsonl"

    @property
    def recipe_path(self) -> Path:
        """Return where the resolved recipe is."""
        return self.folder / "recipe.json"

    @property
    def drift_path(self) -> Path:
        """Return where `hllm fine-tune` keeps its report."""
        return self.folder / "drift.json"

    @property
    def report_path(self) -> Path:
        """Return where `hllm report` writes its page, unless told otherwise."""
        return self.folder / "report.html"

    @property
    def card_path(self) -> Path:
        """Return where `hllm card` writes the model card: the name is the one that model hubs show."""
        return self.folder / "README.md"

    @property
    def evaluations_path(self) -> Path:
        """Return where every evaluation is logged, one JSON object a line."""
        return self.folder / "evaluations.jsonl"

    def result_path(self, kind: ResultKind, part: Part) -> Path:
        """Return where the results of one kind are kept; those of the validation part have a suffix."""
        return self.folder / (f"{kind}.json" if part == "test" else f"{kind}-{part}.json")

    def ranks_path(self, part: Part) -> Path:
        """Return where the rank of each target of `part` is kept."""
        return self.folder / f"ranks-{part}.parquet"

    def require_room_for(self, recipe: Recipe) -> None:
        """Raise ConfigError if the directory holds something else, an export, or training of another recipe.

        A run without a checkpoint has nothing to lose: its recipe may be replaced. Prose may differ, and so may the
        places of tables and language models; whether their content is the same is checked when they are read.
        """
        self._require_no_way_out()
        if (weights := self._weights_of_best()) != "fp32":
            raise ConfigError(
                f"{self.folder} is an export with its weights in {weights}, which cannot be trained further: train in "
                "the run that it was exported from, or give another --out"
            )
        if self.recipe_path.is_file():
            ours, theirs = (_without_backbones(each.settings) for each in (recipe, self.read_recipe()))
            if ours != theirs and self.checkpoints():
                differing = ", ".join(key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
                raise ConfigError(
                    f"{self.folder} holds a run of another recipe (they differ in: {differing}); "
                    "give another --out, or remove that directory"
                )
        elif not artifacts.is_vacant(self.folder):
            raise ConfigError(f"{self.folder} is not empty and holds no run; give another --out")

    def _require_no_way_out(self) -> None:
        """Raise CheckpointError for a symbolic link that leads out of the run: what is there would be written to."""
        inside = self.folder.resolve()
        for parent, folders, files in os.walk(self.folder):
            for name in (*folders, *files):
                path = Path(parent, name)
                if path.is_symlink() and not path.resolve().is_relative_to(inside):
                    raise CheckpointError(
                        f"{path} is a symbolic link that leads out of the run; hllm does not follow it. Put what it "
                        "leads to in its place; the run itself may be a link"
                    )

    def _weights_of_best(self) -> Weights:
        """Return what the best checkpoint's weights are kept in: "fp32" for none, and for a damaged one."""
        try:
            return weights_of(artifacts.read_manifest(self.best_path, "checkpoint")) if self.has_best else "fp32"
        except CheckpointError:
            return "fp32"

    def write_recipe(self, recipe: Recipe) -> None:
        """Store the resolved recipe."""
        artifacts.write_text(self.recipe_path, recipe.model_dump_json(indent=1))

    def read_recipe(self) -> Recipe:
        """Read the resolved recipe; CheckpointError if this is not a run, or if a link in it leads out of it."""
        self._require_no_way_out()
        return Recipe.from_dict(self._stored_recipe(), where=str(self.recipe_path))

    @property
    def recipe_fingerprint(self) -> str:
        """Return the fingerprint of the stored recipe's own settings. Settings that hllm got later do not change it."""
        return artifacts.fingerprint(_common(self.read_recipe().settings, self._stored_recipe()))

    def _stored_recipe(self) -> dict[str, Any]:
        if not self.recipe_path.is_file():
            raise CheckpointError(f"{self.folder} is not a run: it has no recipe.json; make one with hllm train")
        try:
            values: dict[str, Any] = json.loads(self.recipe_path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.recipe_path} is damaged: {error}") from None
        return values

    def resume_point(self) -> tuple[Position, Path | None]:
        """Return where training stands and the newest checkpoint whose bytes are good; None before the first.

        A damaged one is warned of, and the one before it is taken. Raises CheckpointError if there
        are checkpoints and none is good.
        """
        checkpoints = self.checkpoints()
        for path in reversed(checkpoints):
            try:
                return read_position(path), path
            except CheckpointError as error:
                warnings.warn(f"{error}. It is passed over; training resumes from before it", HllmWarning, stacklevel=2)
        if checkpoints:
            raise CheckpointError(
                f"none of the {len(checkpoints)} checkpoints in {self.folder} is good: restore one from a copy, or "
                "remove that directory to train again"
            )
        return Position(), None

    def position(self) -> Position:
        """Return how far training had come. An export has no checkpoints to resume from: its best one counts."""
        return self.resume_point()[0] if self.checkpoints() or not self.has_best else read_position(self.best_path)

    def best_is_good(self) -> bool:
        """Tell whether the best checkpoint is there; warn of a damaged one."""
        if not self.best_path.exists():
            return False
        try:
            artifacts.verify(self.best_path, "checkpoint")
        except CheckpointError as error:
            warnings.warn(f"{error}. The best of what is still to come takes its place", HllmWarning, stacklevel=2)
            return False
        return True

    def log(self, event: dict[str, Any]) -> None:
        """Append one event to the metrics, and tell the listeners."""
        records.append(self.metrics_path, event, of=self._owner)
        for listener in self.listeners:
            listener(event)

    def events(self) -> list[dict[str, Any]]:
        """Return all logged events, oldest first; warn of lines that are damaged, or of a run of another recipe."""
        return records.read_good(self.metrics_path, of=self._owner)

    @cached_property
    def _owner(self) -> str:
        """Return what the lines of the log belong to."""
        return self.recipe_fingerprint if self.recipe_path.is_file() else ""

    def forget_after(self, position: Position) -> None:
        """Drop events of steps, and of a validation, that a resumed run does again."""

        def is_done(event: dict[str, Any]) -> bool:
            begun = position.epoch == position.step_in_epoch == 0  # so a validation at this step was the last stage's
            waits = event["event"] == "validation" and (
                position.step_in_epoch > 0 or (begun and event["stage"] >= position.stage)
            )
            return bool(event["step"] < position.step or (event["step"] == position.step and not waits))

        logged = records.mend(self.metrics_path, of=self._owner) if position.step else []
        records.rewrite(self.metrics_path, [event for event in logged if is_done(event)], of=self._owner)


def _without_backbones(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without the names of language models, which may lie elsewhere now."""
    tiers = {
        name: {key: value for key, value in settings["model"][name].items() if key != "backbone"} for name in _TIERS
    }
    return {**settings, "model": {**settings["model"], **tiers}}


def _common(values: Any, stored: Any) -> Any:
    """Return `values` without the keys that `stored` lacks, at any depth."""
    if isinstance(values, dict) and isinstance(stored, dict):
        return {key: _common(value, stored[key]) for key, value in values.items() if key in stored}
    if isinstance(values, list) and isinstance(stored, list):
        return [_common(value, other) for value, other in zip(values, stored, strict=True)]
    return values
