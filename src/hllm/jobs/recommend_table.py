"""Recommendations for a whole table of users, into a Parquet file: streamed, and resumed where it was stopped."""

import json
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from hllm import artifacts
from hllm.api import Recommender
from hllm.config import Config
from hllm.data.dataset import Dataset, rows_of
from hllm.data.reading.files import find_files
from hllm.data.reading.tables import read_table, require_columns
from hllm.errors import CheckpointError, ConfigError, DataError
from hllm.jobs.growing import GrowingParquet
from hllm.jobs.requests import RequestCounts, prepare_requests
from hllm.locks import locked
from hllm.progress import progress
from hllm.retrieval.fallback import recommend_or_fall_back
from hllm.retrieval.frame import recommended
from hllm.retrieval.histories import Histories, histories_of
from hllm.retrieval.index.index import KIND as INDEX
from hllm.retrieval.query import Query, Unknown, require_sentences, with_texts
from hllm.runs.bundle import Bundle

USERS_PER_BATCH = 1024
BATCHES_PER_PART = 16
_CELLS_PER_BATCH = 1 << 22  # users times k
_REQUESTS, _JOB = "requests.parquet", "job.json"


@dataclass(frozen=True)
class TableOptions:
    """The options of a job."""

    k: int = 100
    exclude_seen: bool = True
    unknown: Unknown = "error"
    """Users without any known history or sentence: "error" refuses them, "skip" leaves them out, "popularity" gives
    them the most popular items. Unknown items in a history are refused, or left out of it."""
    candidates: Path | None = None
    """A table whose item id column says what may be recommended. None: the catalogue."""
    history_col: str | None = None
    """Column of the histories. None: "history", if there is one."""
    text_col: str | None = None
    """Column of the sentences. None: "text", if there is one."""
    separator: str = ","


class Job(Config):
    """The inputs that the parts in a directory belong to."""

    inputs: dict[str, Any]
    counts: RequestCounts
    unknown_candidates: int


@dataclass(frozen=True)
class TableReport:
    """Counts of what was read and written."""

    counts: RequestCounts
    unknown_candidates: int
    rows: int
    """Rows of the output."""


def recommend_table(
    recommender: Recommender, source: Path, output: Path, options: TableOptions | None = None
) -> TableReport:
    """Write the best items of each row of `source` to the Parquet file `output`.

    Columns: user_id, item_id (the caller's own), score, rank (from 1) and source: "model", or "popularity" for a
    fallback, whose score is the number of training interactions. For `source` see `jobs.requests.prepare_requests`.
    Parts are kept in the directory `output`.parts until all are there; a call with the same inputs goes on, and one
    with others raises ConfigError, as one does if `output` exists. Raises DataError for unknown users and items
    unless `options.unknown` says what to do, and BusyError if another process writes
    there. Memory: a batch of users times k, row groups of `source`, the dataset.
    """
    options, bundle = options or TableOptions(), recommender.bundle
    if options.k < 1:
        raise ConfigError(f"k is {options.k}; it must be at least 1")
    folder = output.with_name(f"{output.name}.parts")
    if output.suffix != ".parquet":
        raise ConfigError(f"the output is {output}; expected a name that ends in .parquet")
    with locked(output):
        if output.exists() and not folder.exists():
            raise ConfigError(f"{output} exists already; give another name, or remove it")
        return _recommend_table(bundle, source, output, folder, options)


def _recommend_table(bundle: Bundle, source: Path, output: Path, folder: Path, options: TableOptions) -> TableReport:
    artifacts.sweep(folder)
    job, candidates = _begin(bundle, source, folder, options)
    worker = _Worker(bundle, options, candidates)
    parts = []
    with progress("recommend", job.counts.rows) as advance:
        for start in range(0, job.counts.rows, worker.rows_per_part):
            part = folder / f"part-{start // worker.rows_per_part:06d}.parquet"
            parts.append(part)
            requests = pl.scan_parquet(folder / _REQUESTS, glob=False).slice(start, worker.rows_per_part).collect()
            if part.is_file():
                advance(len(requests))
                continue
            with artifacts.replacing(part) as partial, closing(GrowingParquet(partial)) as rows:
                for frame in requests.iter_slices(worker.rows_per_batch):
                    rows.append(worker.recommend(frame))
                    advance(len(frame))
    joined = pl.scan_parquet(parts, glob=False)
    with artifacts.replacing(output) as partial:
        joined.sink_parquet(partial)
    shutil.rmtree(folder)
    total = pl.scan_parquet(output, glob=False).select(pl.len()).collect().item()
    return TableReport(job.counts, job.unknown_candidates, total)


def read_allowed_items(dataset: Dataset, path: Path, unknown: Unknown) -> tuple[Int[np.ndarray, " candidate"], int]:
    """Return the item indices that a table of item ids allows, and how many of its ids the catalogue lacks.

    DataError for such ids if `unknown` is "error".
    """
    table = read_table(path, name="candidates")
    require_columns(table, {"item_col": dataset.item_col}, name="candidates")
    ids = table[dataset.item_col]
    if unknown == "error":
        return dataset.item_rows(ids), 0
    rows = rows_of(dataset.item_ids, ids)
    return rows.drop_nulls().to_numpy(), rows.null_count()


