"""Approximate search by Qdrant: a collection on a server that nominates rows of an index's base for exact scoring."""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm import artifacts
from hllm.errors import CheckpointError, ConfigError
from hllm.extras import require
from hllm.progress import progress
from hllm.retrieval.index.config import IndexConfig, is_server

URL, API_KEY = "QDRANT_URL", "QDRANT_API_KEY"
COLLECTION = "collection.json"  # among the files of an index
_ROWS_AT_ONCE = 1024
_MAX_IDS = 10_000  # in one filter; with more, what is not allowed is left out here
_SOURCE, _BUILD = "hllm_source", "hllm_build"
_WAIT_S = 0.5


@final
class QdrantNominator:
    """A collection whose points are numbered as the rows of the base, each with its vector and `item_id`.

    What a collection was made from stands in its metadata, so that vectors of two models never mix. The address of its
    server is always the caller's: no index on disk holds one.
    """

    def __init__(self, collection: str, build: str, config: IndexConfig, url: str) -> None:
        self.collection = collection
        self.build_id = build
        self.config = config
        self.url = url
        self.created = False
        self.client = _client(url)
        self.models = _module().models

    @classmethod
    def build(
        cls, vectors: Float[Tensor, "item dim"], item_ids: pl.Series, config: IndexConfig, *, source: str
    ) -> "QdrantNominator":
        """Upload vectors whose dot products are the scores; a collection of the same content is used as it is.

        By default each content has a collection of its own, and the others stay as they are; in the one that `config`
        names, other content of the same source is replaced. Raises CheckpointError for a collection of another source,
        or not made by hllm, and ConfigError where Qdrant cannot be reached. The server is that of `config.url`, else of
        the environment variable QDRANT_URL.
        """
        url = config.url or _named_url("give url, such as --set url=http://localhost:6333, or set it")
        build = _fingerprint(vectors, item_ids, config, source)
        collection = config.collection or f"hllm-{source[:16]}-{build[:16]}"
        nominator = cls(collection, build, config, url)
        with _explained(url):
            nominator._prepare(source, vectors.shape[1])
            if nominator._count() != len(vectors):
                nominator._upload(vectors, item_ids)
            nominator._wait()
        return nominator

    @classmethod
    def open(cls, path: Path, config: IndexConfig, *, source: str) -> "QdrantNominator":
        """Connect to the collection that a file of `save` names, on the server of QDRANT_URL.

        Raises ConfigError without that environment variable, CheckpointError if the collection's content has changed.
        """
        url = _named_url(f"the index in {path.parent} searches a Qdrant server: set it to the server's address")
        known = _known(path)
        nominator = cls(known["collection"], known["build"], config, url)
        with _explained(url):
            metadata = nominator._metadata()
            if metadata is None or metadata != {_SOURCE: source, _BUILD: nominator.build_id}:
                fault = "is gone" if metadata is None else "holds something else than the index was made with"
                raise CheckpointError(
                    f"the collection {nominator.collection!r} at {url} {fault}; make the index again with hllm index"
                )
        return nominator

    def save(self, path: Path) -> None:
        """Write which collection it is; the vectors stay where they are."""
        path.write_text(json.dumps({"collection": self.collection, "build": self.build_id}), encoding="utf-8")

    def discard(self) -> None:
        """Delete the collection if this build has created it, and not found it."""
        if self.created:
            with _explained(self.url):
                self.client.delete_collection(self.collection)
            self.created = False

    def nominate(
        self,
        queries: Float[np.ndarray, "query dim"],
        number: int,
        allowed: Bool[np.ndarray, " item"],
    ) -> Int[np.ndarray, "query number"]:
        """Return for each query up to `number` allowed rows. Few that are (not) allowed are a filter of the search."""
        models, matching = self.models, int(np.count_nonzero(allowed))
        only, limit = None, number
        if matching <= _MAX_IDS:
            only = models.Filter(must=[models.HasIdCondition(has_id=np.flatnonzero(allowed).tolist())])
        elif 0 < len(allowed) - matching <= _MAX_IDS:
            only = models.Filter(must_not=[models.HasIdCondition(has_id=np.flatnonzero(~allowed).tolist())])
        elif matching < len(allowed):
            limit = math.ceil(number * len(allowed) / matching)
        depth = models.SearchParams(hnsw_ef=max(self.config.ef_search, limit))
        requests = [
            models.QueryRequest(query=query.tolist(), filter=only, limit=limit, params=depth) for query in queries
        ]
        with _explained(self.url):
            answers = self.client.query_batch_points(self.collection, requests)
        rows = np.full((len(queries), number), -1, dtype=np.int64)
        for row, answer in zip(rows, answers, strict=True):
            named = np.array([point.id for point in answer.points], dtype=np.int64)
            named = named[allowed[named]][:number]
            row[: len(named)] = named
        return rows

    def _metadata(self) -> dict[str, str] | None:
        """Return what hllm wrote of the collection, {} if it did not make it, None if there is none."""
        if not self.client.collection_exists(self.collection):
            return None
        metadata = self.client.get_collection(self.collection).config.metadata or {}
        return {name: str(metadata[name]) for name in (_SOURCE, _BUILD) if name in metadata}

    def _prepare(self, source: str, dim: int) -> None:
        """Make sure that the collection exists and is this build's; it may replace another build of the same source."""
        metadata = self._metadata()
        if metadata is not None and metadata.get(_SOURCE) != source:
            what = f"vectors of {metadata[_SOURCE][:12]}…" if metadata else "something that hllm did not make"
            raise CheckpointError(
                f"the collection {self.collection!r} at {self.url} holds {what}, not of {source[:12]}…; vectors "
                "of two models do not mix: name another with --set collection=NAME, or delete that one"
            )
        if metadata is not None and metadata[_BUILD] != self.build_id:
            self.client.delete_collection(self.collection)
            metadata = None
        if metadata is None:
            models, config = self.models, self.config
            self.client.create_collection(
                self.collection,
                vectors_config=models.VectorParams(size=dim, distance=models.Distance.DOT),
                hnsw_config=models.HnswConfigDiff(m=config.neighbours, ef_construct=max(4, config.ef_construction)),
                metadata={_SOURCE: source, _BUILD: self.build_id},
            )
            self.created = True

    def _count(self) -> int:
        return int(self.client.count(self.collection, exact=True).count)

    def _upload(self, vectors: Float[Tensor, "item dim"], item_ids: pl.Series) -> None:
        """Write every point; those that a stopped upload left are written again."""
        with progress("upload to Qdrant", len(vectors)) as advance:
            for start in range(0, len(vectors), _ROWS_AT_ONCE):
                rows = vectors[start : start + _ROWS_AT_ONCE].float()
                ids = item_ids[start : start + len(rows)].to_list()
                points = self.models.Batch(
                    ids=list(range(start, start + len(rows))),
                    vectors=rows.tolist(),
                    payloads=[{"item_id": item_id} for item_id in ids],
                )
                self.client.upsert(self.collection, points, wait=True)
                advance(len(rows))

    def _wait(self) -> None:
        """Wait until the server has built its graph. Before, a search reads every vector, and its time says nothing."""
        while self.client.get_collection(self.collection).status == self.models.CollectionStatus.YELLOW:
            time.sleep(_WAIT_S)


