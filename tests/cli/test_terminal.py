"""What reaches a terminal, a pipe or a full disk: nothing that is data is cut, nothing in it is obeyed, no traceback."""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import polars as pl
import pytest

from hllm.api import Recommender
from hllm.cli.main import main
from hllm.distributed import joined
from hllm.errors import ConfigError
from hllm.visible import visible

HOSTILE = "red \x1b[31mRED\x1b]0;owned\x07\x9b5m\x7f\u202e \N{CLAPPER BOARD} Amélie"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory, interactions, items, id_recipe) -> Path:
    """A run with ids of 36 characters, titles and ids with control characters."""
    folder = tmp_path_factory.mktemp("hostile")

    def long(name: str) -> pl.Expr:
        return pl.col(name).map_elements(lambda v: str(uuid.uuid5(uuid.NAMESPACE_OID, v)), return_dtype=pl.String)

    titled = items.with_columns(long("item_id"), title=pl.lit(HOSTILE) + pl.col("title"))
    log = interactions.with_columns(long("item_id"), user_id=pl.lit("\x1b[5m") + long("user_id"))
    log.write_parquet(folder / "log.parquet")
    titled.write_parquet(folder / "items.parquet")
    Recommender.fit(log, titled, recipe=id_recipe, out=folder / "run")
    return folder


def verbs(folder: Path, user: str, item: str) -> dict[str, list[str]]:
    run = ["--run", str(folder / "run")]
    return {
        "recommend": ["recommend", *run, "--user", user, "-k", "3"],
        "similar": ["similar", *run, "--item", item, "-k", "3"],
        "unknown user": ["recommend", *run, "--user", "\x1b[31mnobody"],
        "unknown item": ["similar", *run, "--item", "\x1b]0;x\x07"],
        "describe": ["data", "describe", *run],
        "check": ["data", "check", str(folder / "log.parquet"), str(folder / "items.parquet")],
        "evaluate": ["evaluate", *run, "--baselines", ""],
    }


@pytest.mark.parametrize("name", ["recommend", "similar", "unknown user", "unknown item", "describe", "check"])
@pytest.mark.parametrize("as_json", [False, True])
def test_no_control_character_of_the_data_reaches_the_terminal(hostile_run, capsys, name, as_json):
    recommender = Recommender.load(hostile_run / "run")
    user, item = recommender.dataset.users[0], recommender.dataset.item_ids[0]
    capsys.readouterr()
    main([*verbs(hostile_run, user, item)[name], *(["--json"] if as_json else [])])
    said = capsys.readouterr()
    assert said.out or said.err
    assert not CONTROLS.search(said.out + said.err)
    if as_json and name in ("recommend", "similar"):
        assert HOSTILE in json.loads(said.out.splitlines()[0])["title"], "and JSON says what was there"


def test_nothing_is_cut_in_a_pipe(hostile_run, capsys):
    recommender = Recommender.load(hostile_run / "run")
    user = recommender.dataset.users[0]
    best = recommender.recommend([user], k=3)
    capsys.readouterr()
    assert main(verbs(hostile_run, user, "")["recommend"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for item, title in zip(best["item_id"], recommender.title_of(best["item_id"]), strict=True):
        (line,) = [line for line in lines if item in line]
        assert visible(title) in line
        assert visible(user) in line
    assert "…" not in "".join(lines[2:])


def test_cells_go_on_below_on_a_narrow_terminal(hostile_run):
    """A pseudo-terminal of 60 columns: the letters of an id are all there, in their order."""
    import pty

    recommender = Recommender.load(hostile_run / "run")
    item = recommender.dataset.item_ids[0]
    best = recommender.similar([item], k=1)["item_id"][0]
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "hllm", *verbs(hostile_run, "", item)["similar"][:-1], "1"]
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, env=os.environ | {"COLUMNS": "60"}, check=True
    )
    os.close(writer)
    text = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert not done.stderr
    assert max(map(len, re.sub(r"\x1b\[\d+m", "", text).splitlines())) <= 60 + len(f"like {visible(HOSTILE)}:") * 2
    assert "…" not in text
    assert best[:8] in text


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_letters_that_the_output_lacks_are_escapes(hostile_run, encoding):
    item = Recommender.load(hostile_run / "run").dataset.item_ids[0]
    for extra in ([], ["--json"]):
        command = [sys.executable, "-m", "hllm", *verbs(hostile_run, "", item)["similar"], *extra]
        done = subprocess.run(
            command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, check=False
        )
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode("utf-8" if encoding == "ascii" else encoding)  # click takes ascii for a mistake
        assert "RED" in text
        if extra:
            rows = [json.loads(line) for line in text.splitlines()]
            assert [len(row["item_id"]) for row in rows] == [36] * 3
            assert "\N{CLAPPER BOARD}" in rows[0]["title"]


@pytest.mark.parametrize("verb", ["similar", "describe"])
def test_a_full_disk_behind_the_output_is_said(hostile_run, verb):
    recommender = Recommender.load(hostile_run / "run")
    words = verbs(hostile_run, recommender.dataset.users[0], recommender.dataset.item_ids[0])[verb]
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "hllm", *words], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.decode() == "hllm: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("content", ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000])
def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path, capsys, content):
    (tmp_path / "deep.json").write_text(content)
    assert main(["train", str(tmp_path / "deep.json"), "--out", str(tmp_path / "run")]) == 2
    assert "nested too deeply" in capsys.readouterr().err


def test_a_place_where_no_file_can_be_is_said_at_once(hostile_run, capsys):
    assert main(["report", "--run", str(hostile_run / "run"), "--out", "/proc/report.html"]) in (1, 2)
    assert "/proc/report.html cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", [b"r\xe9n", b"r\x1b[31mn"])
def test_names_that_are_no_text_are_shown(name):
    done = subprocess.run([sys.executable, "-m", "hllm", "card", "--run", name], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert not CONTROLS.search(done.stderr.decode().rstrip("\n"))


def test_no_verb_prints_around_the_one_door():
    for file in (Path(__file__).parents[2] / "src/hllm/cli").glob("*.py"):
        if file.name not in ("show.py", "main.py"):
            assert not re.search(r"typer\.echo|(?<!\w)print\(|sys\.std(out|err)", file.read_text(encoding="utf-8")), (
                file
            )


@pytest.mark.parametrize("size", ["x", "2x", "", "-1"])
def test_a_world_size_that_is_no_number_is_named(monkeypatch, size):
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(ConfigError, match=f"the environment variable WORLD_SIZE is {size!r}, expected a number"),
        joined(),
    ):
        pass


@pytest.mark.parametrize("missing", ["MASTER_ADDR", "MASTER_PORT"])
def test_processes_that_cannot_meet_say_why(monkeypatch, missing):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "x")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    with (
        pytest.raises(ConfigError, match=r"the processes cannot find each other: .*; start them with torchrun"),
        joined(),
    ):
        pass


def test_letters_are_read_where_the_locale_has_none(hostile_run):
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "hllm", "recommend", "--run", str(hostile_run / "run"), "--user"]
    done = subprocess.run([*command, "ü"], capture_output=True, env=plain, check=False)
    assert (done.returncode, b"first: '\\xfc'" in done.stderr or "'ü'".encode() in done.stderr) == (2, True)
    done = subprocess.run([*command, b"\xe9"], capture_output=True, env=plain, check=False)
    assert done.returncode == 2
    assert b"users holds '\\udce9', which is no valid text" in done.stderr
