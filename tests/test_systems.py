"""Every folder of `systems/` is whole, and docs/coverage.md says of all published systems what is here."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest

from hllm.recipe.recipe import Recipe

ROOT = Path(__file__).parent.parent
SYSTEMS = ROOT / "systems"
COVERAGE = runpy.run_path(str(ROOT / "docs" / "coverage.py"))
FOLDERS = sorted(path for path in SYSTEMS.iterdir() if path.is_dir() and path.name[0].isdigit())
HEADINGS = ["Parts used", "What differs", "Claim", "Last result", "Not claimed"]


def test_the_page_of_coverage_is_current():
    assert COVERAGE["TARGET"].read_text() == COVERAGE["coverage"](), "run: python docs/generate.py"


def test_the_catalogue_has_56_systems():
    catalogue = tomllib.loads((SYSTEMS / "catalogue.toml").read_text())["system"]
    assert [system["number"] for system in catalogue] == list(range(1, 57))
    assert len({system["name"] for system in catalogue}) == 56
    rows = re.findall(r"^\| (\d+) \|", COVERAGE["coverage"](), flags=re.MULTILINE)
    assert rows == [str(number) for number in range(1, 57)]


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request) -> Path:
    return request.param


def test_a_system_has_a_recipe_a_page_and_a_test(folder):
    assert {path.name for path in folder.iterdir()} >= {"recipe.toml", "system.md", "test_claim.py"}
    assert Recipe.from_toml(folder / "recipe.toml").about.startswith("System ")


def test_a_page_states_its_facts(folder):
    facts = COVERAGE["facts_of"](folder)
    assert facts.keys() == {"number", "paper", "state", "result", "command"}
    assert folder.name.startswith(f"{facts['number']:02}-")
    assert facts["state"] in COVERAGE["STATES"].keys() - {"missing"}
    assert "recipe.toml" in facts["command"]
    named = [word for word in re.split(r"[ ;]+", facts["command"]) if word.endswith(".toml")]
    assert all((ROOT / word).is_file() for word in named)


def test_a_page_has_its_sections_and_names_parts_that_exist(folder):
    page = (folder / "system.md").read_text()
    assert re.findall(r"^## (.+)$", page, flags=re.MULTILINE) == HEADINGS
    parts = page.split("## Parts used")[1].split("## ")[0]
    paths = re.findall(r"`([\w/]+(?:/|\.py))`", parts)
    assert paths
    assert [path for path in paths if not ((ROOT / "src/hllm" / path).exists() or (ROOT / path).exists())] == []
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page):
        assert (folder / target).exists(), target
