"""Store the rank of each target beside a run: `hllm compare` reads these, without any model."""

# Proved by tests/evaluation/test_compare.py.

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from hllm import artifacts, records
from hllm.errors import CheckpointError, ConfigError, nearest
from hllm.evaluation.evaluate import Evaluated
from hllm.evaluation.facts import RunFacts
from hllm.evaluation.protocol import Protocol
from hllm.evaluation.targets import Targets
from hllm.metrics import TargetRanks

_KEY, _SEAL = b"hllm", b"seal"


@dataclass(frozen=True)
class Contender:
    """One recommender's ranks under its protocol."""

    name: str
    protocol: Protocol
    facts: RunFacts
    targets: Targets
    ranks: TargetRanks


def write_ranks(path: Path, own: str, evaluated: Sequence[Evaluated]) -> None:
    """Write one row for each target, with the better:NAME and tied:NAME of each recommender.

    The columns before these are user_id, item_id, history_length, num_ranked, and in:GROUP for each group of targets;
    the protocol and each recommender's facts are in the file's metadata.
    `own` is the name of the run that the file belongs to. The results must be of one protocol.
    """
    first = evaluated[0]
    columns: dict[str, Any] = {
        "user_id": first.targets.user_ids,
        "item_id": first.targets.item_ids,
        "history_length": first.targets.history_length,
        "num_ranked": first.targets.num_ranked,
    }
    columns |= {f"in:{name}": members for name, members in first.targets.groups.items()}
    for each in evaluated:
        columns |= {f"better:{each.result.name}": each.ranks.better, f"tied:{each.result.name}": each.ranks.tied}
    metadata = {
        "own": own,
        "protocol": first.result.protocol.model_dump(mode="json"),
        "facts": {each.result.name: each.result.facts.model_dump(mode="json") for each in evaluated},
    }
    table = pl.DataFrame(columns).to_arrow()
    buffer = io.BytesIO()
    # Kept in the footer, and not in the schema, of which Parquet keeps a second copy.
    with pq.ParquetWriter(buffer, table.schema.remove_metadata(), compression="zstd") as writer:
        writer.write_table(table.replace_schema_metadata())
        writer.add_key_value_metadata({_KEY: json.dumps(metadata), _SEAL: records.SEAL_PLACE})
    artifacts.write_bytes(path, records.seal_bytes(buffer.getvalue()))


def read_ranks(path: Path, baseline: str | None, *, name: str) -> Contender:
    """Return the run's own ranks, or those of a recommender that was evaluated with it, to be called `name`.

    Raises ConfigError if there is none of that name, CheckpointError if the file is damaged or of another version.
    """
    try:
        content = path.read_bytes()
        records.check_bytes(content)
        file = pq.ParquetFile(pa.BufferReader(content))
        table, metadata = file.read(), json.loads(file.metadata.metadata[_KEY])
        protocol = Protocol.from_dict(metadata["protocol"], where=str(path))
        facts = {label: RunFacts.from_dict(values, where=str(path)) for label, values in metadata["facts"].items()}
    except (pa.ArrowInvalid, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged, or written by another version of hllm ({error}); run hllm evaluate again"
        ) from None
    recommender = metadata["own"] if baseline is None else baseline
    if recommender not in facts:
        raise ConfigError(
            f"{path} has no ranks of {recommender!r}{nearest(recommender, facts)}; known: {', '.join(facts)}. "
            f"Add it with hllm evaluate --baselines"
        )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    numbers = {name: frame[name].to_numpy().astype(np.int64) for name in ("history_length", "num_ranked")}
    groups = {name[3:]: frame[name].to_numpy() for name in frame.columns if name.startswith("in:")}
    better, tied = (frame[f"{column}:{recommender}"].to_numpy().astype(np.int64) for column in ("better", "tied"))
    targets = Targets(frame["user_id"], frame["item_id"], **numbers, groups=groups)
    return Contender(name, protocol, facts[recommender], targets, TargetRanks(better, tied))
