"""The search file of a tuning: which keys of a recipe may be what, by which metric, at which budget."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, field_validator, model_validator

from hllm import artifacts
from hllm.config import Config
from hllm.errors import ConfigError, nearest
from hllm.evaluation.evaluate import WATCHED_CUTOFFS
from hllm.metrics import DEFINITIONS

Value = StrictBool | StrictInt | StrictFloat | StrictStr
Number = StrictInt | Annotated[float, Field(strict=True, allow_inf_nan=False)]

METRICS = tuple(f"{name}@{k}" for name in DEFINITIONS for k in WATCHED_CUTOFFS)
# With other values of these a trial would be asked another question, or only be luckier.
_FIXED = ("data", "split", "evaluation", "seed")


class Dimension(Config):
    """One key of the recipe, and what it may be: low to high, or one of some choices."""

    key: str
    """Dotted, as for --set: "stages.0.learning_rate"."""
    low: Number | None = None
    """Smallest value. Where low and high are whole numbers, so are the values."""
    high: Number | None = None
    """Largest value."""
    log: bool = False
    """Draw evenly from the logarithm of the range: for rates."""
    choices: tuple[Value, ...] = ()
    """The values, in place of low and high."""

    @field_validator("key")
    @classmethod
    def _may_be_tuned(cls, key: str) -> str:
        if key.split(".")[0] in _FIXED:
            raise ValueError(f"{', '.join(_FIXED)} must be the same for all trials, or their values cannot be compared")
        return key

    @model_validator(mode="after")
    def _range_or_choices(self) -> "Dimension":
        if self.choices:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError(f"{self.key} has choices and a range; give one of them")
            if len(set(self.choices)) < max(2, len(self.choices)):
                raise ValueError(f"{self.key} needs at least two choices, all different")
        elif self.low is None or self.high is None:
            raise ValueError(f"{self.key} needs low and high, or choices")
        elif self.low >= self.high:
            raise ValueError(f"{self.key}: low {self.low} is not below high {self.high}")
        elif self.log and self.low <= 0:
            raise ValueError(f"{self.key}: log = true needs low > 0, found {self.low}")
        return self

    @property
    def first(self) -> Value:
        """Return the value that the recipe is checked with before the search."""
        return self.choices[0] if self.low is None else self.low


class SearchConfig(Config):
    """The same file for two models gives both the same budget."""

    trials: int = Field(default=20, ge=1)
    """Runs to try, those that fail included; --trials changes it."""
    metric: str = "ndcg@10"
    """What is to be as high as possible: the best validation value of a run. Never a test metric."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps after which a trial is stopped. None: trials end where the recipe ends."""
    max_seconds_per_trial: float | None = Field(default=None, gt=0)
    """Seconds of training after which a trial is stopped; results then depend on the machine's speed."""
    space: tuple[Dimension, ...] = Field(min_length=1)
    """What is tried."""

    @field_validator("metric")
    @classmethod
    def _of_validation(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"is not measured in validation{nearest(metric, METRICS)}; known: {', '.join(METRICS)}")
        return metric

    @field_validator("space")
    @classmethod
    def _each_key_once(cls, space: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
        keys = [dimension.key for dimension in space]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"more than one [[space]] table has the key {', '.join(twice)}")
        return space

    @property
    def fingerprint(self) -> str:
        """Return a hash of everything but the number of trials, which may be raised later."""
        return artifacts.fingerprint(self.model_dump(mode="json", exclude={"trials"}))


def read_search(path: Path) -> SearchConfig:
    """Read a search file; ConfigError says what is wrong in it."""
    if not path.is_file():
        raise ConfigError(f"there is no search file {path}; docs/tuning.md shows one")
    return SearchConfig.from_toml(path)
