"""Read labels of interactions from columns of the caller's table: 1, 0 or unknown."""

import numpy as np
import polars as pl
from jaxtyping import Int

from hllm.data.checks import is_missing
from hllm.data.schema import TargetConfig
from hllm.errors import DataError, first_few

UNKNOWN = -1


def read_labels(
    columns: pl.DataFrame, names: list[str], targets: tuple[TargetConfig, ...]
) -> Int[np.ndarray, "interaction target"]:
    """Return every interaction's label of each target: 1, 0, or UNKNOWN where the cell is empty.

    Column names[n] of `columns` is that of target n. Raises DataError for cells that are no numbers where `at_least`
    needs them.
    """
    labels = np.full((len(columns), len(targets)), UNKNOWN, dtype=np.int8)
    for place, (name, target) in enumerate(zip(names, targets, strict=True)):
        cells = columns[name]
        known = ~is_missing(cells)
        if target.at_least is None:
            positive = cells.cast(pl.String).is_in(target.values)
        else:
            numbers = cells.cast(pl.Float64, strict=False)
            bad = cells.filter(known & numbers.is_null())
            if len(bad):
                raise DataError(
                    f"{len(bad):,} of {len(cells):,} interactions have no number in {target.column!r}, which target "
                    f"{target.name!r} compares with at_least = {target.at_least:g}; first: {first_few(bad)}. Correct "
                    "them, or name what is positive with values"
                )
            positive = numbers >= target.at_least
        labels[:, place] = np.where(known.to_numpy(), positive.fill_null(False).to_numpy(), UNKNOWN)
    return labels
