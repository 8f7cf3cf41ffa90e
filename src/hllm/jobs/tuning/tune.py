"""Tuning: full runs of one recipe with other values, chosen by Optuna, compared on the validation part."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hllm import artifacts
from hllm.config import Config
from hllm.data.build import build_dataset
from hllm.errors import CheckpointError, ConfigError, TrainingError
from hllm.extras import require
from hllm.jobs.tuning.search import SearchConfig, Value, read_search
from hllm.jobs.tuning.trials import Trial, as_overrides, ask, ranked, read_trials, write_trials
from hllm.locks import locked_inside
from hllm.recipe.recipe import Recipe
from hllm.runs.run import Run, StopTraining
from hllm.sources.data_sets import locate
from hllm.sources.language_models import SOURCES, resolve_backbone
from hllm.training.fit import fit


class TuningResult(Config):
    """Stored as result.json: under equal search, metric and budget, two models can be compared."""

    metric: str
    trials: int
    """The budget; fewer are complete or failed if the tuning was stopped."""
    max_steps: int | None
    max_seconds_per_trial: float | None
    complete: int
    failed: int
    seconds: float
    """Of all trials."""
    search: str
    """Fingerprint of the search file, without the number of trials."""
    recipe: str
    """Fingerprint of the recipe, before the trials' values."""
    data: str
    """Fingerprint of the dataset."""
    best: Trial | None
    best_run: str | None
    """The best trial's directory, kept whole."""


@dataclass(frozen=True)
class _Tuning:
    """The values that all trials share."""

    out: Path
    search: SearchConfig
    recipe: Path
    overrides: Sequence[str]
    tables: tuple[Path, Path | None]

    @property
    def base(self) -> Path:
        return self.recipe.parent.resolve()

    def recipe_with(self, chosen: dict[str, Value]) -> Recipe:
        return Recipe.from_toml(
            self.recipe, [*self.overrides, f"select_by={self.search.metric}", *as_overrides(chosen)]
        )

    def run(self, number: int) -> Run:
        return Run(self.out / "trials" / f"{number:04}")


def tune(
    recipe: Path, search: Path, out: Path, *, overrides: Sequence[str] = (), trials: int | None = None,
    seconds: float | None = None, say: Callable[[str], None],
) -> tuple[TuningResult, list[Trial]]:  # fmt: skip
    """Run trials until there are as many as the budget says; return the result and all trials, in order.

    Everything is kept in `out`; after a stop the same call goes on, with the trials that it would have made
    without the stop. `trials` replaces the search file's number; after `seconds` no further trial is begun.
    `say` is given a line at the beginning and the end of each trial. Raises ConfigError if the recipe does not
    take the keys of the search, or `out` holds something else, TrainingError if every trial failed, and BusyError if
    another process tunes there.
    """
    require("optuna", extra="tune", purpose="hllm tune")
    with locked_inside(out):
        return _tune(recipe, search, out, overrides, trials, seconds, say)


def _tune(
    recipe: Path, search: Path, out: Path, overrides: Sequence[str], trials: int | None, seconds: float | None,
    say: Callable[[str], None],
) -> tuple[TuningResult, list[Trial]]:  # fmt: skip
    artifacts.sweep(out)
    config = read_search(search)
    budget = config.trials if trials is None else trials
    template = Recipe.from_toml(recipe, overrides)
    tuning = _Tuning(out, config, recipe, overrides, locate(template.data, recipe.parent.resolve()))
    _check_first_values(tuning, search)
    inputs = {
        "search": config.fingerprint,
        "recipe": template.fingerprint,
        "data": build_dataset(*tuning.tables, template.data).fingerprint,
    }
    _claim(out, inputs)
    done = read_trials(out)
    if budget < len(done):
        raise ConfigError(f"{out} holds {len(done)} trials already, more than the {budget} asked for")
    start = time.monotonic()
    while len(done) < budget and (seconds is None or time.monotonic() - start < seconds):
        done.append(_try(tuning, len(done), budget, ask(config, done, template.seed), say))
        write_trials(out, done)
        _conclude(tuning, budget, inputs, done)
        say(_outcome(config.metric, done))
    result = _conclude(tuning, budget, inputs, done)
    if done and result.best is None:
        raise TrainingError(f"all {len(done)} trials failed, the first with {done[0].error}; remove {out} to try again")
    return result, done


