import shutil

import pytest

from hllm.cli.main import main


@pytest.fixture
def hllm(monkeypatch, capsys):
    """Run the command line in this process; return its exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([*map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def run(trained_folder, tmp_path):
    """A copy of the finished run, under the name "mine", which nobody has evaluated."""
    evaluated = shutil.ignore_patterns("evaluation*", "ranks-*", ".lock")  # by other tests, in whatever order
    return shutil.copytree(trained_folder, tmp_path / "mine", ignore=evaluated)
