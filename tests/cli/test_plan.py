"""hllm train --dry-run."""

import json

import pytest

from hllm.jobs.planning import speed
from tests.conftest import recipe_values


@pytest.fixture
def recipe(tmp_path, monkeypatch, interactions, items, tiny_llama, tiny_bert):
    """A recipe of the tiny world, in a file."""
    monkeypatch.setattr(speed, "_SECONDS", 0.01)
    monkeypatch.setenv("HLLM_HOME", str(tmp_path / "home"))
    interactions.write_parquet(tmp_path / "events.parquet")
    items.write_parquet(tmp_path / "items.parquet")
    values = recipe_values(tiny_bert, tiny_llama)
    values["data"] = {"interactions": "events.parquet", "items": "items.parquet"}
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(values))
    return path


def test_a_dry_run_prints_what_it_will_cost_and_writes_nothing(hllm, recipe):
    before = sorted(recipe.parent.rglob("*"))
    code, out, err = hllm("train", recipe, "--dry-run")
    assert (code, err) == (0, "")
    assert "An estimate; nothing was trained or written." in out
    assert "counted: 12 users, 30 items, 138 interactions" in out
    rows = [line.split() for line in out.splitlines()]
    assert [row[:2] for row in rows if row[:1] in (["user"], ["both"])][-2:] == [["user", "2"], ["both", "2"]]
    assert "of the" in out
    assert "MISSING" not in out
    assert sorted(recipe.parent.rglob("*")) == before


def test_a_dry_run_as_json_follows_overrides(hllm, recipe):
    code, out, _ = hllm("train", recipe, "--dry-run", "--json", "--set", "stages.1.epochs=5")
    plan = json.loads(out)
    assert code == 0
    assert [stage["epochs"] for stage in plan["stages"]] == [2, 5]
    assert plan["flops"] == pytest.approx(sum(s["training_flops"] + s["other_flops"] for s in plan["stages"]))
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]))
    assert plan["missing"] == []


def test_a_dry_run_lists_what_is_missing(hllm, recipe):
    source = ("--set", "data.source=pixel-200k", "--set", "data.interactions=", "--set", "data.items=")
    code, out, _ = hllm("train", recipe, "--dry-run", *source, "--set", "model.user.backbone=baichuan2-7b")
    assert code == 0
    assert "pixel-200k, published sizes: 200,000 users, 96,282 items" in out
    assert "MISSING pixel-200k is not on this machine" in out
    assert "MISSING baichuan2-7b is not on this machine" in out
    assert "assumes pixel-200k: published numbers" in out


def test_without_out_training_says_what_is_missing(hllm, recipe):
    code, out, err = hllm("train", recipe)
    assert (code, out) == (2, "")
    assert "ConfigError: give --out, the run's directory; or --dry-run, for an estimate" in err


def test_a_wrong_recipe_is_refused_in_a_dry_run_too(hllm, recipe):
    code, _, err = hllm("train", recipe, "--dry-run", "--set", "model.user.num_layers=7")
    assert code == 2
    assert "num_layers is 7, but the model in" in err
