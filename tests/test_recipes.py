"""Every recipe in the repository loads; the shell scripts name recipes and verbs that exist."""

import re
from pathlib import Path

import pytest

from hllm.cli.main import app
from hllm.errors import ConfigError
from hllm.training.recipe import Recipe

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


def test_there_are_recipes():
    assert {p.name for p in RECIPES} >= {"demo.toml", "sasrec-movielens.toml", "smoke.toml"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_a_recipe_loads(path):
    recipe = Recipe.from_toml(path)
    assert len(recipe.about) > 20
    assert recipe.data.source == "movielens-100k"


def test_a_recipe_before_its_data_is_fetched_says_how_to_fetch_it(tmp_path, monkeypatch):
    from hllm.api import fit_recipe

    monkeypatch.setenv("HLLM_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="movielens-100k is not on this machine yet: hllm data fetch movielens-100k"):
        fit_recipe(ROOT / "recipes" / "demo.toml", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", sorted((ROOT / "runs").glob("*.sh")), ids=lambda p: p.name)
def test_a_script_names_recipes_that_exist(script):
    text = script.read_text()
    words = text.split()
    named = [word for word in words if word.endswith(".toml")]
    assert named
    assert all((ROOT / word).is_file() for word in named)
    verbs = re.findall(r"^\s*hllm (\w+)", text, flags=re.MULTILINE)
    known = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert verbs
    assert set(verbs) <= known
