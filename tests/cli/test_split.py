"""hllm data split."""

import json

import pytest

from hllm.data.build import build_dataset
from hllm.data.cuts.held_out_users import UserSplit
from hllm.data.schema import DataConfig
from hllm.data.split import split_dataset
from tests.conftest import recipe_values


@pytest.fixture
def recipe(tmp_path, interactions, items, tiny_llama, tiny_bert):
    """A recipe of the tiny world, in a file."""
    interactions.write_parquet(tmp_path / "events.parquet")
    items.write_parquet(tmp_path / "items.parquet")
    values = recipe_values(tiny_bert, tiny_llama)
    values["data"] = {"interactions": "events.parquet", "items": "items.parquet"}
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(values))
    return path


def test_the_parts_of_a_split_are_counted(hllm, recipe):
    """12 users and 138 interactions: two of each user are targets."""
    code, out, err = hllm("data", "split", recipe)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert "split leave-one-out" in out
    assert ["training", "114", "82.6%", "12"] in rows
    assert ["validation", "12", "8.7%", "12"] in rows
    assert ["none:", "in", "histories", "alone", "0", "0.0%"] in rows


def test_a_split_as_json_follows_overrides(hllm, recipe, interactions, items):
    code, out, _ = hllm("data", "split", recipe, "--json", "--set", "split.kind=users", "--set", "split.seed=3")
    expected = split_dataset(build_dataset(interactions, items, DataConfig()), UserSplit(seed=3))
    found = json.loads(out)
    assert code == 0
    assert (found["kind"], found["fingerprint"]) == ("users", expected.fingerprint)
    assert (found["validation"], found["test"], found["training_users"]) == (1, 1, 10)


def test_items_that_training_does_not_see_are_counted(hllm, recipe):
    args = ("data", "split", recipe, "--set", "split.kind=items", "--set", "split.test_share=0.2")
    code, out, _ = hllm(*args)
    assert code == 0
    assert "7 of 30 items are withheld: training does not see them at all" in out, "0.1 and 0.2 of 25"
    assert json.loads(hllm(*args, "--json")[1])["withheld_items"] == 7
    assert "withheld" not in hllm("data", "split", recipe)[1]


def test_a_split_that_the_data_do_not_bear_is_wrong_input(hllm, recipe):
    code, _, err = hllm("data", "split", recipe, "--set", "split.kind=temporal", "--set", "data.time_unit=none")
    assert code == 2
    assert "only order what one user did" in err
    code, _, err = hllm("data", "split", recipe, "--set", "split.kind=users", "--set", "split.targets=all")
    assert code == 2
    assert "unknown key 'split.users.targets'" in err
