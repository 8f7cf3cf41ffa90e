"""The data sets that are known by name."""

import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.schema import DataConfig
from hllm.errors import ConfigError
from hllm.sources.data_sets import SIZES, fetch_data, locate
from hllm.sources.local import LOCAL


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HLLM_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", LOCAL)
def test_a_set_that_is_not_here_says_which_files_to_put_where(name, home):
    suffix = LOCAL[name].suffix
    message = rf"{name} is not on this machine.*data/{name} lacks interactions\.{suffix} and items\.{suffix}.*columns"
    with pytest.raises(ConfigError, match=message):
        locate(DataConfig(source=name), home)


def test_a_local_set_is_read_with_the_default_columns(home):
    """The files of PixelRec: the item comes first, ids and times are read as text, times are seconds."""
    folder = home / "data" / "pixel-200k"
    folder.mkdir(parents=True)
    (folder / "interactions.csv").write_text("item_id,user_id,timestamp\ni1,u,1600000007\ni0,u,1600000000\n")
    with pytest.raises(ConfigError, match=r"pixel-200k lacks items\.csv\. Put"):
        locate(DataConfig(source="pixel-200k"), home)
    (folder / "items.csv").write_text("item_id,view_number,title,tag,description\ni0,9,A,t,d\ni1,8,B,t,d\n")
    config = DataConfig(source="pixel-200k", text_cols=("title", "tag", "description"))
    interactions, items = locate(config, home)
    dataset = build_dataset(interactions, items, config)
    assert dataset.titles[dataset.history(0)].to_list() == ["A", "B"]
    assert dataset.seconds.tolist() == [1600000000, 1600000007]


def test_a_parquet_set_is_found(home):
    folder = home / "data" / "ml-1m"
    folder.mkdir(parents=True)
    for name in ("interactions", "items"):
        pl.DataFrame({"item_id": [1]}).write_parquet(folder / f"{name}.parquet")
    assert locate(DataConfig(source="ml-1m"), home) == (folder / "interactions.parquet", folder / "items.parquet")


def test_names_that_are_unknown_or_cannot_be_fetched(home):
    with pytest.raises(ConfigError, match=r"data\.source 'pixel-8n' is unknown \(did you mean 'pixel-8m'\?\)"):
        locate(DataConfig(source="pixel-8n"), home)
    with pytest.raises(ConfigError, match="hllm cannot fetch pixel-8m; put its files in place yourself"):
        fetch_data("pixel-8m")


def test_published_sizes():
    """Means as the papers and the sets' own pages give them."""
    means = {name: size.num_interactions / size.num_users for name, size in SIZES.items()}
    assert means["amazon-beauty"] == pytest.approx(8.88, abs=0.01)
    assert means["microlens-50k"] == pytest.approx(7.19, abs=0.01)
    assert means["amazon-books"] == pytest.approx(14.47, abs=0.01)
    assert means["movielens-100k"] == pytest.approx(106.04, abs=0.01)
