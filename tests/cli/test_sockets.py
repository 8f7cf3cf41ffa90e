"""No verb opens a socket, but those that fetch."""

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
import pytest
import typer

from hllm.cli.main import app
from tests.conftest import recipe_values

FETCHING = {"data fetch", "model fetch"}
_WATCHED: list[list[str]] = []  # a hook cannot be taken away again: it writes to the lists that are here


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _WATCHED:
        return
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        _WATCHED[-1].append(f"{event} {arguments[1:]}")
    elif event == "socket.__new__" and arguments[1] in (socket.AF_INET, socket.AF_INET6):
        _WATCHED[-1].append(f"{event} {arguments[1:]}")


sys.addaudithook(_hook)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Yield what the network is asked for inside."""
    _WATCHED.append([])
    try:
        yield _WATCHED[-1]
    finally:
        _WATCHED.pop()


def verbs(command: typer.core.TyperGroup, before: str = "") -> Iterator[str]:
    for name, each in command.commands.items():
        if hasattr(each, "commands"):
            yield from verbs(each, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_the_audit_sees_a_socket():
    with watched() as found, socket.socket() as server:
        server.bind(("127.0.0.1", 0))
    assert [each.split()[0] for each in found] == ["socket.__new__", "socket.bind"]


@pytest.mark.reliability("sockets")
@pytest.mark.filterwarnings("default::hllm.errors.HllmWarning")
def test_no_verb_opens_a_socket(hllm, run, tmp_path, tiny_llama, tiny_bert, interactions, items, monkeypatch):
    monkeypatch.setenv("HLLM_HOME", str(tmp_path / "home"))
    interactions.write_parquet(tmp_path / "interactions.parquet")
    new = interactions.filter(interactions["user_id"] == "u3").with_columns(pl.lit("new").alias("user_id"))
    new.write_parquet(tmp_path / "new.parquet")
    items.write_csv(tmp_path / "items.csv")
    items.select("item_id").write_csv(tmp_path / "candidates.csv")
    values = recipe_values(tiny_bert, tiny_llama)
    values["data"] = {"interactions": "interactions.parquet", "items": "items.csv"}
    values["stages"] = [values["stages"][1] | {"epochs": 1}]
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(values))
    (tmp_path / "search.toml").write_text(
        'trials = 1\n[[space]]\nkey = "stages.0.learning_rate"\nchoices = [0.01, 0.02]\n'
    )
    tables = ("--interactions", tmp_path / "interactions.parquet", "--items", tmp_path / "items.csv")
    calls = {
        "data describe": tables,
        "data import": ("table", tmp_path, *tables, "--out", tmp_path / "imported"),
        "data split": (recipe,),
        "data check": tables,
        "train": (recipe, "--out", tmp_path / "out"),
        "fine-tune": (run, "--interactions", tmp_path / "new.parquet", "--out", tmp_path / "tuned"),
        "tune": (recipe, "--search", tmp_path / "search.toml", "--out", tmp_path / "tuning"),
        "evaluate": ("--run", run, "--baselines", "popularity"),
        "evaluate-ranking": ("--run", run),
        "cold-start": ("--run", run, "--baselines", ""),
        "ablate": ("--run", run, "--only", "last-item"),
        "compare": (run, f"{run}:popularity"),
        "report": ("--run", run, "--baselines", ""),
        "card": ("--run", run),
        "recommend": ("--run", run, "--user", "u3"),
        "rank": ("--run", run, "--user", "u3", "--candidates", tmp_path / "candidates.csv"),
        "index": ("--run", run),
        "similar": ("--run", run, "--text", "title: red shoe"),
        "embed": ("--run", run, "--out", tmp_path / "table"),
        "embed-users": ("--run", run, "--out", tmp_path / "users"),
        "export-vectors": ("--table", tmp_path / "table", "--out", tmp_path / "vectors"),
        "export-model": (run, "--out", tmp_path / "small"),
        "import-checkpoint": (
            tiny_llama / "model.safetensors", "--item-config", tiny_llama, "--user-config", tiny_llama,
            "--out", tmp_path / "checkpoint",
        ),
    }  # fmt: skip
    assert set(calls) == set(verbs(typer.main.get_command(app))) - FETCHING, "a new verb has to be called here"
    refused = {"evaluate-ranking": "no head", "rank": "no head", "import-checkpoint": ""}
    for verb, arguments in calls.items():
        with watched() as found:
            code, _, err = hllm(*verb.split(), *arguments)
        assert found == [], verb
        assert code == (2 if verb in refused else 0), f"{verb}: {err}"
        assert refused.get(verb, "") in err, f"{verb}: {err}"
