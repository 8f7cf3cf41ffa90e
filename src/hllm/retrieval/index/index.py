"""The Index finds items by their vectors, exactly or by way of FAISS or Qdrant, while items come, change and go."""

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm import artifacts
from hllm.errors import CheckpointError, ConfigError, DataError
from hllm.retrieval.histories import ItemLists
from hllm.retrieval.index.certificate import Certificate, latency_of, processor, recall_of
from hllm.retrieval.index.config import IndexConfig
from hllm.retrieval.index.kinds import NOMINATORS
from hllm.retrieval.index.nominator import Nominator
from hllm.retrieval.index.search import checked, exact_search, nominated_search
from hllm.retrieval.index.snapshot import Snapshot
from hllm.retrieval.retriever import Recommendations

KIND = "index"
_VECTORS, _IDS = "vectors.npy", "item_ids.parquet"
_SELECTIVE = 0.05  # share of the items; below it a walk through the graph finds too few that are allowed


@dataclass(frozen=True)
class _State:
    """The state that one search sees; a change puts another in its place."""

    snapshot: Snapshot
    nominator: Nominator | None


@final
class Index:
    """Vectors whose dot products with a query are the scores, by row, with the caller's item ids.

    Rows are numbered in catalogue order. Added items get new rows, updated ones keep theirs, deleted ones leave a gap,
    until `compact` numbers them anew. Changes are seen by the next search, and are kept on disk by `save`. Searches
    may run in other threads while items change.
    """

    def __init__(
        self, snapshot: Snapshot, nominator: Nominator | None, config: IndexConfig, source: str,
        certificate: Certificate | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.source = source
        self.certificate = certificate
        self._state = _State(snapshot, nominator)
        self._stored: tuple[Path, dict[str, str]] | None = None  # files that still hold the base, with their hashes
        self._changing = threading.Lock()

    @classmethod
    def build(
        cls, vectors: Float[Tensor, "item dim"], item_ids: pl.Series, config: IndexConfig | None = None, *, source: str
    ) -> "Index":
        """Build an index over vectors in catalogue order; it keeps them, and does not copy them in fp32.

        For cosines give unit vectors. `source` is the fingerprint of what made the vectors. Raises DataError for ids
        that are missing or repeated and for vectors that are not finite, ConfigError for settings that do not fit.
        """
        config = config or IndexConfig()
        snapshot = Snapshot.of(vectors.detach().cpu().to(_DTYPES[config.dtype]), item_ids)
        return cls(snapshot, _nominator(snapshot, config, source), config, source)

    @classmethod
    def open(cls, path: Path, *, source: str) -> "Index":
        """Map an index from disk; CheckpointError if it is damaged or not over the vectors of `source`."""
        return artifacts.reading(path, KIND, lambda folder, manifest: cls._read(folder, manifest, path, source))

    @classmethod
    def _read(cls, folder: Path, manifest: artifacts.Manifest, path: Path, source: str) -> "Index":
        """Map the checked files in `folder`, which stands for `path`."""
        details = manifest.details
        if str(details["source"]) != source:
            raise CheckpointError(
                f"the index in {path} is over the vectors of {str(details['source'])[:12]}…, asked for are those of "
                f"{source[:12]}…; vectors of two models do not mix: make it again with hllm index"
            )
        config = IndexConfig.from_dict(details["config"], where=str(path))
        if config.url is not None:
            raise CheckpointError(
                f"the index in {path} names the server {config.url!r}; hllm connects to none that a file names. Make "
                "the index again with hllm index"
            )
        base, delta = (_load_vectors(folder / name, config) for name in (_VECTORS, "delta.npy"))
        snapshot = Snapshot(
            base,
            pl.read_parquet(folder / _IDS, glob=False)["item_id"],
            np.load(folder / "live.npy"),
            np.load(folder / "changed.npy"),
            delta,
            float(details["longest"]),
        )
        kind = NOMINATORS[config.kind]
        nominator = None if kind is None else kind.open(folder / kind.file, config, source)
        certificate = details["certificate"] and Certificate.from_dict(details["certificate"], where=str(path))
        index = cls(snapshot, nominator, config, source, certificate or None)
        index._stored = path, manifest.files
        return index

    def save(self, path: Path) -> None:
        """Write the index whole or not at all, with its changes and certificate; it may replace the one it came from.

        Files that did not change since it was opened or saved are linked rather than copied where that is possible.
        """
        with self._changing:
            snapshot, nominator = self._state.snapshot, self._state.nominator
            details = {
                "source": self.source,
                "config": self.config.stored,
                "shape": list(snapshot.base.shape),
                "num_items": self.num_items,
                "num_changes": snapshot.num_changes,
                "longest": snapshot.longest,
                "certificate": self.certificate and self.certificate.model_dump(mode="json"),
            }
            with artifacts.writing(path, KIND, details) as folder:
                if not self._link(_VECTORS, folder):
                    _save_vectors(folder / _VECTORS, snapshot.base)
                kind = NOMINATORS[self.config.kind]
                if nominator is not None and kind is not None and not self._link(kind.file, folder):
                    nominator.save(folder / kind.file)
                snapshot.item_ids.to_frame().write_parquet(folder / _IDS)
                _save_vectors(folder / "delta.npy", snapshot.delta)
                np.save(folder / "changed.npy", snapshot.changed)
                np.save(folder / "live.npy", snapshot.live)
            self._stored = path, artifacts.read_manifest(path, KIND).files

    @property
    def num_items(self) -> int:
        """Items that can be found."""
        return int(np.count_nonzero(self._state.snapshot.live))

    @property
    def num_rows(self) -> int:
        """Rows, those of deleted items too: the length of `candidates`."""
        return len(self._state.snapshot.live)

    @property
    def num_changes(self) -> int:
        """Items added, updated or deleted since the last build or compaction. Each makes a search a little slower."""
        return self._state.snapshot.num_changes

    @property
    def item_ids(self) -> pl.Series:
        """The id of every row, those of deleted items too."""
        return self._state.snapshot.item_ids

    def rows(self, item_ids: Sequence[Any] | pl.Series) -> Int[np.ndarray, " item"]:
        """Return the row of each id; DataError for ids that the index does not hold."""
        return self._state.snapshot.rows(item_ids)

    def search(
        self,
        queries: Float[Tensor, "query dim"],
        k: int,
        *,
        exclude: ItemLists | None = None,
        candidates: Bool[np.ndarray, " row"] | None = None,
    ) -> Recommendations:
        """Return the k rows with the highest scores for each query, best first, equal scores in order of rows.

        `exclude` holds rows that a query must not get; `candidates` is True for rows that may be found at all. A query
        gets fewer than k only if fewer match: where a filter leaves few items, where FAISS finds fewer than k, and
        where equal scores reach beyond what it finds, all are scored. Raises DataError for queries or masks of the
        wrong shape, and for queries that are not finite.
        """
        state = self._state
        queries, allowed = checked(state.snapshot, queries, k, candidates)
        few = max(self.config.exact_below, int(_SELECTIVE * len(allowed)))
        if state.nominator is None or np.count_nonzero(allowed) <= few:
            return exact_search(state.snapshot, queries, k, exclude, allowed)
        best, unsure = nominated_search(state.snapshot, state.nominator, queries, k, exclude, allowed)
        again = np.flatnonzero(unsure)
        if len(again):
            excluded = None if exclude is None else [exclude[int(row)] for row in again]
            exact = exact_search(state.snapshot, queries[torch.from_numpy(again)], k, excluded, allowed)
            best.items[again], best.scores[again] = exact.items, exact.scores
        return best

    def search_exactly(
        self,
        queries: Float[Tensor, "query dim"],
        k: int,
        *,
        exclude: ItemLists | None = None,
        candidates: Bool[np.ndarray, " row"] | None = None,
    ) -> Recommendations:
        """Search as `search` does, scoring every item whatever the kind of the index."""
        snapshot = self._state.snapshot
        queries, allowed = checked(snapshot, queries, k, candidates)
        return exact_search(snapshot, queries, k, exclude, allowed)

    def add(self, item_ids: Sequence[Any] | pl.Series, vectors: Float[Tensor, "item dim"]) -> None:
        """Add items, as new rows at the end; DataError for ids that it holds already, and nothing is added then."""
        self._change(lambda snapshot: snapshot.added(item_ids, vectors))

    def update(self, item_ids: Sequence[Any] | pl.Series, vectors: Float[Tensor, "item dim"]) -> None:
        """Give items other vectors; DataError for ids that it does not hold, and nothing is changed then."""
        self._change(lambda snapshot: snapshot.updated(item_ids, vectors))

    def delete(self, item_ids: Sequence[Any] | pl.Series) -> None:
        """Delete items; DataError for ids that it does not hold, and nothing is deleted then."""
        self._change(lambda snapshot: snapshot.deleted(item_ids))

    def compact(self) -> None:
        """Build the index anew from the items in it. The rows change, and the certificate is gone: certify again."""
        with self._changing:
            snapshot = self._state.snapshot.compacted()
            self._state = _State(snapshot, _nominator(snapshot, self.config, self.source))
            self.certificate = self._stored = None

    def discard(self) -> None:
        """Delete what the build has made outside of this process; an index that is not to be saved."""
        if self._state.nominator is not None:
            self._state.nominator.discard()

    def certify(
        self, queries: Float[Tensor, "query dim"], *, described: str, k: int = 10, min_recall: float | None = None
    ) -> Certificate:
        """Measure recall against exact search and the time of a search, and keep both in the manifest.

        `described` says what the queries are. Raises ConfigError if recall is below `min_recall`.
        """
        if not len(queries):
            raise DataError("there are no queries to certify the index with; give at least one")

        def search(some: Float[Tensor, "query dim"]) -> Recommendations:
            return self.search(some, k)

        def exactly(some: Float[Tensor, "query dim"]) -> Recommendations:
            return self.search_exactly(some, k)

        recall = recall_of(search(queries), exactly(queries))
        kind = NOMINATORS[self.config.kind]
        if min_recall is not None and recall.mean() < min_recall:
            raise ConfigError(
                f"recall@{k} of the {self.config.kind} index is {recall.mean():.4f}, below the {min_recall:g} asked "
                f"for; {'this is a fault of hllm' if kind is None else kind.remedy}"
            )
        exact = latency_of(exactly, queries)
        self.certificate = Certificate(
            k=k, recall=float(recall.mean()), lowest_recall=float(recall.min()), num_queries=len(queries),
            queries=described, num_items=self.num_items, num_changes=self.num_changes, exact=exact,
            index=exact if kind is None else latency_of(search, queries), threads=1, machine=processor(),
        )  # fmt: skip
        return self.certificate

    def _change(self, change: Callable[[Snapshot], Snapshot]) -> None:
        with self._changing:
            self._state = _State(change(self._state.snapshot), self._state.nominator)

    def _link(self, name: str, folder: Path) -> bool:
        """Put a file of the stored index into another directory, if there is one; CheckpointError if it changed.

        The hash is of what was put there: meanwhile another process may replace the stored one.
        """
        if self._stored is None or not (self._stored[0] / name).is_file():
            return False
        stored, hashes = self._stored
        try:
            os.link(stored / name, folder / name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(stored / name, folder / name)
        if artifacts.sha256_of(folder / name) != hashes[name]:
            raise CheckpointError(
                f"{stored / name} was changed after this index was opened or saved there; open it again, or restore it "
                "from a copy"
            )
        return True


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _nominator(snapshot: Snapshot, config: IndexConfig, source: str) -> Nominator | None:
    kind = NOMINATORS[config.kind]
    return None if kind is None else kind.build(snapshot.base, snapshot.item_ids, config, source)


def _save_vectors(path: Path, vectors: Float[Tensor, "row dim"]) -> None:
    """Write .npy; bf16, which numpy lacks, as the integers of the same bits."""
    np.save(path, (vectors.view(torch.int16) if vectors.dtype == torch.bfloat16 else vectors).numpy())


def _load_vectors(path: Path, config: IndexConfig) -> Float[Tensor, "row dim"]:
    """Map what `_save_vectors` wrote; writes would stay in memory, and there are none."""
    vectors = torch.from_numpy(np.load(path, mmap_mode="c"))
    vectors = vectors.view(torch.bfloat16) if config.dtype == "bf16" else vectors
    if vectors.dtype != _DTYPES[config.dtype]:
        raise ValueError(f"{path.name} holds {vectors.dtype}")
    return vectors
