import importlib
import re
import runpy
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from hllm.cli.main import app
from hllm.jobs.tuning.search import SearchConfig
from hllm.recipe.recipe import Recipe
from tests.conftest import recipe_values

ROOT = Path(__file__).parent.parent
IN_DOCS = sorted((ROOT / "docs").rglob("*.md"))
NOTES = sorted((ROOT / "benchmarks" / "notes").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *IN_DOCS, *NOTES]


def test_the_page_of_settings_is_current(generate):
    assert generate.TARGET.read_text() == generate.settings(), "run: python docs/generate.py"
    assert "learning_rate" in generate.settings()


def test_the_page_of_reliability_is_that_of_the_stored_record_without_failures():
    page = runpy.run_path(str(ROOT / "docs" / "reliability.py"))
    record = page["stored"]()
    assert page["TARGET"].read_text() == page["page"](record), "run: python docs/generate.py"
    assert {name for name, row in record["rows"].items() if not row["trials"] or row["failures"]} == set()
    assert record["rows"].keys() == page["ROWS"].keys()


def test_the_page_of_recipes_is_current(generate):
    assert generate.RECIPES_TARGET.read_text() == generate.recipes(), "run: python docs/generate.py"
    assert "**baichuan2-7b**" in generate.recipes()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_map_of_the_house_is_current(generate):
    assert generate.CONTRIBUTING.read_text() == generate.contributing(), "run: python docs/generate.py"
    assert "| `data/importing` |" in generate.house_map()


def test_every_page_is_in_the_navigation():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    sections = [page for section in site["nav"] for pages in section.values() for page in pages]
    listed = [page if isinstance(page, str) else next(iter(page.values())) for page in sections]
    assert len(site["nav"]) == 6
    assert {(ROOT / "docs" / page).exists() or (ROOT / page).exists() for page in listed} == {True}
    assert {page.relative_to(ROOT / "docs").as_posix() for page in IN_DOCS} <= set(listed)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_and_modules_that_a_page_names_exist(page):
    """A file is named by its path from the repository, from src/hllm, or from the page."""
    text = re.sub(r"https?://\S+", "", page.read_text())
    roots = (ROOT, ROOT / "src" / "hllm", page.parent)
    for name in re.findall(r"(?<![\w/.-])[\w.-]+(?:/[\w.-]+)+\.(?:py|sh)\b|(?<![\w/.-])recipes/[\w/.-]+\.toml", text):
        assert any((root / name).exists() for root in roots), name
    for module, names in re.findall(r"^from (hllm[\w.]*) import ([\w, ]+)", text, re.M):
        assert [name for name in names.split(", ") if not hasattr(importlib.import_module(module), name.strip())] == []
    for dotted in re.findall(r"(?<![\w./])hllm(?:\.(?!toml)[a-z]\w*)+(?:\.[A-Z]\w*)?", text):
        assert _exists(dotted), dotted


def _exists(dotted: str) -> bool:
    """Tell whether a dotted name is a module of hllm, or stands in one."""
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        return hasattr(importlib.import_module(module), name)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_that_a_page_shows_have_these_verbs_and_options(page):
    """Commands stand in blocks, one a line, or between backticks."""
    text = page.read_text().replace("\\\n", " ")
    shown = re.findall(r"^[$ ]*hllm ([a-z].*)$", text, re.M) + re.findall(r"`hllm ([a-z][^`]*)`", text)
    for command in shown:
        verb, words = typer.main.get_command(app), shlex.split(command, comments=True)
        while words and words[0] in getattr(verb, "commands", {}):
            verb = verb.commands[words.pop(0)]
        assert not hasattr(verb, "commands") or words == ["…"], command
        known = {name for parameter in verb.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} - {"--help"} <= known, command


@pytest.mark.parametrize("page", [page for page in PAGES if "```toml" in page.read_text()], ids=lambda p: p.name)
def test_what_pages_show_of_a_recipe_is_valid(page):
    """All that a page shows is put into one recipe; a table [stages.x] belongs to every stage."""
    values = recipe_values(Path("item-model"), Path("user-model"))
    for text in re.findall(r"^```toml\n(.*?)^```$", page.read_text(), re.M | re.S):
        shown = tomllib.loads(text)
        if "space" in shown:
            SearchConfig.from_dict(shown, where=page.name)
        else:
            values = _merged(values, shown)
    if "start" in values:  # the weights are not at hand: as if they had been read
        values["start"]["checkpoint"] = "0" * 64
    Recipe.from_dict(values, where=page.name)


def _merged(values, shown):
    """Return `values` with what is shown: tables by their keys, the stages that are shown in the place of the first ones."""
    if isinstance(values, list) and isinstance(shown, dict):
        return [_merged(each, shown) for each in values]
    if isinstance(values, dict) and isinstance(shown, dict):
        kept = {} if {"kind"} & shown.keys() and shown["kind"] != values.get("kind") else values
        return kept | {key: _merged(kept.get(key), value) for key, value in shown.items()}
    return shown
