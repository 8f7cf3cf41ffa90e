"""`hllm index` builds an index over a run's items."""

from pathlib import Path

import typer

from hllm.cli.options import JSON, RUN, overrides_option
from hllm.cli.show import echo, show_json


def index(
    run: Path = RUN,
    kind: str = typer.Option(
        "exact",
        "--kind",
        help='"exact"; "hnsw", "ivf-pq" or "flat", which need the extra faiss; "qdrant", on the server of the '
        "environment variable QDRANT_URL, which needs the extra qdrant.",
    ),
    min_recall: float = typer.Option(
        0.95, "--min-recall", min=0, max=1, help="Refuse an index that finds less of the exact 10 best than this."
    ),
    overrides: list[str] = overrides_option(
        "Change one key of the index's settings, such as ef_search=256; repeatable.", metavar="A=VALUE"
    ),
    as_json: bool = JSON,
) -> None:
    """Build an index over the run's items next to them, in RUN/index, and measure its recall and latency."""
    from hllm.jobs.index import index_run
    from hllm.retrieval.index.config import IndexConfig
    from hllm.runs.run import Run

    config = IndexConfig.from_dict({"kind": kind}, where="hllm index", overrides=overrides)
    done = index_run(Run(run), config, min_recall=min_recall)
    path = Run(run).index_path
    if done.orphan is not None:
        echo(
            f"the Qdrant collection {done.orphan!r} is not this run's any more; delete it if no copy uses it", err=True
        )
    if as_json:
        show_json(
            {
                "index": str(path),
                "config": config.model_dump(mode="json"),
                "certificate": done.certificate.model_dump(mode="json"),
            }
        )
        return
    echo(f"{path}: {config.kind}, {done.index.num_items:,} items\n{done.certificate}")
