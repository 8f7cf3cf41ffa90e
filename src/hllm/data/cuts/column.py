"""Split by a column: the table of interactions says which part each row is in."""

# Proved by tests/data/test_split.py.

from collections.abc import Iterable
from typing import Literal

import numpy as np
from jaxtyping import Int
from pydantic import model_validator

from hllm.config import Config
from hllm.data.cuts.cut import Cut, TargetChoice, with_targets
from hllm.data.dataset import Dataset
from hllm.errors import ConfigError, DataError, first_few


class ColumnSplit(Config):
    """The parts are read from a column of the interactions, data.split_col."""

    kind: Literal["column"] = "column"
    targets: TargetChoice = "all"
    """A user's held-out interactions that are targets: the "last", the "first", "all", or one at "random". A
    user's very first interaction has no history and is never a target."""
    training_values: tuple[str, ...] = ("train", "training")
    """Values of the column that mean training. Interactions with an empty cell are in no part."""
    validation_values: tuple[str, ...] = ("valid", "validation", "val", "dev")
    """Values that mean validation."""
    test_values: tuple[str, ...] = ("test",)
    """Values that mean the test."""
    seed: int = 0
    """Seed of the random targets. A hash of the users' ids decides, not the order of the rows."""

    @model_validator(mode="after")
    def _each_value_stands_once(self) -> "ColumnSplit":
        values = self._values()
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"split: {_quoted(twice)} may stand for one part only, and once, in the lists of values")
        return self

    def cut(self, dataset: Dataset) -> Cut:
        """Read the parts from the column.

        Raises DataError for other values and for a part without a target, ConfigError without the column.
        """
        parts = self._parts_of(dataset)
        lists = self.training_values, self.validation_values, self.test_values
        training, validation, test = (np.isin(dataset.part_names, values)[parts] for values in lists)
        cut = with_targets(dataset, training, validation, test, self.targets, self.seed)
        for part, targets, values in zip(("validation", "test"), (cut.validation, cut.test), lists[1:], strict=True):
            if not len(targets):
                raise DataError(
                    f"the column split leaves no {part} target; no interaction with a history has {_quoted(values)} "
                    f"in data.split_col; see split.{part}_values"
                )
        return cut

    def _values(self) -> list[str]:
        return [*self.training_values, *self.validation_values, *self.test_values]

    def _parts_of(self, dataset: Dataset) -> Int[np.ndarray, " interaction"]:
        if dataset.parts is None:
            raise ConfigError('split.kind = "column" reads a column of the interactions: name it with data.split_col')
        values = self._values()
        strange = [name for name in dataset.part_names if name and name not in values]
        if strange:
            bad = int(np.isin(dataset.parts, [dataset.part_names.index(name) for name in strange]).sum())
            raise DataError(
                f"{bad:,} of {dataset.num_interactions:,} interactions have {first_few(strange)} in data.split_col; "
                f"expected {first_few(values, len(values))} or an empty cell. "
                "Name what stands there with split.training_values, split.validation_values and split.test_values"
            )
        return dataset.parts


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f'"{value}"' for value in values)
