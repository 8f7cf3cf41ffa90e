"""Every recipe in the repository loads; the shell scripts name recipes and verbs that exist."""

import re
import tomllib
from pathlib import Path

import pytest

from hllm.cli.main import app
from hllm.errors import ConfigError
from hllm.recipe.recipe import Recipe

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "recipes"
RESULTS = FOLDER / "results.toml"
RECIPES = sorted(path for path in FOLDER.rglob("*.toml") if path != RESULTS)
SYSTEMS = sorted((ROOT / "systems").glob("*/recipe.toml"))


def test_there_are_recipes():
    assert {p.name for p in RECIPES} >= {"demo.toml", "sasrec-movielens.toml", "smoke.toml"}


@pytest.mark.parametrize("path", RECIPES + SYSTEMS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_recipe_loads_and_is_planned(generate, path):
    """As on a machine with nothing fetched, the largest too: outlines take no memory."""
    plan, recipe = generate.plan_of(path)
    assert len(recipe.about) > 20
    assert plan.flops > 0
    assert all(stage.steps > 0 for stage in plan.stages)
    said = " ".join(plan.missing)
    assert all(f"{name} is not on this machine" in said for name in generate.needs_of(recipe))
    assert len(plan.missing) == len(generate.needs_of(recipe))
    assert not plan.counted


def test_recipes_of_one_data_set_read_it_alike():
    """Runs of two of them can then stand in one table; times that are an order are never taken for seconds."""
    found: dict[str, set] = {}
    for path in (FOLDER / "small").rglob("*.toml"):
        data = Recipe.from_toml(path).data
        found.setdefault(data.source, set()).add((data.time_unit, data.items_without_interactions))
    assert len(found) > 2
    assert all(len(ways) == 1 for ways in found.values()), found


def test_recipes_of_the_paper_have_its_settings():
    """Rows of the authors' scripts, reproduce/*.sh: batch, negatives, rates, epochs, stops."""
    found = {}
    for name in ("pixel-8m/hllm-1b", "books/hllm-1b-512", "books/hllm-7b-28k", "books/sasrec", "books/hstu-large-28k"):
        recipe = Recipe.from_toml(FOLDER / "paper" / f"{name}.toml")
        (stage,) = recipe.stages
        negatives = (stage.negatives.kind, stage.negatives.num_sampled, stage.negatives.per_position)
        found[name] = (
            recipe.model.max_history, stage.windows, stage.batch_size, *negatives, stage.learning_rate,
            stage.weight_decay, stage.schedule, stage.warmup, stage.epochs, recipe.seed,
        )  # fmt: skip
        assert (stage.decay, stage.betas, stage.max_gradient_norm) == ("all", (0.9, 0.999), float("inf"))
        assert (stage.loss.mask, recipe.select_by) == ("cosine", "ndcg@200")
    assert found == {
        "pixel-8m/hllm-1b": (10, "blocks", 512, "pooled", 5632, False, 1e-4, 0.01, "cosine", 0.1, 5, 2020),
        "books/hllm-1b-512": (50, "blocks", 128, "pooled", 512, False, 1e-4, 0.01, "cosine", 0.1, 5, 2020),
        "books/hllm-7b-28k": (55, "latest", 512, "pooled", 28672, False, 1e-4, 0.01, "cosine", 0.15, 5, 42),
        "books/sasrec": (50, "blocks", 128, "sampled", 512, True, 1e-3, 0.0, "constant", 0.0, 201, 2020),
        "books/hstu-large-28k": (55, "latest", 512, "pooled", 28672, False, 1e-3, 0.0, "constant", 0.0, 201, 42),
    }


def test_results_are_of_recipes_that_exist():
    results = tomllib.loads(RESULTS.read_text())
    assert results
    for name, result in results.items():
        assert (FOLDER / name).is_file(), name
        assert set(result) == {"metrics", "command", "date", "machine"}, name


def test_a_recipe_before_its_data_is_fetched_says_how_to_fetch_it(tmp_path, monkeypatch):
    from hllm.api import fit_recipe

    monkeypatch.setenv("HLLM_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="movielens-100k is not on this machine yet: hllm data fetch movielens-100k"):
        fit_recipe(ROOT / "recipes" / "demo.toml", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.sh")), ids=lambda p: p.name)
def test_a_script_names_recipes_that_exist(script):
    text = script.read_text()
    words = text.split()
    named = [word for word in words if word.endswith(".toml")]
    assert named
    assert all((ROOT / word).is_file() for word in named)
    verbs = re.findall(r"^\s*hllm ([\w-]+)", text, flags=re.MULTILINE)
    known = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert verbs
    assert set(verbs) <= known
