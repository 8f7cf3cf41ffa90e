"""`make demo`: its commands can be given, and it stops at the first that fails."""

import importlib.util
import shlex
from pathlib import Path

import pytest
import typer

from hllm.cli.main import app

SCRIPT = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("demo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(Path.cwd())  # back to it after the test
    return module


def test_every_command_is_one_that_hllm_takes(script):
    commands = [shlex.split(line) for line in script.COMMANDS.format(out=shlex.quote("a b")).strip().splitlines()]
    assert len(commands) == 10
    assert ["train", "recipes/demo.toml", "--out", "a b/hllm"] in commands
    for arguments in commands:
        command, context = typer.main.get_command(app), None
        while arguments or context is None:
            context = command.make_context("hllm", list(arguments), parent=context)
            if not hasattr(command, "resolve_command"):
                break
            _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        assert context.parent is not None
        recipe = context.params.get("recipe")
        assert recipe is None or (SCRIPT.parents[1] / recipe).is_file()


def test_it_stops_at_the_first_command_that_fails(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "COMMANDS", "--version\ndata describe nowhere/{out}\n--help")
    assert script.demo("here") == 2
    shown = capsys.readouterr()
    assert "Error: " in shown.err
    assert shown.out.count("$ hllm") == 2
    assert "Usage" not in shown.out
