"""Every program of `examples/` runs as it stands, and says what its text promises."""

import json
import runpy
import shutil
from pathlib import Path

import polars as pl
import pytest

from hllm import Recommender
from tests.examples import conftest
from tests.examples.conftest import FOLDER

PROGRAMS = sorted(path.name for path in FOLDER.glob("*.py") if path.name != "demo.py")
LINES = 40


@pytest.fixture
def copied(shop, tmp_path):
    """A run that a program may change."""
    return shutil.copytree(shop, tmp_path / "run")


def test_every_program_has_a_test():
    tests = Path(__file__).read_text() + Path(conftest.__file__).read_text()
    assert len(PROGRAMS) >= 6
    assert [name for name in PROGRAMS if name not in tests] == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_short(name):
    lines = (FOLDER / name).read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) <= LINES


def test_two_frames_are_enough(shop):
    """The first example is run by the fixture `shop`."""
    lists = Recommender.load(shop).recommend(k=3)
    assert lists["user_id"].n_unique() == 300
    assert lists["source"].unique().to_list() == ["model"]


def test_a_history_and_a_sentence_are_answered(run_example, shop, capsys):
    found = run_example("recommend_for_a_history.py", shop)
    text = capsys.readouterr().out
    assert text.count("shape: (3, 5)") == 2
    assert text.count("shape: (2, 5)") == 1
    assert "big-red-hat" not in text, "what was looked at is not recommended"
    assert {name for name in found["on_sale"] if name in text}


def test_a_new_item_is_recommended_to_its_audience(run_example, shop, capsys):
    found = run_example("offer_a_new_item.py", shop)
    assert found["recommender"].dataset.num_items == 28
    assert "new-green-hat" in capsys.readouterr().out


def test_similar_items_are_found(run_example, shop, capsys):
    found = run_example("find_similar_items.py", shop)
    text = capsys.readouterr().out
    assert text.count("shape: (3, 4)") == 1
    assert text.count("shape: (6, 4)") == 1
    assert len(found["vectors"]) == 2


def test_an_index_is_used_once_it_is_made(run_example, copied, capsys):
    pytest.importorskip("faiss").omp_set_num_threads(1)
    found = run_example("search_an_index.py", copied)
    assert "shape: (6, 5)" in capsys.readouterr().out
    assert type(found["Recommender"].load(copied).retriever).__name__ == "IndexRetriever"


def test_a_table_is_answered_row_by_row(run_example, copied, tmp_path, capsys):
    run_example("recommend_for_a_table.py", copied, tmp_path / "lists.parquet")
    lists = pl.read_parquet(tmp_path / "lists.parquet")
    assert "rows for 3 users" in capsys.readouterr().out
    assert lists["user_id"].unique(maintain_order=True).to_list() == ["customer-0", "customer-1", "visitor"]


def test_the_comparison_has_a_row_for_each(run_example, copied, capsys):
    run_example("compare_with_baselines.py", copied)
    text = capsys.readouterr().out
    assert "the full catalogue" in text
    assert [line.split()[0] for line in text.splitlines()[-3:]] == ["popularity", "markov", "hllm"]


def test_the_notebook_is_the_first_hour_and_runs(run_example, tmp_path, monkeypatch, capsys):
    """Its cells are run one after another, as they stand in the file."""
    script = runpy.run_path(str(FOLDER.parent / "docs" / "notebook.py"))
    notebook = script["TARGET"].read_text()
    assert notebook == script["notebook"](), "run: python docs/generate.py"
    cells = json.loads(notebook)["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) == 5
    program = tmp_path / "first_hour.py"
    program.write_text("\n".join(code))
    monkeypatch.chdir(tmp_path)
    found = run_example(program)
    assert found["recommender"].dataset.num_items == 28
    text = capsys.readouterr().out
    assert text.index("popularity") < text.index("hllm mean") < text.index("shape: (12, 5)")
