"""The users of a finished run are embedded, all of them or some."""

# Proved by tests/cli/test_embed.py.

from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Int

from hllm.data.dataset import Dataset
from hllm.data.reading.tables import Table, read_table, require_columns
from hllm.embedding.rows import Dtype
from hllm.embedding.shards import Embedded, Share
from hllm.embedding.table import ItemEmbeddingTable
from hllm.errors import DataError
from hllm.models.checkpoint import load_checkpoint
from hllm.runs.bundle import require_trained, scorer_of
from hllm.runs.run import Run
from hllm.runs.users import embed_users


def embed_run_users(
    run: Run,
    path: Path,
    *,
    users: Table | None = None,
    active_since: Fraction | None = None,
    dtype: Dtype = "fp32",
    share: Share | None = None,
) -> Embedded:
    """Write the vectors of the run's users after all that they did to `path`.

    `users` is a table whose user id column says which; `active_since` (seconds since 1970) leaves out users whose
    latest interaction is older. Raises DataError for unknown users, if nobody is left, and where `active_since` is
    given for times that only order the interactions.
    """
    recipe = run.read_recipe()
    require_trained(run)
    model, _, manifest = load_checkpoint(run.best_path)
    dataset = Dataset.load(run.dataset_path)
    rows = np.arange(dataset.num_users) if users is None else _users_of(users, dataset, recipe.data.user_col)
    if active_since is not None:
        rows = _active(dataset, rows, active_since)
    table = ItemEmbeddingTable.load(run.table_path, checkpoint=manifest.fingerprint)
    with run.part_locked(path):
        return embed_users(
            scorer_of(model, table.vectors, recipe),
            dataset,
            rows,
            path,
            checkpoint=manifest.fingerprint,
            dtype=dtype,
            share=share or Share(),
        )


def _users_of(source: Table, dataset: Dataset, user_col: str) -> Int[np.ndarray, " user"]:
    table = read_table(source, name="users")
    require_columns(table, {"user_col": user_col}, name="users")
    rows: Int[np.ndarray, " user"] = np.unique(dataset.user_rows(table[user_col]))
    return rows


def _active(dataset: Dataset, rows: Int[np.ndarray, " user"], since: Fraction) -> Int[np.ndarray, " active"]:
    latest: Int[np.ndarray, " user"] = dataset.seconds[dataset.offsets[rows + 1] - 1]
    active: Int[np.ndarray, " active"] = rows[latest >= float(since)]
    if not len(active):
        raise DataError(
            f"none of the {len(rows):,} users is active since {float(since):.0f} (seconds since 1970); the latest "
            f"interaction is of {latest.max()}: give an earlier --active-since"
        )
    return active
