"""The table of users holds each one's vector after the latest items, made in shards that survive a kill."""

# Proved by tests/cli/test_embed.py.

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from hllm import artifacts
from hllm.data.dataset import Dataset
from hllm.embedding.rows import Dtype, encode_rows
from hllm.embedding.shards import Embedded, Shards, Share, clear_shards
from hllm.embedding.table import USERS, UserEmbeddingTable, require_room, writing_table
from hllm.errors import BusyError, CheckpointError, HllmWarning, StorageError
from hllm.progress import Progress
from hllm.retrieval.histories import Histories, histories_of
from hllm.retrieval.scorer import ModelScorer
from hllm.runs.bundle import Bundle

_USERS_AT_ONCE = 512


def embed_users(
    scorer: ModelScorer,
    dataset: Dataset,
    users: Int[np.ndarray, " user"],
    path: Path,
    *,
    checkpoint: str,
    dtype: Dtype,
    share: Share,
) -> Embedded:
    """Write the vectors of `users` (user indices), in that order, to `path`, as `embed_items` does those of items.

    The vectors are not normalised: under similarity "cosine" normalise them before comparing. Histories are read a few
    hundred users at a time. A table that is as it should be is left alone. Raises ConfigError if something else than a
    table of users stands at `path`, and BusyError if another process makes it.
    """
    with share.locked(path):
        return _embed_users(scorer, dataset, users, path, checkpoint, dtype, share)


def _embed_users(
    scorer: ModelScorer, dataset: Dataset, users: Int[np.ndarray, " user"], path: Path, checkpoint: str, dtype: Dtype,
    share: Share,
) -> Embedded:  # fmt: skip
    require_room(path, USERS)
    starts, ends = dataset.offsets[users], dataset.offsets[users + 1]
    order = np.argsort(np.minimum(ends - starts, scorer.max_history), kind="stable")
    inputs = [checkpoint, scorer.precision, scorer.max_history, dataset.fingerprint]
    job = artifacts.fingerprint([*inputs, artifacts.digest_of_integers(users)])
    if share.of == 1 and _is_current(path, job, dtype):
        clear_shards(path)
        return Embedded(len(users), 0, 0)
    shards = Shards.beside(path, order, job=job)

    def compute(rows: Int[np.ndarray, " row"], advance: Progress) -> torch.Tensor:
        parts = []
        for start in range(0, len(rows), _USERS_AT_ONCE):
            some = rows[start : start + _USERS_AT_ONCE]
            parts.append(scorer.users(histories_of(dataset, users[some], ends[some])))
            advance(len(some))
        return torch.cat(parts)

    shards.fill(compute, share, label="encode users")
    report = Embedded(len(users), len(users), shards.missing())
    if share.of > 1:
        return report
    details = {
        "checkpoint": checkpoint,
        "precision": scorer.precision,
        "max_history": scorer.max_history,
        "similarity": scorer.model.similarity,
        "job": job,
    }
    ids, dim = dataset.users[users], scorer.table.shape[1]
    with writing_table(path, USERS, ids, dim, dtype, details=details) as writer:
        for rows, vectors in shards:
            writer.put(rows, encode_rows(vectors, "fp32"))
    clear_shards(path)
    return report


def vectors_of_all_users(bundle: Bundle, histories: Histories) -> Float[torch.Tensor, "user dim"]:
    """Return the vectors of all known users, whose histories these are.

    They are kept in the run, and taken from there if they are of today. A bundle with added items keeps nothing: the
    run lacks the items.
    """
    run, scorer, checkpoint = bundle.run, bundle.scorer, bundle.origin.checkpoint
    if bundle.grown:
        return scorer.users(histories)
    everyone = np.arange(bundle.dataset.num_users)
    try:
        embed_users(
            scorer, bundle.dataset, everyone, run.user_table_path, checkpoint=checkpoint, dtype="fp32", share=Share()
        )
    except (StorageError, BusyError) as error:
        warnings.warn(f"{error}. The users' vectors are not kept for the next call", HllmWarning, stacklevel=3)
        return scorer.users(histories)
    return UserEmbeddingTable.load(run.user_table_path, checkpoint=checkpoint).vectors.to(scorer.device)


def _is_current(path: Path, job: str, dtype: Dtype) -> bool:
    """Tell whether the table at `path` came out of the same job; warn of a damaged one."""
    if not artifacts.standing(path).exists():
        return False
    try:
        table = UserEmbeddingTable.load(path, checkpoint=None)
    except CheckpointError as error:
        warnings.warn(f"{error}. Its vectors are made again", HllmWarning, stacklevel=2)
        return False
    return table.details.get("job") == job and table.dtype == dtype
