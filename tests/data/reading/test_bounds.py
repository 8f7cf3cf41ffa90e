import gzip
import io
import json
import time
import tracemalloc

import polars as pl
import pytest

from hllm.data.reading import bounds
from hllm.data.reading.bounds import MAX_COLUMNS, MAX_LINE_BYTES
from hllm.data.reading.tables import read_table
from hllm.errors import DataError

ROWS = "item_id,title\n1,red shoe\n2,blue hat\n"


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "frame"])
def test_a_table_of_far_too_many_columns_is_refused_at_once(tmp_path, kind):
    """100,000 columns took minutes and gigabytes to be checked."""
    frame = pl.DataFrame({"item_id": ["1", "2"], **{f"c{n}": ["x", "y"] for n in range(20_000)}})
    file = tmp_path / f"items.{kind}"
    match kind:
        case "csv" | "tsv":
            frame.write_csv(file, separator="," if kind == "csv" else "\t")
        case "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in frame.iter_rows(named=True)))
        case "parquet":
            frame.write_parquet(file)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"(items|the rows of .*) have 20,001 columns, such as '\w+'; at most 4,096"):
        read_table(frame if kind == "frame" else file, name="items")
    assert time.monotonic() - start < 10
    assert read_table(frame[:, :MAX_COLUMNS], name="items").width == MAX_COLUMNS


@pytest.mark.parametrize("place", ["header", "row"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_an_archive_of_one_huge_field_is_refused_before_it_is_in_memory(tmp_path, place, kind):
    """A gzip of 1.5 MB that held one field of 1.5 GB took 9 GB of memory, and then polars panicked."""
    file = tmp_path / f"items.{kind}.gz"
    huge = b"x" * (1 << 20)
    with gzip.open(file, "wb", compresslevel=1) as stream:
        stream.write(
            b"" if place == "header" else b'{"item_id": "1"}\n' if kind == "jsonl" else b"item_id,title\n1,a\n"
        )
        for _ in range((MAX_LINE_BYTES >> 20) + 1):
            stream.write(huge)
    line = {"header": 1, "row": 2 if kind == "jsonl" else 3}[place]
    tracemalloc.start()
    with pytest.raises(
        DataError, match=rf"items\.{kind}\.gz, line {line}: it is longer than 64 MB, and no row of a table"
    ):
        read_table(file, name="items")
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_told_apart_by_any_end(tmp_path, monkeypatch, end):
    monkeypatch.setattr(bounds, "MAX_LINE_BYTES", 20)
    monkeypatch.setattr(bounds, "_BLOCK_BYTES", 7)
    file = tmp_path / "items.csv"
    file.write_bytes(ROWS.replace("\n", end).encode())
    bounds.require_short_lines(file, lambda path: path.open("rb"))
    file.write_bytes((ROWS + "3," + "x" * 30).replace("\n", end).encode())
    with pytest.raises(DataError, match="it is longer than"):
        bounds.require_short_lines(file, lambda path: path.open("rb"))


def test_the_last_line_may_have_no_end_and_an_array_may_be_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_LINE_BYTES", 20)
    file = tmp_path / "items.csv"
    file.write_text(ROWS.rstrip("\n"))
    bounds.require_short_lines(file, lambda path: path.open("rb"))
    file.write_text(' \n[{"item_id": "1", "title": "red shoe"}, {"item_id": "2", "title": "blue hat"}]')
    bounds.require_short_lines(file, lambda path: path.open("rb"))


def test_a_file_is_read_once_for_it(tmp_path):
    file = tmp_path / "items.csv"
    file.write_text(ROWS)
    opened = []

    def opening(path) -> io.BufferedIOBase:
        opened.append(path)
        return path.open("rb")

    bounds.require_short_lines(file, opening)
    bounds.require_short_lines(file, opening)
    file.write_text(ROWS + "3,coat\n")
    bounds.require_short_lines(file, opening)
    assert len(opened) == 2
