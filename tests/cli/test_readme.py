"""Every command and program of README.md runs in a tiny world: 12 users, 30 items, two-layer language models."""

import re
import shlex
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parent.parent.parent
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
LINES = [line for kind, block in BLOCKS if kind == "" for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("hllm ")]
PROGRAMS = [block for kind, block in BLOCKS if kind == "python"]

RECIPE = """about = "a tiny world"
[data]
interactions = "interactions.csv"
items = "items.csv"
text_cols = ["title", "kind"]

[model]
max_history = 8
item = { kind = "llm", backbone = "BERT", pooling = "mean" }
user = { kind = "llm", backbone = "LLAMA" }

[[stages]]
item_tier = "frozen"
batch_size = 8
learning_rate = 1e-2

[evaluation]
bootstrap_samples = 20
"""
SEARCH = """
trials = 1

[[space]]
key = "stages.0.learning_rate"
choices = [1e-3, 1e-2]
"""


@pytest.fixture
def world(tmp_path, monkeypatch, interactions, items, tiny_bert, tiny_llama):
    """A folder with everything that the README's commands name; it becomes the working directory."""
    monkeypatch.chdir(tmp_path)
    interactions.write_csv("interactions.csv")
    items.write_csv("items.csv")
    Path("recipe.toml").write_text(RECIPE.replace("BERT", str(tiny_bert)).replace("LLAMA", str(tiny_llama)))
    Path("search.toml").write_text(SEARCH)
    pl.DataFrame({"item_id": ["new"], "title": ["summer hat"], "kind": ["hat"]}).write_csv("new-items.csv")
    pl.DataFrame({"user_id": ["u1"], "item_id": ["new"], "timestamp": [9_000]}).write_csv("new.csv")
    Path("ml-20m").mkdir()
    log = interactions.rename({"user_id": "user_id:token", "item_id": "item_id:token", "timestamp": "timestamp:float"})
    log.write_csv("ml-20m/ml-20m.inter", separator="\t")
    fields = {"item_id": "item_id:token", "title": "title:token_seq", "kind": "kind:token"}
    items.rename(fields).write_csv("ml-20m/ml-20m.item", separator="\t")
    return tmp_path


@pytest.mark.parametrize("commands", [COMMANDS], ids=["in their order"])
def test_every_command_runs(world, hllm, commands):
    assert len(commands) > 15, "the README's blocks were not found"
    for command in commands:
        _, *arguments = shlex.split(command, comments=True)
        code, out, err = hllm(*arguments)
        assert (code, out.strip() != "") == (0, True), f"{command}\n{out}\n{err}"


def test_every_program_runs(world):
    assert len(PROGRAMS) == 1
    for program in PROGRAMS:
        exec(program, {})  # the program itself is the claim


def test_every_other_command_is_known():
    """`make` has a target, and pip is given extras and a file that exist."""
    rest = [line.split("#")[0].split() for line in LINES if line not in COMMANDS]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.M) for tool, target, *_ in rest if tool == "make")
    assert [tool for tool, *_ in rest if tool not in ("make", "pip")] == []
    assert (ROOT / "constraints.txt").read_text().count("\ntorch==2.13.0\n") == 1
