"""hllm index."""

import json
import shutil

import pytest

from hllm.retrieval.index import Index
from hllm.retrieval.indexed import source_of


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
    assert 'kind = "qdrant" needs url, such as url=http://localhost:6333' in err


def test_a_run_recommends_by_way_of_a_qdrant_collection(hllm, run, tmp_path):
    pytest.importorskip("qdrant_client")
    before = hllm("recommend", "--run", run, "--user", "u3", "--json")[1]
    settings = ["--set", f"url={tmp_path / 'qdrant'}", "--set", "exact_below=0"]
    code, out, _ = hllm("index", "--run", run, "--kind", "qdrant", *settings, "--json")
    printed = json.loads(out)
    assert code == 0
    assert (printed["config"]["kind"], printed["certificate"]["recall"]) == ("qdrant", 1.0)
    after = hllm("recommend", "--run", run, "--user", "u3", "--json")[1]
    assert [json.loads(line)["item_id"] for line in after.splitlines()] == [
        json.loads(line)["item_id"] for line in before.splitlines()
    ]
