"""Trials hold all that a tuning has tried, and choose the next one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hllm import records
from hllm.config import Config
from hllm.errors import CheckpointError
from hllm.jobs.tuning.search import Dimension, SearchConfig, Value
from hllm.random import stream


class Trial(Config):
    """One run of a tuning; a line of trials.jsonl."""

    number: int
    overrides: dict[str, Value]
    """Dotted keys of the recipe, and the values tried."""
    value: float | None
    """The metric's best validation value; None if the trial failed."""
    seconds: float
    """Spent in training and validation."""
    state: Literal["complete", "failed"]
    error: str | None


def ask(search: SearchConfig, done: Sequence[Trial], seed: int) -> dict[str, Value]:
    """Return what the next trial tries: a function of the search, the seed and the trials done, and of nothing else.

    The study is made anew each time from the trials done, and the sampler seeded by the trial's number, so that a
    stopped search goes on as if it had not been stopped.

    Source: tree-structured Parzen estimators, Bergstra et al., "Algorithms for Hyper-Parameter Optimization",
    NeurIPS 2011; as in Optuna's TPESampler, whose first ten trials are random.
    """
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

    def distribution(of: Dimension) -> BaseDistribution:
        if of.low is None or of.high is None:
            return CategoricalDistribution(of.choices)
        if isinstance(of.low, int) and isinstance(of.high, int):
            return IntDistribution(of.low, of.high, log=of.log)
        return FloatDistribution(of.low, of.high, log=of.log)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {d.key: distribution(d) for d in search.space}
    sampler = optuna.samplers.TPESampler(seed=int(stream(seed, "tune", len(done)).integers(2**32)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in done:
        state = optuna.trial.TrialState.FAIL if trial.value is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(params=trial.overrides, distributions=space, value=trial.value, state=state)
        )
    chosen: dict[str, Value] = study.ask(space).params
    return chosen


def as_overrides(chosen: dict[str, Value]) -> list[str]:
    """Return the values as `--set` takes them."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in chosen.items()]


def read_trials(out: Path) -> list[Trial]:
    """Return the trials that ended, in order; CheckpointError if their file, which is written whole, is damaged."""
    file = out / "trials.jsonl"
    if not file.is_file():
        return []
    kept, damaged = records.read(file)
    if damaged or not file.read_bytes().endswith(b"\n"):
        raise CheckpointError(f"{file} is damaged: {len(kept):,} trials are whole; restore it, or tune anew")
    return [Trial.from_dict(values, where=str(file)) for values in kept]


def write_trials(out: Path, trials: Sequence[Trial]) -> None:
    """Keep the trials that ended."""
    records.rewrite(out / "trials.jsonl", [trial.model_dump(mode="json") for trial in trials])


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the complete trials, the best first, the earlier first among equals."""
    return sorted((t for t in trials if t.value is not None), key=lambda t: -(t.value or 0.0))
