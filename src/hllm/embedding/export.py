"""Write a table of embeddings as plain files, for a program that knows nothing of hllm: vectors in fp32, and ids."""

# Proved by tests/cli/test_embed.py.

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from hllm import artifacts
from hllm.embedding.rows import new_array
from hllm.embedding.table import EmbeddingTable
from hllm.errors import ConfigError

Format = Literal["parquet", "npy", "safetensors"]
FORMATS: tuple[Format, ...] = ("parquet", "npy", "safetensors")
KIND = "exported embeddings"
_NUMBERS_AT_ONCE = 1 << 24


def export_table(table: EmbeddingTable, path: Path, form: Format) -> bool:
    """Write the directory `path`: embeddings.parquet with the columns item_id (or user_id) and embedding.

    Or embeddings.npy, or embeddings.safetensors with the tensor "embeddings", each beside item_ids.parquet (or
    user_ids.parquet) in the same order. 64 MB are in memory at a time. Returns False if this very export is there
    already. Raises ConfigError if something else is, CheckpointError if the export is damaged.
    """
    shape, name = (len(table), table.rows.values.shape[1]), table.ids.name
    details = {"checkpoint": table.checkpoint, "stored_as": table.dtype, "shape": list(shape), "format": form,
               "table": table.fingerprint}  # fmt: skip
    if (standing := artifacts.standing(path)).exists():
        if not (standing / artifacts.MANIFEST).is_file() or artifacts.verify(path, KIND).details != details:
            raise ConfigError(f"{path} exists already, and is no {form} export of this table; give a new directory")
        return False
    with artifacts.writing(path, KIND, details) as folder:
        file = folder / f"embeddings.{form}"
        match form:
            case "parquet":
                _parquet(table, file)
                return True
            case "npy":
                out = new_array(file, np.dtype("<f4"), shape)
                for start, part in _parts(table):
                    out[start : start + len(part)] = part
                out.flush()
            case "safetensors":
                _safetensors(table, file, shape)
        table.ids.to_frame().write_parquet(folder / f"{name}s.parquet")
    return True


def _parts(table: EmbeddingTable) -> Iterator[tuple[int, Float[np.ndarray, "row dim"]]]:
    rows = max(1, _NUMBERS_AT_ONCE // table.rows.values.shape[1])
    for start in range(0, len(table), rows):
        yield start, table.take(slice(start, start + rows)).numpy()


def _parquet(table: EmbeddingTable, file: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    dim, ids = table.rows.values.shape[1], table.ids.to_arrow()
    schema = pa.schema([(table.ids.name, ids.type), ("embedding", pa.list_(pa.float32(), dim))])
    with parquet.ParquetWriter(file, schema) as writer:
        for start, part in _parts(table):
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), dim)
            columns = [ids.slice(start, len(part)), vectors]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _safetensors(table: EmbeddingTable, file: Path, shape: tuple[int, int]) -> None:
    """Write the header by hand, because the library wants the whole tensor in memory.

    Source: the format section of https://github.com/huggingface/safetensors.
    """
    tensor = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4 * shape[0] * shape[1]]}
    header = json.dumps({"embeddings": tensor}).encode()
    header += b" " * (-len(header) % 8)
    with file.open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        for _, part in _parts(table):
            part.astype("<f4").tofile(out)