def collection_of(index: Path) -> str | None:
    """Return the name of the collection that an index on disk searches; None for no index, or one of another kind."""
    file = index / COLLECTION
    return _known(file)["collection"] if file.is_file() else None


def use_client(url: str, client: Any) -> None:
    """Let a `qdrant_client.QdrantClient` that the caller has made answer for an address, in this process.

    It may have certificates of its own, or be a store in memory for a test.
    """
    _CLIENTS[url] = client


def _fingerprint(vectors: Float[Tensor, "item dim"], item_ids: pl.Series, config: IndexConfig, source: str) -> str:
    """Return a hash of all that a collection is made from."""
    digest = hashlib.sha256()
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        digest.update(vectors[start : start + _ROWS_AT_ONCE].float().numpy().tobytes())
    ids = artifacts.fingerprint(item_ids.to_list())
    shape = [*vectors.shape, config.neighbours, config.ef_construction]
    return artifacts.fingerprint([source, digest.hexdigest(), ids, shape])


def _module() -> Any:
    return require("qdrant_client", extra="qdrant", purpose="An index in Qdrant")


def _known(file: Path) -> dict[str, str]:
    """Read what `save` wrote."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return {name: str(values[name]) for name in ("collection", "build")}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{file} is damaged; make the index again with hllm index") from None


def _named_url(what_to_do: str) -> str:
    """Return the address in QDRANT_URL; ConfigError, with what is to be done, if there is none."""
    url = os.environ.get(URL)
    if not url:
        raise ConfigError(f"the environment variable {URL} is not set; {what_to_do}")
    if not is_server(url):
        raise ConfigError(f"{URL} is {url!r}; expected the address of a Qdrant server, such as http://localhost:6333")
    return url


_CLIENTS: dict[str, Any] = {}  # by address


def _client(url: str) -> Any:
    """Return the client for a server."""
    module = _module()
    if url not in _CLIENTS:
        key = _key_of(url)
        _CLIENTS[url] = module.QdrantClient(url=url, api_key=key, timeout=60, check_compatibility=False)
    return _CLIENTS[url]


def _key_of(url: str) -> str | None:
    """Return the API key, which is for the server of QDRANT_URL alone; ConfigError if this is another one."""
    key, own = os.environ.get(API_KEY), os.environ.get(URL)
    if key is not None and (own is None or _server(own) != _server(url)):
        raise ConfigError(
            f"{API_KEY} is for the server in {URL}, which is {own or 'not set'}; it is not sent to {url}: set {URL} to "
            f"that address if the key is for it, or unset {API_KEY}"
        )
    return key


def _server(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Say where Qdrant was looked for, and what it answered."""
    faults = _module().http.exceptions
    try:
        yield
    except (faults.ResponseHandlingException, faults.UnexpectedResponse) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"Qdrant at {url} cannot be used: {reason}. Start it, correct url or {URL}, or set {API_KEY} to its key"
        ) from None
