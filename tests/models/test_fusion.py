import datetime
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from hllm.api import Recommender
from hllm.data.build import build_dataset
from hllm.data.schema import DataConfig
from hllm.errors import ConfigError, DataError, HllmWarning
from hllm.models.fusion import Fusion, InputsConfig, calendar
from hllm.recipe.recipe import Recipe
from hllm.training.fit import fit
from tests.conftest import recipe_values


def test_the_calendar_against_the_standard_library(rng):
    """From the year 1 to 9999, leap days and the moments before midnight included."""
    first, last = -62_135_596_800, 253_402_300_799
    moments = [first, last, 0, -1, 951_782_399, 951_782_400, 4_107_542_399, *rng.integers(first, last, 2000).tolist()]
    expected = [
        (t := datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(seconds=s)) and
        [t.year, t.month, t.day, t.hour, t.minute, t.second]
        for s in moments
    ]  # fmt: skip
    assert calendar(torch.tensor(moments)).tolist() == expected


@torch.no_grad()
def test_what_is_added_is_the_sum_of_the_parts_that_were_asked_for():
    torch.manual_seed(0)
    fusion = Fusion(InputsConfig(item_id=True, timestamp=2, action=True), 4, num_items=5, num_actions=3)
    vectors, items = torch.randn(1, 2, 4), torch.tensor([[1, 4]])
    times = torch.tensor([[0, 31 * 86_400]])  # January and February 1970
    actions = torch.tensor([[2, 0]])
    added = fusion(vectors, items, times, actions) - vectors
    for position, month in enumerate((1, 2)):
        clock = torch.cat([fusion.times[0].weight[1970], fusion.times[1].weight[month]])
        expected = fusion.items.weight[items[0, position]] + fusion.actions.weight[actions[0, position]]
        assert torch.allclose(added[0, position], expected + fusion.time_mlp(clock), atol=1e-6)


@torch.no_grad()
def test_an_item_that_came_after_training_has_no_vector_of_its_id():
    fusion = Fusion(InputsConfig(item_id=True), 4, num_items=5, num_actions=0)
    vectors = torch.randn(1, 2, 4)
    nothing = torch.zeros(1, 2, dtype=torch.long)
    fused = fusion(vectors, torch.tensor([[5, 2]]), nothing, nothing)
    assert torch.equal(fused[0, 0], vectors[0, 0])
    assert not torch.equal(fused[0, 1], vectors[0, 1])


@pytest.fixture
def timed_log(interactions: pl.DataFrame) -> pl.DataFrame:
    hours = 3600 * np.arange(len(interactions)) + 1_700_000_000
    actions = ["buy" if row % 3 else "click" for row in range(len(interactions))]
    return interactions.with_columns(timestamp=pl.Series(hours), action=pl.Series(actions))


def timed_recipe(tiny_llama, tiny_bert, **inputs) -> Recipe:
    values = recipe_values(tiny_bert, tiny_llama)
    values["model"]["inputs"] = inputs
    values["stages"] = [values["stages"][0] | {"epochs": 1}]
    if inputs.get("action"):
        values["data"]["action_col"] = "action"
    return Recipe.from_dict(values, where="test")


@pytest.mark.parametrize(
    "inputs", [{"item_id": True}, {"timestamp": 4}, {"action": True}, {"item_id": True, "timestamp": 6, "action": True}]
)
def test_inputs_are_trained_stored_and_read_when_recommending(
    tmp_path, timed_log, items, tiny_llama, tiny_bert, inputs
):
    """The catalogue's targets stay as they are; another time or action gives another user."""
    recipe = timed_recipe(tiny_llama, tiny_bert, **inputs)
    recommender = Recommender.fit(timed_log, items, recipe=recipe, out=tmp_path / "run")
    again = Recommender.load(tmp_path / "run")
    assert again.recommend(users=["u3"], k=5).equals(recommender.recommend(users=["u3"], k=5))
    changed = timed_log.with_columns(pl.col("timestamp") + 10_000_000, action=pl.lit("buy"))
    again = Recommender(replace(again.bundle, dataset=build_dataset(changed, items, recipe.data)))
    differs = not again.recommend(users=["u3"], k=5).equals(recommender.recommend(users=["u3"], k=5))
    assert differs == bool(inputs.get("timestamp") or inputs.get("action"))


