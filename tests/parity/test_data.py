"""From the tables to windows, histories and token ids, against what the reference made of the same tables."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hllm.batches.windows import WindowConfig, training_windows
from hllm.data.build import build_dataset
from hllm.data.prompt import PromptConfig, render
from hllm.data.schema import DataConfig
from hllm.data.split import split_dataset
from hllm.errors import ConfigError
from hllm.evaluation.evaluate import queries
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.fusion import calendar
from hllm.models.item.text import TextItemConfig
from hllm.recipe.recipe import Recipe

FOLDER = Path(__file__).parent / "fixtures" / "data"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """What a user would write, and no more."""
    values = {
        "about": "the reference's data",
        "compat": "reference",
        "data": {"text_cols": ["title", "tag", "description"], "items_without_interactions": "drop"},
        "model": {
            "max_history": EXPECTED["settings"]["MAX_ITEM_LIST_LENGTH"],
            "item": {
                "kind": "llm",
                "backbone": "any",
                "prompt": {"max_tokens": EXPECTED["settings"]["MAX_TEXT_LENGTH"]},
            },
            "user": {"kind": "llm", "backbone": "any"},
        },
        "stages": [{}],
    }
    return Recipe.from_dict(values, where="test")


def test_items_are_read_as_the_reference_reads_them(recipe):
    """What these options do is tested by hand-made positions and cuts, in tests/models/test_text.py."""
    item = recipe.model.item
    assert (item.positions, item.prompt.cut_closing) == ("end", True)
    assert (TextItemConfig(backbone="x").positions, PromptConfig().cut_closing) == ("start", False)


@pytest.fixture(scope="module")
def world(recipe):
    dataset = build_dataset(FOLDER / "interactions.csv", FOLDER / "items.csv", recipe.data)
    return dataset, split_dataset(dataset, recipe.split)


@pytest.fixture(scope="module")
def reference_item(world) -> dict[int, str]:
    """From the reference's numbers to the ids of the file."""
    return {index: item_id for item_id, index in EXPECTED["item_ids"].items()}


def test_the_catalogue_is_what_was_interacted_with(world):
    dataset, _ = world
    assert set(dataset.item_ids) == set(EXPECTED["item_ids"]) - {"[PAD]"}
    assert (dataset.num_items, dataset.num_users) == (EXPECTED["item_num"] - 1, EXPECTED["user_num"] - 1)


def test_texts_and_token_ids(world, recipe):
    """Empty and missing cells, blanks, cells that read NA, an item without a row, several scripts, truncation."""
    dataset, _ = world
    expected = {item["item_id"]: item for item in EXPECTED["items"]}
    texts = render(dataset.items, dataset.text_cols, recipe.model.item.prompt)
    tokenize, _ = load_tokenizer(FOLDER / "tokenizer", recipe.model.item.prompt.max_tokens)
    for item_id, text, tokens in zip(dataset.item_ids, texts, tokenize(texts), strict=True):
        assert text == expected[item_id]["text"], item_id
        assert tokens == expected[item_id]["token_ids"], item_id


@pytest.mark.parametrize(("cut", "key"), [("blocks", "train_windows"), ("latest", "train_windows_data_split_false")])
def test_training_windows_and_their_times(world, recipe, reference_item, cut, key):
    """Ours leaves out windows of one item, which contribute no loss."""
    dataset, split = world
    config = WindowConfig(max_history=recipe.model.max_history, windows=cut)
    items, seconds = dataset.item_index[split.training], dataset.seconds[split.training]
    ours = sorted(
        (dataset.item_ids[items[start:end]].to_list(), seconds[start:end].tolist())
        for start, end in training_windows(dataset, split, config).bounds
    )
    size = config.max_history + 1
    theirs = sorted(
        ([reference_item[i] for i in window["items"]][-size:], window["timestamps"][-size:])
        for window in EXPECTED[key]
        if len(window["items"]) > 1
    )
    assert ours == theirs


def test_time_features():
    windows = EXPECTED["train_windows"]
    for window in windows:
        ours = calendar(torch.tensor(window["timestamps"]))
        assert ours.tolist() == window["time_ids"][-len(window["timestamps"]) :]
    assert calendar(torch.tensor([0])).tolist() == [[1970, 1, 1, 0, 0, 0]]


@pytest.mark.parametrize(("part", "key"), [("validation", "valid"), ("test", "test")])
def test_histories_and_targets(world, recipe, reference_item, part, key):
    """A user with two interactions is asked for the first of them with no history, as there."""
    dataset, split = world
    asked = queries(dataset, split, part)
    ours = {
        dataset.users[int(user)]: (dataset.item_ids[history].to_list(), dataset.item_ids[int(target)])
        for user, history, target in zip(asked.users, asked.histories, asked.targets, strict=True)
    }
    user_id = {index: name for name, index in EXPECTED["user_ids"].items()}
    theirs = {
        user_id[row["user"]]: ([reference_item[i] for i in row["history"]], reference_item[row["target"]])
        for row in EXPECTED[key]
    }
    assert ours == theirs
    assert any(not history for history, _ in theirs.values()) == (part == "validation")


def test_compat_fills_in_what_a_recipe_leaves_out_and_nothing_else(recipe):
    stage = recipe.stages[0]
    assert recipe.model.item.prompt.prefix == EXPECTED["settings"]["item_prompt"]
    assert (stage.loss.mask, stage.decay, stage.betas, stage.max_gradient_norm) == (
        "cosine",
        "all",
        (0.9, 0.999),
        np.inf,
    )
    assert (stage.negatives.kind, stage.negatives.num_sampled) == ("pooled", 64 * 7)
    values = json.loads(recipe.model_dump_json()) | {"compat": "reference"}
    values["stages"][0]["objective"]["loss"]["mask"] = "id"
    again = Recipe.from_dict(values, where="test")
    assert again.stages[0].loss.mask == "id"
    assert Recipe.from_dict(json.loads(again.model_dump_json()), where="test") == again
    hstu = {"kind": "hstu", "dim": 8, "num_heads": 2}
    plain = values | {"compat": "none", "model": {"item": {"kind": "id"}, "user": hstu}, "stages": [{}]}
    assert Recipe.from_dict(plain, where="test").model.user.relative_bias
    assert not Recipe.from_dict(plain | {"compat": "reference"}, where="test").model.user.relative_bias


def test_compat_leaves_the_options_of_another_split_alone(recipe):
    values = json.loads(recipe.model_dump_json())
    assert recipe.split.min_length == 2
    values["split"] = {"kind": "ratio", "validation_share": 0.1, "test_share": 0.1}
    assert Recipe.from_dict(values, where="test").split.min_length == 3


def test_compat_fills_tables_key_by_key_and_leaves_what_is_wrong_to_be_explained(recipe):
    values = json.loads(recipe.model_dump_json())
    values["stages"] = [{"batch_size": 64, "micro_batch_size": 8, "objective": {"negatives": {"exclude_own": False}}}]
    (stage,) = Recipe.from_dict(values, where="test").stages
    assert (stage.negatives.kind, stage.negatives.num_sampled, stage.negatives.exclude_own) == ("pooled", 8 * 7, False)
    built = Recipe(
        about="made by a program", compat="reference", data=DataConfig(), model=recipe.model, stages=(stage,)
    )
    assert built.stages[0].loss.mask == "cosine"
    for wrong, message in (
        ({"data": "x"}, "data"),
        ({"stages": {"epochs": 1}}, "stages"),
        ({"model": {}}, "'model.item' is missing"),
    ):
        with pytest.raises(ConfigError, match=message):
            Recipe.from_dict(values | wrong, where="test")
