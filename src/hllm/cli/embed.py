"""`hllm embed` writes the vectors of items."""

from pathlib import Path

import typer

from hllm.cli.options import DTYPE, JSON, RUN, SHARD, TABLE, dtype_of
from hllm.cli.show import show_embedded


def embed(
    run: Path = RUN,
    out: Path = TABLE,
    items: Path | None = typer.Option(
        None, "--items", help="A table of items with the columns of the training data; default: the run's own items."
    ),
    dtype: str = DTYPE,
    dim: int | None = typer.Option(None, "--dim", min=1, help="Keep only the first numbers of each vector."),
    shard: str = SHARD,
    as_json: bool = JSON,
) -> None:
    """Write the vectors of a run's items, or of any items; only texts that are new or changed are encoded.

    A call that was stopped goes on when it is repeated, and loses at most one shard of 4,096 items.
    """
    from hllm.embedding.shards import Share
    from hllm.runs.run import Run
    from hllm.runs.tables import embed_run_items

    share, kind = Share.parse(shard), dtype_of(dtype)
    out = out.resolve() if out.is_symlink() else out  # a link that is named here is meant
    with Run(run).part_locked(out):
        embedded = embed_run_items(Run(run), out, items=items, dtype=kind, share=share, dim=dim)
    show_embedded(embedded, out, processes=share.of, noun="items", as_json=as_json)