def test_histories_need_times_for_a_model_that_reads_them(tmp_path, timed_log, items, tiny_llama, tiny_bert):
    recipe = timed_recipe(tiny_llama, tiny_bert, timestamp=4)
    recommender = Recommender.fit(timed_log, items, recipe=recipe, out=tmp_path / "run")
    with pytest.raises(DataError, match="reads when things happened, which a bare list of items does not say"):
        recommender.recommend(histories=[["i1", "i2"]])
    with pytest.raises(DataError, match=r"times go from the year \d+ to \d+, .* set data\.time_unit = \"ms\""):
        recommender.recommend(histories=[["i1"]], times=[[1_700_000_000_000]])
    with pytest.raises(ConfigError, match="times belong to histories"):
        recommender.recommend(users=["u3"], times=[[5]])
    with pytest.raises(DataError, match="one number for each item of each history"):
        recommender.recommend(histories=[["i1", "i2"]], times=[[5]])
    user = recommender.dataset.history(3)
    ids = recommender.dataset.item_ids[user].to_list()
    start = recommender.dataset.offsets[3]
    times = recommender.dataset.seconds[start : start + len(ids)].tolist()
    by_history = recommender.recommend(histories=[ids], times=[times], k=5)
    assert by_history["item_id"].to_list() == recommender.recommend(users=["u3"], k=5)["item_id"].to_list()


def test_times_that_only_order_and_actions_without_a_column_are_refused(
    tmp_path, timed_log, items, tiny_llama, tiny_bert
):
    recipe = timed_recipe(tiny_llama, tiny_bert, timestamp=4)
    positions = recipe.model_copy(update={"data": DataConfig(time_unit="none")})
    with pytest.raises(DataError, match="reads when things happened, but the interactions' times only order them"):
        fit(timed_log, items, positions, tmp_path / "run", base=tmp_path)
    milliseconds = timed_log.with_columns(pl.col("timestamp") * 1000)
    with (
        pytest.raises(DataError, match="reads the years 0 to 2099; if they are in milliseconds"),
        pytest.warns(HllmWarning, match='is it data.time_unit = "ms"?'),
    ):
        fit(milliseconds, items, recipe, tmp_path / "run", base=tmp_path)
    actions = timed_recipe(tiny_llama, tiny_bert, action=True)
    without = actions.model_copy(update={"data": DataConfig()})
    with pytest.raises(ConfigError, match=r"model\.inputs\.action = true needs data\.action_col"):
        fit(timed_log, items, without, tmp_path / "run", base=tmp_path)


def test_numbers_and_dates_agree_on_the_second(items):
    base = pl.DataFrame({"user_id": ["u"] * 4, "item_id": ["i1", "i2", "i3", "i4"]})
    seconds = [1_700_000_000, 1_700_000_001, 1_700_000_002, 1_700_003_600]
    made = {
        "s": pl.Series(seconds),
        "ms": pl.Series([1000 * s for s in seconds]),
        "us": pl.Series([1_000_000 * s for s in seconds]),
        "dates": pl.Series([datetime.datetime.fromtimestamp(s, datetime.UTC).replace(tzinfo=None) for s in seconds]),
        "text": pl.Series([datetime.datetime.fromtimestamp(s, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S") for s in seconds]),
        "fractions": pl.Series([s + 0.25 for s in seconds]),
    }  # fmt: skip
    for name, column in made.items():
        unit = name if name in ("s", "ms", "us") else "s"
        dataset = build_dataset(base.with_columns(timestamp=column), items, DataConfig(time_unit=unit))
        assert dataset.seconds.tolist() == seconds, name
