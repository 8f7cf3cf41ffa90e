from pathlib import Path

import pytest

from hllm.data.schema import DataConfig
from hllm.errors import ConfigError, MissingExtraError
from hllm.extras import require
from hllm.sources.data_sets import locate


def test_a_missing_extra_says_how_to_install_it():
    with pytest.raises(
        MissingExtraError, match=r'The report needs the package .no_such_module.*: pip install "hllm\[report\]"'
    ):
        require("no_such_module", extra="report", purpose="The report")


def test_tables_that_are_not_named_or_named_twice(tmp_path):
    for config, message in (
        (DataConfig(), 'name a source such as "movielens-100k", or the paths'),
        (DataConfig(source="movielens-100k", items="x.csv"), "give either source, or interactions and items, not both"),
        (DataConfig(source="movielens"), r"'movielens' is unknown \(did you mean 'movielens-100k'\?\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            locate(config, tmp_path)
    named = DataConfig(interactions="a.csv", items="/b.csv")
    assert locate(named, tmp_path) == (tmp_path / "a.csv", Path("/b.csv"))
