"""Write the rows at fault into a folder where a person can look at them and mend them."""

# Proved by tests/data/test_build.py.

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from hllm import artifacts
from hllm.data.checks import Fault
from hllm.errors import StorageError


def write_quarantine(folder: Path, faults: Sequence[Fault], tables: dict[str, tuple[pl.LazyFrame, bool]]) -> list[Path]:
    """Write one file for each table with the rows at fault; return the files.

    `tables` holds each table, and whether it came as text: then the file is CSV, else Parquet. A file has the
    columns fault, policy, table, row (from 1, the header not counted), then the table's own, which get one "_" or more
    at their end if they have one of these names. A row with two faults stands there twice. A table without faults has
    a file without rows. Raises StorageError.
    """
    written = []
    for name, (table, is_text) in tables.items():
        faults_of_table = [fault for fault in faults if fault.table == name]
        labels = (
            pl.concat([_labels(fault) for fault in faults_of_table], rechunk=False) if faults_of_table else _NO_LABELS
        )
        own = table.collect_schema().names()
        columns = {c: _free(c, own) for c in own if c in _NO_LABELS.columns}
        rows = (
            table.rename(columns)
            .with_row_index("row", offset=1)
            .with_columns(pl.col("row").cast(pl.Int64))
            .join(labels.lazy(), on="row", how="inner")
            .select("fault", "policy", "table", "row", pl.exclude("fault", "policy", "table", "row"))
            .collect(engine="streaming")
            .sort("row", "fault")
        )
        written.append(_write(rows, folder / f"quarantine-{name}.{'csv' if is_text else 'parquet'}"))
    return written


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name


_NO_LABELS = pl.DataFrame(schema={"fault": pl.String, "policy": pl.String, "table": pl.String, "row": pl.Int64})


def _labels(fault: Fault) -> pl.DataFrame:
    rows = pl.DataFrame({"row": fault.rows + 1}, schema={"row": pl.Int64})
    labels = {"fault": fault.name, "policy": fault.policy, "table": fault.table}
    return rows.select(*(pl.lit(value).alias(name) for name, value in labels.items()), "row")


def _write(rows: pl.DataFrame, file: Path) -> Path:
    try:
        with artifacts.replacing(file) as partial:
            if file.suffix == ".csv":
                rows.write_csv(partial)
            else:
                rows.write_parquet(partial)
    except StorageError as error:
        raise StorageError(f"{error}; the quarantine is incomplete") from None
    return file
