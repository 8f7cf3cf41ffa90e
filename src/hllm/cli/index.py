"""`hllm index`."""

import json
from pathlib import Path

import typer

from hllm.cli.recommend import JSON
from hllm.cli.run import RUN


def index(
    run: Path = RUN,
    kind: str = typer.Option(
        "exact",
        "--kind",
        help='"exact"; "hnsw", "ivf-pq" or "flat", which need the extra faiss; "qdrant" with --set url=…, which needs '
        "the extra qdrant.",
    ),
    min_recall: float = typer.Option(
        0.95, "--min-recall", min=0, max=1, help="Refuse an index that finds less of the exact 10 best than this."
    ),
    overrides: list[str] = typer.Option(
        (),
        "--set",
        metavar="A=VALUE",
        help="Change one key of the index's settings, such as ef_search=256; repeatable.",
    ),
    as_json: bool = JSON,
) -> None:
    """Build an index over the run's items next to them, in RUN/index, and measure its recall and latency."""
    from hllm.api import Recommender
    from hllm.retrieval.index.config import IndexConfig
    from hllm.retrieval.index.qdrant import collection_of
    from hllm.retrieval.index.retriever import build_index, source_of

    config = IndexConfig.from_dict({"kind": kind}, where="hllm index", overrides=overrides)
    recommender = Recommender.load(run)
    source = source_of(recommender.run.table_path)
    built = build_index(recommender.scorer, recommender.dataset, config, source=source, min_recall=min_recall)
    before = collection_of(recommender.run.index_path)
    built.save(recommender.run.index_path)
    if before not in (None, collection_of(recommender.run.index_path)):
        typer.echo(f"the Qdrant collection {before} is not this run's any more; delete it if no copy uses it", err=True)
    certificate = built.certificate
    assert certificate is not None, "build_index certifies"
    if as_json:
        typer.echo(json.dumps({"index": str(recommender.run.index_path), "config": config.model_dump(mode="json"),
                               "certificate": certificate.model_dump(mode="json")}))  # fmt: skip
        return
    typer.echo(f"{run / 'index'}: {config.kind}, {built.num_items:,} items\n{certificate}")
