"""What earlier verbs have left in a run's directory: results and ablations."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hllm.errors import CheckpointError, ConfigError, HllmWarning

if TYPE_CHECKING:
    from hllm.evaluation.ablations import Ablations
    from hllm.evaluation.evaluate import Result

RESULTS = "evaluation.json"
ABLATIONS = "ablations.json"


def read_results(run: Path) -> "list[Result]":
    """Read what `hllm evaluate` has stored; ConfigError if it has not run."""
    from hllm.evaluation.evaluate import Result

    if not (run / RESULTS).is_file():
        raise ConfigError(f"{run} has no {RESULTS}; make it with hllm evaluate --run {run}")
    return [Result.from_dict(values, where=str(run / RESULTS)) for values in _json(run / RESULTS)]


def read_ablations(file: Path) -> "Ablations | None":
    """Read what `hllm ablate` has stored; None if it has not run."""
    from hllm.evaluation.ablations import Ablations

    return Ablations.from_dict(_json(file), where=str(file)) if file.is_file() else None


def ablations_of(run: Path, result: "Result") -> "Ablations | None":
    """Read the run's ablations; None, with a warning, if they are not of the model that has this result."""
    found = read_ablations(run / ABLATIONS)
    if found is not None and not found.are_of(result.protocol, result.all_items):
        warnings.warn(
            f"{run / ABLATIONS} is of another model or protocol than {result.name} is now, and is left out; make it "
            f"again with hllm ablate --run {run}",
            HllmWarning,
            stacklevel=2,
        )
        return None
    return found


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}; make it again") from None
