"""Progress shows how far long work is: a live bar on a terminal, a plain line elsewhere, always on stderr."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from hllm.visible import visible

PLAIN_INTERVAL_S = 15.0


def is_first_process() -> bool:
    """Return whether this process, of those that torchrun started, is the one that speaks to people."""
    return os.environ.get("RANK", "0") == "0"


@runtime_checkable
class Progress(Protocol):
    """A function that the worker calls with how much more is done, and a short text of figures."""

    def __call__(self, advance: int, figures: str = "") -> None:
        """Count `advance` more units as done and show `figures` beside them."""


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Progress]:
    """Show `label`, the share done of `total` (None: unknown), the caller's figures and the time left.

    Of several processes only the first shows anything.
    """
    label = visible(label)
    if not is_first_process():
        yield _silent
    elif sys.stderr.isatty():
        yield from _live(label, total)
    else:
        yield from _plain(label, total)


def _silent(advance: int, figures: str = "") -> None:
    pass


def _live(label: str, total: int | None) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(label, total=total, figures="")

        def advance(advance: int, figures: str = "") -> None:
            bars.update(task, advance=advance, figures=figures)

        yield advance


def _plain(label: str, total: int | None) -> Iterator[Progress]:
    start = shown = time.monotonic()
    done = 0

    def advance(advance: int, figures: str = "") -> None:
        nonlocal done, shown
        done += advance
        now = time.monotonic()
        ended = done == total and advance > 0
        if now - shown < PLAIN_INTERVAL_S and not ended:
            return
        if ended and now - start < 1.0:
            return  # short work needs no line
        shown = now
        of = f" of {total:,}" if total is not None else ""
        left = f", {(now - start) / done * (total - done):.0f} s left" if total is not None and 0 < done < total else ""
        sys.stderr.write(f"{label}: {done:,}{of} in {now - start:.0f} s{left}{'  ' + figures if figures else ''}\n")
        sys.stderr.flush()

    yield advance
