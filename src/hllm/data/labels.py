"""Read labels of interactions from columns of the caller's table: 1, 0 or unknown."""

import warnings

import numpy as np
import polars as pl
from jaxtyping import Int

from hllm.data.checks import is_missing
from hllm.data.schema import TargetConfig
from hllm.errors import DataError, HllmWarning, first_few

UNKNOWN = -1
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read_labels(
    columns: pl.DataFrame, names: list[str], targets: tuple[TargetConfig, ...]
) -> Int[np.ndarray, "interaction target"]:
    """Return every interaction's label of each target: 1, 0, or UNKNOWN where the cell is empty.

    Column names[n] of `columns` is that of target n. Warns of labels that are all alike. Raises DataError for cells
    that are no numbers where `at_least` needs them, and for `values` that are none of a column's type.
    """
    labels = np.full((len(columns), len(targets)), UNKNOWN, dtype=np.int8)
    for place, (name, target) in enumerate(zip(names, targets, strict=True)):
        cells = columns[name]
        if isinstance(cells.dtype, pl.Categorical | pl.Enum):
            cells = cells.cast(pl.String)
        known = ~is_missing(cells)
        if target.at_least is None:
            positive = _holds_value(cells, target)
        else:
            dated = cells.dtype.is_temporal()  # a day's number since 1970 is no rating
            numbers = (
                pl.Series([None] * len(cells), dtype=pl.Float64) if dated else cells.cast(pl.Float64, strict=False)
            )
            bad = cells.filter(known & numbers.is_null())
            if len(bad):
                raise DataError(
                    f"{len(bad):,} of {len(cells):,} interactions have no number in {target.column!r}, which target "
                    f"{target.name!r} compares with at_least = {target.at_least:g}; first: {first_few(bad)}. Correct "
                    "them, or name what is positive with values"
                )
            known &= ~is_missing(numbers)  # a text "nan" is no number either
            positive = numbers >= target.at_least
        positive = positive.fill_null(False) & known
        labels[:, place] = np.where(known.to_numpy(), positive.to_numpy(), UNKNOWN)
        if known.sum() > 1 and positive.sum() in (0, known.sum()):
            held = cells.filter(known).unique(maintain_order=True)
            warnings.warn(
                f"every label of target {target.name!r} is {int(positive.any())}, so nothing can be learnt from it: "
                f"{_rule(target)}, and {target.column!r} holds {first_few(held)}{', …' if len(held) > 3 else ''}",
                HllmWarning, stacklevel=2,
            )  # fmt: skip
    return labels


def _holds_value(cells: pl.Series, target: TargetConfig) -> pl.Series:
    """Return which cells hold one of the target's values; numbers are compared as numbers, truths as truths."""
    if cells.dtype == pl.Boolean:
        truths = [_TRUTH.get(value.strip().lower()) for value in target.values]
        if None in truths:
            raise _no_value(target, truths.index(None), "true and false")
        return cells.is_in(truths)
    if cells.dtype.is_numeric():
        numbers = [_number(value) for value in target.values]
        if None in numbers:
            raise _no_value(target, numbers.index(None), "numbers")
        if cells.dtype.is_integer():
            whole = [int(number) for number in numbers if number is not None and number == int(number)]
            return cells.cast(pl.Int128).is_in(pl.Series([whole], dtype=pl.List(pl.Int128)))
        return cells.cast(pl.Float64).is_in([float(number) for number in numbers if number is not None])
    return cells.cast(pl.String).is_in(target.values)


def _number(text: str) -> float | int | None:
    """Return the finite number that a text says; None if it says none."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _no_value(target: TargetConfig, place: int, kind: str) -> DataError:
    return DataError(
        f"target {target.name!r} is 1 where {target.column!r} holds {target.values[place]!r}, but that column holds "
        f"{kind}; correct values, or use at_least"
    )


def _rule(target: TargetConfig) -> str:
    if target.at_least is not None:
        return f"it is 1 from at_least = {target.at_least:g} on"
    return f"it is 1 for {', '.join(map(repr, target.values))}"
