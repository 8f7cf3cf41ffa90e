"""What a run's directory keeps of its evaluations: how often, what the model cost, and where each target stands."""

import json
import platform
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hllm import artifacts
from hllm.data.split import Split
from hllm.errors import CheckpointError, HllmWarning
from hllm.evaluation.evaluate import Part
from hllm.evaluation.facts import RunFacts
from hllm.evaluation.ranks import Contender, read_ranks
from hllm.models.recommender import SequentialRecommender
from hllm.precision import choose_device
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig
from hllm.runs.run import Run


def ranks_file(folder: Path, part: Part) -> Path:
    """Return where a run keeps its ranks of one part."""
    return folder / f"ranks-{part}.parquet"


def log_evaluation(run: Run, part: Part, split: Split) -> None:
    """Note that a part of the split was evaluated; a run that cannot be written to is warned of instead."""
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "part": part, "split": split.fingerprint}
    try:
        with _log(run).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        warnings.warn(f"{_log(run)} cannot be written ({error.strerror}): this evaluation is not counted",
                      HllmWarning, stacklevel=2)  # fmt: skip


def num_test_evaluations(run: Run, split: Split) -> int:
    """Return how often the test part of this split was evaluated for the run."""
    if not _log(run).is_file():
        return 0
    lines = _log(run).read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    logged = [json.loads(line) for line in lines if line.endswith("\n")]  # a kill may have cut the last one off
    return sum(line["part"] == "test" and line["split"] == split.fingerprint for line in logged)


def run_facts(run: Run, recipe: Recipe, model: SequentialRecommender, split: Split) -> RunFacts:
    """Return what is known of a finished run, from its recipe, its checkpoint and its log."""
    best = artifacts.read_manifest(run.best_path, "checkpoint")
    position, events = best.details["position"], run.events()
    trained = {(event["stage"], event["epoch"]) for event in events if event["event"] == "step"}
    return RunFacts(
        checkpoint=best.fingerprint,
        recipe=run.recipe_fingerprint,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        max_history=recipe.model.max_history,
        training=", then ".join(dict.fromkeys(_training(stage) for stage in recipe.stages)),
        seed=recipe.seed,
        epochs=len(trained),
        epochs_to_best=sum(place <= (position["stage"], position["epoch"]) for place in trained),
        training_s=max((event["elapsed_s"] for event in events), default=0.0),
        machine=device_name(),
        test_evaluations=num_test_evaluations(run, split),
    )


def device_name() -> str:
    """Return the device that this process computes on."""
    if choose_device().type == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def stored_ranks(spec: str, part: Part) -> Contender:
    """Return the ranks kept in the run at `spec`: RUN, or RUN:NAME for what was evaluated beside it.

    Raises CheckpointError if there are none, or the run has been trained further since.
    """
    folder, baseline = Path(spec), None
    if not folder.is_dir() and ":" in spec:
        folder, baseline = Path(spec.rpartition(":")[0]), spec.rpartition(":")[2]
    file, label = ranks_file(folder, part), folder.resolve().name
    again = f"hllm evaluate --run {folder}" + (f" --part {part}" if part != "test" else "")
    if not file.is_file():
        raise CheckpointError(f"{folder} has no stored ranks of the {part} part; make them with {again}")
    found = read_ranks(file, baseline, name=label if baseline is None else f"{label}:{baseline}")
    best = Run(folder).best_path
    if baseline is None and found.facts.checkpoint is not None and best.exists():
        if artifacts.read_manifest(best, "checkpoint").fingerprint != found.facts.checkpoint:
            raise CheckpointError(f"the ranks in {file} are of an earlier checkpoint of the run; run {again}")
    return found


def _log(run: Run) -> Path:
    return run.folder / "evaluations.jsonl"


def _training(stage: StageConfig) -> str:
    drawn = f" ({stage.negatives.num_sampled})" if stage.negatives.kind in ("sampled", "mixed", "pooled") else ""
    return f"{stage.loss.kind} against {stage.negatives.kind} negatives{drawn}"


def data_policy(recipe: Recipe) -> dict[str, Any]:
    """Return what the recipe does with the tables' rows: its data section without the names of files and columns."""
    values = recipe.data.model_dump(mode="json")
    return {
        name: value
        for name, value in values.items()
        if name not in ("source", "interactions", "items", "time_unit", "targets")
        and not name.endswith(("_col", "_cols"))
    }