def _try(tuning: _Tuning, number: int, budget: int, chosen: dict[str, Value], say: Callable[[str], None]) -> Trial:
    """Run one trial; what was done of it before a stop is not done again."""
    run = tuning.run(number)
    say(f"trial {number} ({number + 1} of {budget}): {', '.join(as_overrides(chosen))}")
    value, failure = None, None
    try:
        recipe = tuning.recipe_with(chosen)
        fit(*tuning.tables, recipe, run.folder, base=tuning.base, listeners=(_watch(tuning.search),))
        value = max(event[tuning.search.metric] for event in run.events() if event["event"] == "validation")
    except (ConfigError, TrainingError, torch.OutOfMemoryError) as error:
        failure = f"{type(error).__name__}: {error}"
    return Trial(
        number=number,
        overrides=chosen,
        value=value,
        seconds=max((event.get("elapsed_s", 0.0) for event in run.events()), default=0.0),
        state="complete" if failure is None else "failed",
        error=failure,
    )


def _watch(search: SearchConfig) -> Callable[[dict[str, Any]], None]:
    """Return a listener that stops a run whose budget is spent, at the first step beyond it."""

    def watch(event: dict[str, Any]) -> None:
        if event["event"] != "step":
            return
        if search.max_steps is not None and event["step"] > search.max_steps:
            raise StopTraining(f"max_steps = {search.max_steps} of the search file is too few")
        if search.max_seconds_per_trial is not None and event["elapsed_s"] > search.max_seconds_per_trial:
            raise StopTraining(f"max_seconds_per_trial = {search.max_seconds_per_trial} of the search file is too few")

    return watch


def _conclude(tuning: _Tuning, budget: int, inputs: dict[str, str], done: list[Trial]) -> TuningResult:
    """Write the result and the best recipe; of all runs but the best only recipe and metrics are kept."""
    best = next(iter(ranked(done)), None)
    for trial in done:
        if best is None or trial.number != best.number:
            run = tuning.run(trial.number)
            for path in (run.best_path.parent, run.table_path, run.tokens_path, run.dataset_path):
                shutil.rmtree(path, ignore_errors=True)
    search = tuning.search
    result = TuningResult(
        metric=search.metric,
        trials=budget,
        max_steps=search.max_steps,
        max_seconds_per_trial=search.max_seconds_per_trial,
        complete=sum(trial.value is not None for trial in done),
        failed=sum(trial.value is None for trial in done),
        seconds=sum(trial.seconds for trial in done),
        **inputs,
        best=best,
        best_run=None if best is None else str(tuning.run(best.number).folder),
    )
    artifacts.write_text(tuning.out / "result.json", result.model_dump_json(indent=1))
    if best is not None:
        values = _with_whole_paths(tuning.recipe_with(best.overrides), tuning.base)
        artifacts.write_text(tuning.out / "best.json", json.dumps(values, indent=1, ensure_ascii=False))
    return result


def _outcome(metric: str, done: list[Trial]) -> str:
    trial, best = done[-1], next(iter(ranked(done)), None)
    if trial.value is None or best is None:
        return f"trial {trial.number} failed: {trial.error}"
    standing = "the best so far" if best is trial else f"best {best.value:.4f} in trial {best.number}"
    return f"trial {trial.number}: {metric} {trial.value:.4f} in {trial.seconds:,.0f} s; {standing}"


def _check_first_values(tuning: _Tuning, search: Path) -> None:
    """Raise ConfigError for what would make all trials fail: a key that the recipe lacks, a model not fetched."""
    try:
        recipe = tuning.recipe_with({dimension.key: dimension.first for dimension in tuning.search.space})
    except ConfigError as error:
        raise ConfigError(f"{search} does not fit the recipe, with the first value of each key: {error}") from None
    for tier in (recipe.model.item, recipe.model.user):
        if (model := tier.language_model) is not None:
            resolve_backbone(model.backbone, tuning.base)


def _with_whole_paths(recipe: Recipe, base: Path) -> dict[str, Any]:
    """Return the recipe's values with paths that do not depend on where its file lies."""
    values: dict[str, Any] = recipe.model_dump(mode="json")
    data, tiers = values["data"], (values["model"]["item"], values["model"]["user"])
    for table, key in ((data, "interactions"), (data, "items"), *((tier, "backbone") for tier in tiers)):
        if (name := table.get(key)) and name not in SOURCES:
            table[key] = str(base / name)
    return values


def _claim(out: Path, inputs: dict[str, str]) -> None:
    """Take the directory for this search, or raise ConfigError if it holds something else."""
    file = out / "tune.json"
    if file.is_file():
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            differing = ", ".join(name for name in inputs if record[name] != inputs[name])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file} is damaged: {error!r}; restore it, or tune anew") from None
        if differing:
            raise ConfigError(
                f"{out} holds a tuning of another kind (they differ in: {differing}); give another --out, or remove "
                "that directory"
            )
    elif not artifacts.is_vacant(out):
        raise ConfigError(f"{out} is not empty and holds no tuning; give another --out")
    else:
        artifacts.write_text(file, json.dumps(inputs, indent=1))
