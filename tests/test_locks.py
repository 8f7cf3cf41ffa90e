import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hllm import locks
from hllm.errors import BusyError, ConfigError, HllmWarning, StorageError
from hllm.locks import beside, locked, locked_inside, locked_share

HOLD = """
import sys
from pathlib import Path
from hllm import locks
with {lock}:
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held_elsewhere(lock: str, *namespaces: str) -> Iterator[subprocess.Popen]:
    """Another process holds a lock until the end; `namespaces` is a command that starts it in others, as a container."""
    command = [*namespaces, sys.executable, "-c", HOLD.format(lock=lock)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.reliability("second writer")
def test_the_second_writer_is_told_who_writes_and_may_write_when_the_first_was_killed(tmp_path):
    with held_elsewhere(f"locks.locked(Path({str(tmp_path / 'x')!r}))") as process:
        expected = (
            rf"x is in use by process {process.pid} on this machine since \d{{4}}-.*\(-c\); wait until it has ended"
        )
        with pytest.raises(BusyError, match=expected), locked(tmp_path / "x", patience_s=0.0):
            raise AssertionError
        process.kill()
        process.wait()
        assert names(tmp_path) == [".x.lock"], "a killed holder cannot remove its file"
        with locked(tmp_path / "x"):
            pass
    assert names(tmp_path) == []


@pytest.mark.reliability("second writer")
def test_a_lock_holds_across_process_namespaces_where_numbers_of_processes_repeat(tmp_path):
    """Two containers on one volume have each a process 1: no decision may come of such a number."""
    namespaces = ["unshare", "--user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*namespaces, "true"], capture_output=True).returncode:
        pytest.skip("this machine makes no process namespaces")
    with held_elsewhere(f"locks.locked(Path({str(tmp_path / 'x')!r}))", *namespaces) as process:
        with pytest.raises(BusyError, match="process 1 on this machine"), locked(tmp_path / "x", patience_s=0.0):
            raise AssertionError
        child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for number in child:
            os.kill(int(number), 9)
        process.wait()
        with locked(tmp_path / "x"):
            pass


@pytest.mark.reliability("second writer")
def test_a_lock_is_held_once_by_a_thread_and_refused_to_another(tmp_path):
    refused: list[BaseException] = []

    def second() -> None:
        try:
            with locked(tmp_path / "x", patience_s=0.0):
                pass
        except BusyError as error:
            refused.append(error)

    with locked(tmp_path / "x"), locked(tmp_path / "x"), locked(tmp_path / "." / "x"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert names(tmp_path) == [".x.lock"]
    assert len(refused) == 1
    second()
    assert len(refused) == 1
    assert names(tmp_path) == []


def test_shares_are_worked_on_together_and_the_whole_by_one(tmp_path):
    table = tmp_path / "table"
    with held_elsewhere(f"locks.locked_share(Path({str(table)!r}), 'shard-1-of-2')"):
        with pytest.raises(BusyError, match=r"table\.shard-1-of-2 is in use"), locked_share(table, "shard-1-of-2"):
            raise AssertionError
        with pytest.raises(BusyError, match="table is in use by process"), locked(table):
            raise AssertionError
        with locked_share(table, "shard-2-of-2"):
            pass
    with locked(table):
        pass
    assert beside(table).name not in names(tmp_path)


def test_who_shares_is_told_even_where_an_earlier_holder_was_killed(tmp_path):
    (tmp_path / ".lock").write_text(
        json.dumps({"host": os.uname().nodename, "process": 2**22 + 1, "since": "", "command": ""}) + "\n"
    )
    with held_elsewhere(f"locks.locked_inside(Path({str(tmp_path)!r}), shared=True)") as process:
        with pytest.raises(BusyError, match=f"process {process.pid} on this machine"), locked_inside(tmp_path):
            raise AssertionError
        with locked_inside(tmp_path, shared=True):
            pass
        assert names(tmp_path) == [".lock"], "the other one still holds it"


def test_a_holder_on_another_host_is_named_and_its_text_is_safe_to_show(tmp_path):
    """What is in the file may come from anywhere: the lock itself is the kernel's."""
    line = {"host": "node\x1b]0;pwned\x07", "process": 7, "since": "today", "command": "hllm embed"}
    with (tmp_path / ".x.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(line))
        file.flush()
        with pytest.raises(BusyError, match=r"process 7 on node\?\]0;pwned\? since today \(hllm embed\)"):
            with locked(tmp_path / "x", patience_s=0.0):
                raise AssertionError
        for text in ("", "no json", "[1]", "{}"):
            (tmp_path / ".x.lock").write_text(text)
            with pytest.raises(BusyError, match="in use by another process"), locked(tmp_path / "x", patience_s=0.0):
                raise AssertionError


def test_a_writer_waits_a_moment_for_the_one_before_it(tmp_path):
    with held_elsewhere(f"locks.locked(Path({str(tmp_path / 'x')!r}))") as process:
        timer = threading.Timer(0.2, process.kill)
        timer.start()
        with locked(tmp_path / "x", patience_s=60.0):
            pass
        timer.join()


def test_a_lock_file_that_is_a_link_is_not_written_to(tmp_path):
    """A directory from a stranger could hold one that leads anywhere."""
    (tmp_path / "precious").write_text("content")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match=r"run cannot be written: .* \(.*\.lock\)"), locked_inside(tmp_path / "run"):
        raise AssertionError
    assert (tmp_path / "precious").read_text() == "content"


def test_a_directory_that_was_made_for_its_lock_goes_if_nothing_came_into_it(tmp_path):
    with locked_inside(tmp_path / "run"):
        assert names(tmp_path / "run") == [".lock"]
    assert names(tmp_path) == []
    with locked_inside(tmp_path / "run"):
        (tmp_path / "run" / "recipe.json").write_text("{}")
    assert names(tmp_path / "run") == ["recipe.json"]
    with pytest.raises(ConfigError, match=r"recipe\.json is a file, expected a directory"):
        with locked_inside(tmp_path / "run" / "recipe.json"):
            raise AssertionError


def test_a_directory_that_cannot_be_written_to_needs_no_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with locked_inside(tmp_path):
        assert names(tmp_path) == []


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def missing(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", missing)
    with pytest.warns(HllmWarning, match=r"\.x\.lock cannot be locked: Function not implemented\. See to it"):
        with locked(tmp_path / "x"):
            pass


def test_a_forked_child_does_not_let_go_of_its_parents_lock(tmp_path):
    with locked(tmp_path / "x"):
        child = os.fork()
        if child == 0:
            os._exit(0 if names(tmp_path) == [".x.lock"] else 1)
        assert os.waitpid(child, 0)[1] == 0
        with (tmp_path / ".x.lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
