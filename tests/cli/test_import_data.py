import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hllm.cli.main import app, main

SAMPLES = Path(__file__).parents[1] / "data" / "importing" / "layouts"
PAGE = Path(__file__).parent.parent.parent / "docs" / "importing.md"


def run(*arguments):
    return CliRunner().invoke(app, ["data", "import", *map(str, arguments)])


def test_an_import_prints_counts_notes_and_the_table_for_a_recipe(tmp_path):
    result = run("goodbooks-10k", SAMPLES / "goodbooks-10k", "--out", tmp_path / "books")
    assert result.exit_code == 0, result.output
    assert "2 users, 2 items, 3 interactions" in result.output
    assert "note: timestamp is the row of ratings.csv" in result.output
    assert f'[data]\ninteractions = "{tmp_path}/books/interactions.parquet"' in result.output


def test_columns_are_named_on_the_command_line(tmp_path):
    folder = SAMPLES / "table"
    result = run(
        "table", folder, "--interactions", folder / "clicks.csv", "--items", folder / "goods.jsonl", "--user-col", "visitor",
        "--item-col", "sku", "--items-item-col", "code", "--time-col", "at", "--action-col", "what",
        "--text-cols", "name, tags", "--out", tmp_path / "shop", "--json",
    )  # fmt: skip
    shown = json.loads(result.output)
    assert shown["data"]["text_cols"] == ["name", "tags"]
    assert (shown["num_users"], shown["data"]["action_col"]) == (1, "what")


def test_wrong_input_exits_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hllm", "data", "import", "yelpp", str(tmp_path), "--out", str(tmp_path / "o")])
    assert main() == 2
    assert "did you mean 'yelp'" in capsys.readouterr().err


def test_the_help_names_every_layout_and_so_does_the_page():
    from hllm.data.importing.layouts import LAYOUTS

    shown = run("--help").output
    page = PAGE.read_text()
    for name, layout in LAYOUTS.items():
        assert f"{name}: " in shown
        assert f"`{name}`" in page or f"data import {name}" in page
        assert layout.origin == "your own" or layout.origin in page or name == "recbole", name


@pytest.mark.parametrize("module", ["polars", "torch"])
def test_help_does_not_wait_for(module):
    import subprocess
    import sys

    code = f"import sys, hllm.cli.main; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