class _Worker:
    """A bundle with the options of one job."""

    def __init__(self, bundle: Bundle, options: TableOptions, candidates: Bool[np.ndarray, " item"] | None) -> None:
        self.bundle = bundle
        self.dataset = bundle.dataset
        self.options = options
        self.candidates = candidates
        self.k = min(options.k, self.dataset.num_items)
        self.rows_per_batch = max(1, min(USERS_PER_BATCH, _CELLS_PER_BATCH // self.k))
        self.rows_per_part = self.rows_per_batch * BATCHES_PER_PART

    def recommend(self, requests: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of the output for some requests, in their order."""
        query = Query(requests["user_id"], self._histories(requests))
        if requests["text"].null_count() < len(requests):
            query = with_texts(query, requests["text"].to_list(), self.bundle.reader)
        if self.options.unknown == "skip":
            query = query.only(query.histories.known)
        best, sources = recommend_or_fall_back(
            self.bundle.retriever,
            lambda: self.bundle.popular,
            query.histories,
            self.k,
            exclude=query.histories if self.options.exclude_seen else None,
            candidates=self.candidates,
        )
        return recommended(self.dataset, query.ids, best, sources)

    def _histories(self, requests: pl.DataFrame) -> Histories:
        """Return the history that a request brings, or else the logged one; empty where there is neither."""
        users = requests["user_index"].fill_null(0).to_numpy()
        logged = requests["user_index"].is_not_null().to_numpy()
        histories = histories_of(self.dataset, users, self.dataset.offsets[np.where(logged, users + 1, users)])
        own = np.flatnonzero((requests["items"].list.len().fill_null(0) > 0).to_numpy())
        if not len(own):
            return histories
        items = list(histories.items)
        for row in own.tolist():
            items[row] = requests["items"][row].to_numpy()
        return Histories(items)  # without times: a model that reads them has been refused


def _begin(
    bundle: Bundle, source: Path, folder: Path, options: TableOptions
) -> tuple[Job, Bool[np.ndarray, " item"] | None]:
    """Return the job that `folder` holds, or begin it; ConfigError if another one was begun there."""
    candidates, unknown_candidates = _candidates(bundle, options)
    inputs = _inputs(bundle, source, options)
    if (folder / _JOB).is_file():
        job = _read_job(folder / _JOB)
        if differing := [name for name in inputs if job.inputs.get(name) != inputs[name]]:
            raise ConfigError(
                f"{folder} holds parts for other inputs (they differ in: {', '.join(differing)}); give another "
                "--output, or remove that directory"
            )
        return job, candidates
    if not artifacts.is_vacant(folder) and _visible(folder) != [_REQUESTS]:
        raise ConfigError(f"{folder} is not empty and holds no parts of recommendations; give another --output")
    try:
        counts = prepare_requests(
            source,
            bundle.dataset,
            folder / _REQUESTS,
            user_col=bundle.recipe.data.user_col,
            history_col=options.history_col,
            text_col=options.text_col,
            separator=options.separator,
        )
        _check(bundle, counts, options)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    job = Job(inputs=inputs, counts=counts, unknown_candidates=unknown_candidates)
    artifacts.write_text(folder / _JOB, job.model_dump_json(indent=1))
    return job, candidates


def _visible(folder: Path) -> list[str]:
    """Return the names in a folder but those that begin with a dot, as the leftovers of a killed job do."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def _inputs(bundle: Bundle, source: Path, options: TableOptions) -> dict[str, Any]:
    """Return all that decides the bytes of a part."""

    def hashes(path: Path, name: str) -> list[str]:
        return [artifacts.sha256_of(file) for file in find_files(path, name=name)]

    index = bundle.index
    return {
        "input": hashes(source, "users to recommend to"),
        "checkpoint": bundle.origin.checkpoint,
        "items": bundle.dataset.num_items,
        "added_items": _added_items(bundle),
        "dim": bundle.scorer.dim,
        "index": None if index is None else artifacts.read_manifest(bundle.run.index_path, INDEX).fingerprint,
        "k": options.k,
        "exclude_seen": options.exclude_seen,
        "unknown": options.unknown,
        "candidates": None if options.candidates is None else hashes(options.candidates, "candidates"),
        "history_col": options.history_col,
        "text_col": options.text_col,
        "separator": options.separator,
    }


def _added_items(bundle: Bundle) -> str | None:
    """Return a hash of the items that the run does not hold, with their texts; None without any."""
    dataset, known = bundle.dataset, bundle.origin.num_items
    if not bundle.grown:
        return None
    added = dataset.items[known:].select(dataset.item_col, *dataset.text_cols)
    return artifacts.fingerprint(added.rows())


def _read_job(file: Path) -> Job:
    try:
        return Job.from_dict(json.loads(file.read_text(encoding="utf-8")), where=str(file))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}; remove {file.parent} to begin again") from None


def _check(bundle: Bundle, counts: RequestCounts, options: TableOptions) -> None:
    if counts.histories and bundle.model.reads_log:
        raise DataError(
            f"{counts.histories:,} of {counts.rows:,} rows bring a history, but this model reads when things "
            "happened or what was done, which a list of items does not say; give user ids alone"
        )
    if counts.texts:
        require_sentences(bundle.reader.model)
    if options.unknown == "error":
        counts.require_known()


def _candidates(bundle: Bundle, options: TableOptions) -> tuple[Bool[np.ndarray, " item"] | None, int]:
    """Return what may be recommended, and how many of the candidates the catalogue lacks."""
    if options.candidates is None:
        return None, 0
    rows, missing = read_allowed_items(bundle.dataset, options.candidates, options.unknown)
    mask = np.zeros(bundle.dataset.num_items, dtype=bool)
    mask[rows] = True
    return mask, missing
