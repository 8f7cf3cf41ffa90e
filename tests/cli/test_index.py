"""hllm index."""

import json
import shutil

import numpy as np
import pytest

from hllm.retrieval.index import index as indexes
from hllm.retrieval.index import qdrant
from hllm.retrieval.index.index import Index
from hllm.retrieval.index.qdrant import collection_of
from hllm.retrieval.index.retriever import source_of

# The store that answers in place of a server warns of settings that only a server heeds.
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")


@pytest.fixture
def run(tmp_path, trained_folder):
    return shutil.copytree(trained_folder, tmp_path / "run")


def test_an_index_is_made_next_to_the_run_with_its_certificate(hllm, run):
    code, out, err = hllm("index", "--run", run)
    assert (code, err) == (0, "")
    assert f"{run / 'index'}: exact, 30 items" in out
    assert "recall@10 1.0000 of exact search (lowest 1.00), over 12 queries: 12 of 12 users" in out
    index = Index.open(run / "index", source=source_of(run / "table"))
    assert index.num_items == 30
    assert index.certificate.recall == 1
    assert index.item_ids[0] == "i0"


def test_an_approximate_index_as_json_replaces_the_one_before(hllm, run):
    pytest.importorskip("faiss")
    assert hllm("index", "--run", run)[0] == 0
    code, out, _ = hllm("index", "--run", run, "--kind", "hnsw", "--set", "ef_search=64", "--json")
    printed = json.loads(out)
    assert code == 0
    assert (printed["config"]["kind"], printed["config"]["ef_search"]) == ("hnsw", 64)
    assert printed["certificate"]["num_items"] == 30
    assert Index.open(run / "index", source=source_of(run / "table")).config.kind == "hnsw"


def test_a_wrong_kind_or_setting_is_refused_before_the_run_is_opened(hllm, tmp_path):
    code, _, err = hllm("index", "--run", tmp_path, "--kind", "hsnw")
    assert code == 2
    assert "hllm: ConfigError: hllm index: 'kind': Input should be 'exact', 'flat', 'hnsw', 'ivf-pq' or 'qdrant'" in err
    code, _, err = hllm("index", "--run", tmp_path, "--set", "ef_serch=3")
    assert code == 2
    assert "unknown key 'ef_serch' (did you mean 'ef_search'?)" in err
    code, _, err = hllm("index", "--run", tmp_path, "--kind", "qdrant")
    assert code == 2
    assert "is not a run: it has no recipe.json" in err, "the server may be that of QDRANT_URL"
    code, _, err = hllm("index", "--run", tmp_path, "--kind", "qdrant", "--set", "url=collections")
    assert code == 2
    assert "expected the address of a Qdrant server, such as http://localhost:6333" in err


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a store of Qdrant's client, which answers in place of a server."""
    client = pytest.importorskip("qdrant_client").QdrantClient(path=str(tmp_path / "qdrant"))
    address = "http://qdrant.example:6333"
    monkeypatch.setattr(qdrant, "_CLIENTS", {})
    monkeypatch.setenv(qdrant.URL, address)
    qdrant.use_client(address, client)
    yield client
    client.close()


def test_a_run_recommends_by_way_of_a_qdrant_collection(hllm, run, server):
    before = hllm("recommend", "--run", run, "--user", "u3", "--json")[1]
    code, out, _ = hllm("index", "--run", run, "--kind", "qdrant", "--set", "exact_below=0", "--json")
    printed = json.loads(out)
    assert code == 0
    assert (printed["config"]["kind"], printed["certificate"]["recall"]) == ("qdrant", 1.0)
    after = hllm("recommend", "--run", run, "--user", "u3", "--json")[1]
    assert [json.loads(line)["item_id"] for line in after.splitlines()] == [
        json.loads(line)["item_id"] for line in before.splitlines()
    ]


def test_a_refused_qdrant_index_leaves_the_one_before_and_a_saved_one_names_it(hllm, run, server, monkeypatch):
    """The new index was uploaded in place of the old one's collection before its recall could refuse it."""
    command = ["index", "--run", run, "--kind", "qdrant", "--set", "exact_below=0"]
    assert hllm(*command)[0] == 0
    name = collection_of(run / "index")
    before = hllm("recommend", "--run", run, "--user", "u3", "--json")
    with monkeypatch.context() as patch:
        patch.setattr(indexes, "recall_of", lambda found, exact: np.zeros(12))
        code, _, err = hllm(*command, "--set", "neighbours=8")
        assert (code, "recall@10 of the qdrant index is 0.0000, below the 0.95" in err) == (2, True)
        assert hllm(*command)[0] == 2, "of the same content, which was there before"
    assert hllm("recommend", "--run", run, "--user", "u3", "--json") == before
    collections = server.get_collections().collections
    assert [each.name for each in collections] == [name]
    code, _, err = hllm(*command, "--set", "neighbours=8")
    assert code == 0
    assert f"the Qdrant collection {name!r} is not this run's any more" in err
