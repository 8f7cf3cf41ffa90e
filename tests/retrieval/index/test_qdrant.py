"""An index by way of Qdrant, whose client keeps collections of its own in a directory here."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from hllm.errors import CheckpointError, ConfigError, MissingExtraError
from hllm.retrieval.index import qdrant as door
from hllm.retrieval.index.config import IndexConfig
from hllm.retrieval.index.index import Index

# The store that answers in place of a server warns of settings that only a server heeds.
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")
NUM_ITEMS, DIM = 200, 16
SERVER = "http://qdrant.example:6333"
IDS = pl.Series([f"i{n}" for n in range(NUM_ITEMS)])


@pytest.fixture
def qdrant():
    return pytest.importorskip("qdrant_client")


@pytest.fixture
def client(qdrant, tmp_path, monkeypatch):
    """A store of the client's own, which answers in place of a server."""
    monkeypatch.setenv(door.URL, SERVER)
    monkeypatch.setattr(door, "_CLIENTS", {})
    client = qdrant.QdrantClient(path=str(tmp_path / "qdrant"))
    door.use_client(SERVER, client)
    yield client
    client.close()


@pytest.fixture
def config(client) -> IndexConfig:
    return IndexConfig(kind="qdrant", url=SERVER, exact_below=0)


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    return F.normalize(torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture(scope="module")
def queries() -> torch.Tensor:
    return F.normalize(torch.randn(20, DIM, generator=torch.Generator().manual_seed(1)), dim=-1)


@pytest.mark.parametrize("max_ids", [10_000, 50])
def test_filters_return_all_that_match_best_first(monkeypatch, config, vectors, queries, rng, max_ids):
    """With no more than 50 ids in a filter, all three ways to filter are taken."""
    monkeypatch.setattr(door, "_MAX_IDS", max_ids)
    index = Index.build(vectors, IDS, config, source="s")
    scores = (queries @ vectors.T).numpy()
    for share in (1.0, 0.97, 0.5, 0.1, 0.01, 0.0):
        allowed = np.zeros(NUM_ITEMS, dtype=bool)
        allowed[rng.choice(NUM_ITEMS, size=int(share * NUM_ITEMS), replace=False)] = True
        exclude = [rng.choice(NUM_ITEMS, size=rng.integers(0, 30), replace=False) for _ in queries]
        found = index.search(queries, 7, exclude=exclude, candidates=allowed)
        for query, own in enumerate(exclude):
            matching = np.setdiff1d(np.flatnonzero(allowed), own)
            expected = matching[np.argsort(-scores[query, matching], kind="stable")][:7]
            assert found.items[query][: len(expected)].tolist() == expected.tolist()
            assert (found.items[query][len(expected) :] == -1).all()


def test_items_come_change_and_go(config, client, vectors):
    index = Index.build(vectors, IDS, config, source="s")
    index.add(["new"], -vectors[:1])
    index.update(["i7"], -vectors[1:2])
    index.delete(["i5"])
    asked = torch.stack([-vectors[0], -vectors[1], vectors[5]])
    best = index.search(asked, 1).items[:, 0]
    assert index.item_ids[best[:2]].to_list() == ["new", "i7"]
    assert best[2] != 5
    name = index._state.nominator.collection
    assert client.count(name).count == NUM_ITEMS, "the collection is as it was built"
    index.compact()
    assert client.collection_exists(name), "an index on disk may search it"
    name = index._state.nominator.collection
    assert client.count(name).count == NUM_ITEMS, "one more and one less"
    best = index.search(asked[:2], 1).items[:, 0]
    assert index.item_ids[best].to_list() == ["new", "i7"]
    (point,) = client.retrieve(name, [int(best[0])], with_vectors=True)
    assert point.payload == {"item_id": "new"}
    assert point.vector == pytest.approx((-vectors[0]).tolist(), abs=1e-6)


def test_an_index_is_the_same_after_saving_and_opening(tmp_path, config, vectors, queries):
    index = Index.build(vectors, IDS, config, source="s")
    index.delete(["i3"])
    index.save(tmp_path / "index")
    again = Index.open(tmp_path / "index", source="s")
    assert again.config == config.model_copy(update={"url": None}), "an index on disk names no server"
    assert "qdrant.example" not in (tmp_path / "index" / "manifest.json").read_text()
    assert again.search(queries, 10).items.tolist() == index.search(queries, 10).items.tolist()
    assert again.certify(queries, described="random ones", min_recall=1.0).recall == 1.0


def test_the_same_content_is_not_uploaded_again_and_a_stopped_upload_is(monkeypatch, config, client, vectors):
    uploads, original = [], door.QdrantNominator._upload

    def counted(self, *given):
        uploads.append(self.collection)
        original(self, *given)

    monkeypatch.setattr(door.QdrantNominator, "_upload", counted)
    Index.build(vectors, IDS, config, source="s")
    Index.build(vectors, IDS, config, source="s")
    (name,) = uploads
    client.delete(name, [5, 6])
    Index.build(vectors, IDS, config, source="s")
    assert len(uploads) == 2
    assert client.count(name).count == NUM_ITEMS


def test_another_build_stopped_or_whole_leaves_the_collection_of_an_index_on_disk(
    monkeypatch, tmp_path, config, vectors, queries
):
    """Every build of the same item vectors shared a collection, and deleted what the one before had uploaded.

    An upload that stopped, or a copy of a run indexed with other settings, thus broke an index that worked.
    """
    index = Index.build(vectors, IDS, config, source="s")
    index.save(tmp_path / "index")
    expected = index.search(queries, 10).items.tolist()
    denser = config.model_copy(update={"neighbours": 8})

    def stopped(self, *given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(door.QdrantNominator, "_upload", stopped)
        with pytest.raises(KeyboardInterrupt):
            Index.build(vectors, IDS, denser, source="s")
    assert Index.open(tmp_path / "index", source="s").search(queries, 10).items.tolist() == expected
    Index.build(vectors, IDS, denser, source="s").save(tmp_path / "copy")
    for name in ("index", "copy"):
        assert Index.open(tmp_path / name, source="s").search(queries, 10).items.tolist() == expected


def test_a_collection_of_other_vectors_is_refused(tmp_path, config, client, qdrant, vectors):
    named = config.model_copy(update={"collection": "films"})
    Index.build(vectors, IDS, named, source="first-model").save(tmp_path / "index")
    with pytest.raises(
        CheckpointError, match=r"'films' at .* holds vectors of first-model…, not of second-model…; vec"
    ):
        Index.build(vectors, IDS, named, source="second-model")
    sizes = qdrant.models.VectorParams(size=DIM, distance=qdrant.models.Distance.DOT)
    client.create_collection("mine", vectors_config=sizes)
    with pytest.raises(CheckpointError, match="holds something that hllm did not make"):
        Index.build(vectors, IDS, config.model_copy(update={"collection": "mine"}), source="s")
    with pytest.raises(CheckpointError, match=r"the index in .* is over the vectors of first-model…"):
        Index.open(tmp_path / "index", source="second-model")
    Index.build(-vectors, IDS, named, source="first-model")
    with pytest.raises(CheckpointError, match=r"'films' at .* holds something else than the index was made with"):
        Index.open(tmp_path / "index", source="first-model")
    client.delete_collection("films")
    with pytest.raises(CheckpointError, match=r"'films' at .* is gone; make the index again with hllm index"):
        Index.open(tmp_path / "index", source="first-model")


@pytest.fixture
def listener():
    """A server that notes the API keys of its requests and answers none."""
    keys: list[str | None] = []

    class Noted(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers.get("api-key"))
            self.send_error(404)

        def log_message(self, *given: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Noted)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", keys=keys)
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_index_that_names_a_server_is_refused_and_the_server_hears_nothing(
    monkeypatch, tmp_path, config, listener, vectors, reseal
):
    """Opening a stranger's run sent QDRANT_API_KEY to the address in its manifest, or unpickled a directory there."""
    Index.build(vectors, IDS, config, source="s").save(tmp_path / "index")
    monkeypatch.setenv(door.API_KEY, "secret")
    for url in (f"{listener.url}/internal", "http://user@127.0.0.1:1", str(tmp_path / "qdrant"), "qdrant", ":memory:"):

        def named(manifest: dict[str, Any], url: str = url) -> None:
            manifest["details"]["config"]["url"] = url

        reseal(tmp_path / "index", named)
        with pytest.raises((CheckpointError, ConfigError), match=r"the server|expected the address of a Qdrant server"):
            Index.open(tmp_path / "index", source="s")
    assert listener.keys == []


def test_an_index_is_opened_on_the_server_that_the_caller_names(monkeypatch, tmp_path, config, listener, vectors):
    Index.build(vectors, IDS, config, source="s").save(tmp_path / "index")
    monkeypatch.delenv(door.URL)
    with pytest.raises(
        ConfigError, match=r"QDRANT_URL is not set; the index in .* searches a Qdrant server: set it to"
    ):
        Index.open(tmp_path / "index", source="s")
    monkeypatch.setenv(door.URL, listener.url)
    with pytest.raises((CheckpointError, ConfigError), match=r"127.0.0.1"):
        Index.open(tmp_path / "index", source="s")
    assert listener.keys, "this one is asked"
    for directory in (str(tmp_path / "qdrant"), "qdrant", "file:///qdrant", ":memory:"):
        monkeypatch.setenv(door.URL, directory)
        with pytest.raises(ConfigError, match="expected the address of a Qdrant server, such as http://localhost:6333"):
            Index.open(tmp_path / "index", source="s")


def test_a_key_is_sent_to_its_own_server_alone(monkeypatch, qdrant, listener, vectors):
    monkeypatch.setattr(door, "_CLIENTS", {})
    monkeypatch.setenv(door.API_KEY, "secret")
    config = IndexConfig(kind="qdrant", url=listener.url)
    for other in (None, "http://127.0.0.1:1", listener.url.replace("127.0.0.1", "localhost"), "http://elsewhere"):
        monkeypatch.delenv(door.URL, raising=False)
        if other is not None:
            monkeypatch.setenv(door.URL, other)
        with pytest.raises(
            ConfigError, match=r"QDRANT_API_KEY is for the server in QDRANT_URL, which is .*; it is not"
        ):
            Index.build(vectors, IDS, config, source="s")
    assert listener.keys == []
    monkeypatch.setenv(door.URL, f"{listener.url}/")
    with pytest.warns(UserWarning, match="Api key is used with an insecure connection"), pytest.raises(ConfigError):
        Index.build(vectors, IDS, config, source="s")
    assert set(listener.keys) == {"secret"}


def test_a_collection_file_that_is_damaged_is_said(tmp_path):
    (tmp_path / "index").mkdir()
    for content in ("", "[]", '{"build": 1}', "[" * 100_000):
        (tmp_path / "index" / door.COLLECTION).write_text(content)
        with pytest.raises(CheckpointError, match=r"collection\.json is damaged; make the index again with hllm index"):
            door.collection_of(tmp_path / "index")


def test_a_server_that_is_not_there_is_named(qdrant, vectors):
    config = IndexConfig(kind="qdrant", url="http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"Qdrant at http://127\.0\.0\.1:9 cannot be used: .*Start it, correct url"):
        Index.build(vectors, IDS, config, source="s")


def test_without_the_client_what_to_install_is_said(monkeypatch, vectors):
    def missing(module: str, **names: str):
        raise MissingExtraError(f"{names['purpose']} needs {module}: hllm[{names['extra']}]")

    monkeypatch.setattr(door, "require", missing)
    with pytest.raises(MissingExtraError, match=r"An index in Qdrant needs qdrant_client: hllm\[qdrant\]"):
        Index.build(vectors, IDS, IndexConfig(kind="qdrant", url="http://somewhere-new"), source="s")


def test_settings_that_do_not_go_together_are_refused():
    for directory in ("collections", "/var/collections", "file:///collections", ":memory:", ""):
        with pytest.raises(ValueError, match="expected the address of a Qdrant server, such as http://localhost:6333"):
            IndexConfig(kind="qdrant", url=directory)
    with pytest.raises(ValueError, match='url has no effect on kind = "hnsw"; it is for "qdrant"'):
        IndexConfig(kind="hnsw", url="http://localhost:6333")
