"""The settings of an index."""

# Proved by tests/retrieval/index/test_faiss.py.

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hllm.config import Config

Kind = Literal["exact", "flat", "hnsw", "ivf-pq", "qdrant"]


class IndexConfig(Config):
    """Settings of an index. The scores are exact in every kind: FAISS or Qdrant only nominates items to be scored."""

    kind: Kind = "exact"
    """"exact" scores every item. "hnsw" walks a graph over a copy of the vectors; "ivf-pq" reads codes of a few bytes
    from the nearest lists; "flat" is FAISS's own exact search: these need the extra `faiss`. "qdrant" asks a collection
    on a Qdrant server, and needs the extra `qdrant`."""
    dim: int | None = Field(default=None, ge=1)
    """Keep and score only the first numbers of each vector, for models trained with loss.matryoshka; None: all."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Number format of the vectors, kept and scored. bf16 halves the memory, and rounds scores at the third digit."""
    exact_below: int = Field(default=10_000, ge=0)
    """A search whose filter leaves no more items than this scores them all, whatever the kind."""
    neighbours: int = Field(default=32, ge=2)
    """hnsw, qdrant: links of each item; more find more, and take 8 bytes each."""
    ef_construction: int = Field(default=64, ge=1)
    """hnsw, qdrant: items looked at when an item is linked; more find more, and build slower."""
    ef_search: int = Field(default=128, ge=1)
    """hnsw, qdrant: items looked at in a search, at the least."""
    num_lists: int | None = Field(default=None, ge=1)
    """ivf-pq: lists that the items are divided into; by default 4·√items."""
    num_probes: int = Field(default=32, ge=1)
    """ivf-pq: lists read in a search, at the least."""
    code_bytes: int | None = Field(default=None, ge=1)
    """ivf-pq: bytes of an item's code, a divisor of the dimension; by default about a quarter of it."""
    refine: int = Field(default=8, ge=1)
    """ivf-pq: items scored exactly for each one returned, since the order of the codes is coarse."""
    seed: int = Field(default=0, ge=0)
    """Seed of the clustering of ivf-pq."""
    url: str | None = None
    """qdrant: address of the server on which the index is made, such as http://localhost:6333; by default that of the
    environment variable QDRANT_URL. It is not kept: who opens the index names the server in QDRANT_URL. The API key, if
    any, in QDRANT_API_KEY is sent to the server of QDRANT_URL alone."""
    collection: str | None = None
    """qdrant: its name; by default hllm- and the beginnings of the fingerprints of item vectors and collection.
    What a named one holds is replaced by the next index of the same item vectors."""

    @field_validator("url")
    @classmethod
    def _a_server(cls, url: str | None) -> str | None:
        if url is not None and not is_server(url):
            raise ValueError("expected the address of a Qdrant server, such as http://localhost:6333")
        return url

    @model_validator(mode="after")
    def _url_of_qdrant(self) -> "IndexConfig":
        if self.kind != "qdrant" and self.url is not None:
            raise ValueError(f'url has no effect on kind = "{self.kind}"; it is for "qdrant"')
        return self

    @property
    def stored(self) -> dict[str, Any]:
        """Return the settings that an index on disk keeps: all but the address of a server."""
        return self.model_dump(mode="json", exclude={"url"})


def is_server(url: str) -> bool:
    """Tell whether an address is of a server; the client would take anything else for a directory."""
    return url.startswith(("http://", "https://"))
