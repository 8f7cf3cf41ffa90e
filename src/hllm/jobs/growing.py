"""A Parquet file that grows by frames, so that no more than one of them is in memory."""

# Proved by tests/jobs/test_recommend_table.py.

from pathlib import Path
from typing import Any

import polars as pl


class GrowingParquet:
    """Rows with the columns of the first frame."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: Any = None

    def append(self, frame: pl.DataFrame) -> None:
        """Write the rows of `frame` to the end."""
        from pyarrow import parquet

        rows = frame.to_arrow()
        self.writer = self.writer or parquet.ParquetWriter(self.path, rows.schema)
        self.writer.write_table(rows)

    def close(self) -> None:
        """Close the file; without any frame there is none."""
        if self.writer is not None:
            self.writer.close()
