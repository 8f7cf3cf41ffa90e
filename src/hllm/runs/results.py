"""A run's directory keeps its results: metrics, ablations, the rank of each target, and a log of the evaluations."""

# Proved by tests/cli/test_compare.py.

import json
import platform
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hllm import artifacts, records
from hllm.config import Config
from hllm.data.split import Split, options_of
from hllm.errors import CheckpointError, ConfigError, HllmWarning
from hllm.evaluation.ablations import Ablations
from hllm.evaluation.evaluate import Evaluated, Part, Result
from hllm.evaluation.facts import Provenance, RunFacts
from hllm.evaluation.ranks import Contender, read_ranks, write_ranks
from hllm.models.recommender import SequentialRecommender
from hllm.precision import choose_device
from hllm.recipe.recipe import Recipe
from hllm.runs.run import ResultKind, Run


def write_evaluation(run: Run, part: Part, evaluated: Sequence[Evaluated]) -> str:
    """Keep the results of an evaluation and the rank of each target, both or neither; return the results as JSON."""
    content = json_of([each.result for each in evaluated])
    both = run.result_path("evaluation", part), run.ranks_path(part)
    with artifacts.replacing(both[0]) as results, artifacts.replacing(both[1]) as ranks:
        results.write_text(content, encoding="utf-8")
        write_ranks(ranks, run.name, evaluated)
    return content


def write_result(run: Run, kind: ResultKind, part: Part, results: Config | Sequence[Config]) -> str:
    """Keep the results of one kind in the run's directory; return them as JSON."""
    content = json_of(results)
    artifacts.write_text(run.result_path(kind, part), content)
    return content


def json_of(results: Config | Sequence[Config]) -> str:
    """Return results as they are kept and printed: each with the hash of its values."""
    if isinstance(results, Config):
        return json.dumps(records.sealed(results.model_dump(mode="json")), indent=1, ensure_ascii=False)
    return json.dumps([records.sealed(result.model_dump(mode="json")) for result in results], indent=1)


def read_evaluation(run: Run, part: Part = "test") -> list[Result]:
    """Read what `hllm evaluate` has kept; ConfigError if it has not run."""
    path = run.result_path("evaluation", part)
    if not path.is_file():
        raise ConfigError(f"{run.folder} has no {path.name}; make it with hllm evaluate --run {run.folder}")
    again = _again("evaluate", run, part)
    return [Result.from_dict(values, where=str(path)) for values in records.read_sealed(path, again=again)]


def read_ablations(run: Run, part: Part = "test") -> Ablations | None:
    """Read what `hllm ablate` has kept; None if it has not run."""
    path = run.result_path("ablations", part)
    if not path.is_file():
        return None
    values = records.read_one(path, again=f"{_again('ablate', run, part)}, after removing it")
    return Ablations.from_dict(values, where=str(path))


def ablations_of(run: Run, result: Result) -> Ablations | None:
    """Read the run's ablations; None, with a warning, if they are not of the model that has this result."""
    reason = f"; make it again with {_again('ablate', run, 'test')}"
    try:
        ablations = read_ablations(run)
        if ablations is None or ablations.are_of(result.protocol, result.all_items):
            return ablations
    except CheckpointError as error:
        reason = f": {error}"
    warnings.warn(
        f"{run.result_path('ablations', 'test')} is of another model or protocol than {result.name} is now, and is "
        f"left out{reason}",
        HllmWarning,
        stacklevel=2,
    )
    return None


def _again(verb: str, run: Run, part: Part) -> str:
    return f"hllm {verb} --run {run.folder}" + (f" --part {part}" if part != "test" else "")


def log_evaluation(run: Run, part: Part, split: Split) -> None:
    """Note that a part of the split was evaluated; a run that cannot be written to is warned of instead."""
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "part": part, "split": split.fingerprint}
    try:
        records.mend(run.evaluations_path)
        records.append(run.evaluations_path, line)
    except OSError as error:
        warnings.warn(f"{error}: this evaluation is not counted", HllmWarning, stacklevel=2)


def num_test_evaluations(run: Run, split: Split) -> int:
    """Return how often the test part of this split was evaluated for the run."""
    logged = records.read_good(run.evaluations_path)
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
        model=f"item tier {recipe.model.item.kind}, user tier {recipe.model.user.kind}",
        start=recipe.start.sentence if recipe.start is not None else None,
        training=", then ".join(dict.fromkeys(stage.described for stage in recipe.stages)),
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
    run = Run(folder)
    file = run.ranks_path(part)
    again = _again("evaluate", run, part)
    if not file.is_file():
        raise CheckpointError(f"{folder} has no stored ranks of the {part} part; make them with {again}")
    contender = read_ranks(file, baseline, name=run.name if baseline is None else f"{run.name}:{baseline}")
    of_this_run = baseline is None or baseline.startswith(f"{run.name}@")
    if of_this_run and contender.facts.checkpoint is not None and run.has_best:
        if artifacts.read_manifest(run.best_path, "checkpoint").fingerprint != contender.facts.checkpoint:
            raise CheckpointError(f"the ranks in {file} are of an earlier checkpoint of the run; run {again}")
    return contender


def provenance_of(recipe: Recipe, facts: RunFacts | None = None) -> Provenance:
    """Return the recipe's rules for data and split, with the facts of what is evaluated by them.

    Without facts, as for a baseline, only the machine is known.
    """
    return Provenance(_data_policy(recipe), options_of(recipe.split), facts or RunFacts(machine=device_name()))


def _data_policy(recipe: Recipe) -> dict[str, Any]:
    """Return what the recipe does with the tables' rows: its data section without the names of files and columns."""
    values = recipe.data.model_dump(mode="json")
    return {
        name: value
        for name, value in values.items()
        if name not in ("source", "interactions", "items", "time_unit", "targets", "quarantine")
        and not name.endswith(("_col", "_cols"))
    }
