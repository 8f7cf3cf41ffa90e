import os
import resource
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hllm import artifacts
from hllm.errors import BusyError, CheckpointError, StorageError
from hllm.locks import locked


def make(path: Path, content: bytes = b"abc") -> None:
    with artifacts.writing(path, "thing", {"n": 1}) as folder:
        (folder / "a.bin").write_bytes(content)
        (folder / "sub").mkdir()
        (folder / "sub" / "b.bin").write_bytes(content * 2)


@contextmanager
def disk_of(num_bytes: int) -> Iterator[None]:
    """No file may grow beyond `num_bytes`: writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_written_verifies(tmp_path):
    make(tmp_path / "x")
    manifest = artifacts.verify(tmp_path / "x", "thing")
    assert manifest.details == {"n": 1}
    assert set(manifest.files) == {"a.bin", "sub/b.bin"}


def test_every_file_is_on_the_disk_before_the_directory_has_its_name(tmp_path, monkeypatch):
    """A power cut after the rename must not leave a manifest whose files are empty."""
    flushed: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        flushed.append((path.name, (tmp_path / "x").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    make(tmp_path / "x")
    before = {name for name, renamed in flushed if not renamed}
    assert {"a.bin", "b.bin", "sub", artifacts.MANIFEST} <= before
    assert any(name.startswith(".x.partial") for name in before), "the directory that holds their names"
    assert [name for name, renamed in flushed if renamed] == [tmp_path.name], "the rename itself"


def test_a_single_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    flushed: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: flushed.append((tmp_path / "x").exists()))
    with artifacts.replacing(tmp_path / "x") as partial:
        partial.write_bytes(b"abc")
    assert flushed == [False, True], "the content before, the name after"


@pytest.mark.parametrize("name", ["a.bin", "sub/b.bin"])
def test_every_flipped_byte_is_found_and_the_file_named(tmp_path, name):
    make(tmp_path / "x")
    file = tmp_path / "x" / name
    data = bytearray(file.read_bytes())
    for position in range(len(data)):
        data[position] ^= 1
        file.write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"{name} is damaged: its SHA-256"):
            artifacts.verify(tmp_path / "x", "thing")
        data[position] ^= 1


def test_a_missing_file_another_kind_and_no_directory_are_told_apart(tmp_path):
    make(tmp_path / "x")
    (tmp_path / "x" / "a.bin").unlink()
    with pytest.raises(CheckpointError, match=r"incomplete: a\.bin is missing"):
        artifacts.verify(tmp_path / "x", "thing")
    with pytest.raises(CheckpointError, match="holds a thing, expected a checkpoint"):
        artifacts.verify(tmp_path / "x", "checkpoint")
    with pytest.raises(CheckpointError, match="is not a thing written by hllm: found nothing"):
        artifacts.verify(tmp_path / "y", "thing")


def test_a_damaged_manifest_and_a_later_format_are_told_apart(tmp_path):
    make(tmp_path / "x")
    manifest = tmp_path / "x" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"format_version": 2', '"format_version": 9'))
    with pytest.raises(CheckpointError, match="has format version 9, this hllm reads 2"):
        artifacts.verify(tmp_path / "x", "thing")
    manifest.write_text(text.replace('"details"', '"details" '))
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged: its text is not the one it was sealed with"):
        artifacts.verify(tmp_path / "x", "thing")
    manifest.write_text(text[:-20])
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        artifacts.verify(tmp_path / "x", "thing")


def test_a_failure_while_writing_leaves_the_old_version_and_nothing_else(tmp_path):
    make(tmp_path / "x", b"old")

    def interrupted() -> None:
        with artifacts.writing(tmp_path / "x", "thing", {}) as folder:
            (folder / "a.bin").write_bytes(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    artifacts.verify(tmp_path / "x", "thing")
    assert (tmp_path / "x" / "a.bin").read_bytes() == b"old"


@pytest.mark.reliability("disk")
def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path):
    with disk_of(4096), pytest.raises(StorageError, match=r"the disk is full: .* nothing half-written was left behind"):
        make(tmp_path / "x", b"x" * 10_000)
    assert list(tmp_path.iterdir()) == []
    make(tmp_path / "x", b"old")
    with disk_of(4096), pytest.raises(StorageError, match="what stood there before is unchanged"):
        make(tmp_path / "x", b"x" * 10_000)
    artifacts.verify(tmp_path / "x", "thing")


@pytest.mark.reliability("disk")
def test_a_text_file_on_a_full_disk(tmp_path):
    with disk_of(100), pytest.raises(StorageError, match="the disk is full"):
        artifacts.write_text(tmp_path / "a.json", "x" * 1000)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path):
    make(tmp_path / "x", b"old")
    (tmp_path / ".x.partial-999999999-dead").mkdir()
    (tmp_path / "x").rename(tmp_path / ".x.old-999999999")  # killed between the two renames
    with pytest.raises(RuntimeError, match="stop"), artifacts.writing(tmp_path / "x", "thing", {}):
        raise RuntimeError("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    artifacts.verify(tmp_path / "x", "thing")


def test_a_version_left_aside_by_a_kill_is_found_by_a_reader(tmp_path):
    make(tmp_path / "x", b"old")
    (tmp_path / "x").rename(tmp_path / ".x.old-999999999")
    before = [p.name for p in tmp_path.iterdir()]
    artifacts.verify(tmp_path / "x", "thing")
    assert artifacts.read_manifest(tmp_path / "x", "thing").details == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == before, "who reads changes nothing"
    make(tmp_path / "x", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x" / "a.bin").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["x", "x[1]", "x*", "x.partial-y"])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_the_holder_of_the_lock_removes_every_leftover_whoever_left_it(tmp_path, name, kind):
    """The number in a name means nothing: another container has other processes, and numbers come again."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    for number in ("1", str(os.getpid()), "x", "9" * 40):
        left = tmp_path / f".{name}.partial-{number}"
        match kind:
            case "file":
                left.touch()
            case "folder":
                (left / "sub").mkdir(parents=True)
            case "link":
                left.symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".other.partial-1").mkdir()
    make(tmp_path / name)
    assert {p.name for p in tmp_path.iterdir()} == {name, ".other.partial-1", "elsewhere"}
    assert (tmp_path / "elsewhere" / "kept").exists()


def test_what_is_being_written_is_left_alone_by_a_sweep(tmp_path):
    for name in (".a.json.partial-7", ".b.partial-8-ff", ".c.lock", ".d.shards-12", "e"):
        (tmp_path / name).touch()
    with locked(tmp_path / "b"):
        thread = threading.Thread(target=artifacts.sweep, args=[tmp_path])
        thread.start()
        thread.join()
        assert {p.name for p in tmp_path.iterdir()} == {".b.partial-8-ff", ".b.lock", ".d.shards-12", "e"}
    artifacts.sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {".d.shards-12", "e"}
    artifacts.sweep(tmp_path / "nothing")


def test_a_directory_with_leftovers_alone_is_vacant(tmp_path):
    assert artifacts.is_vacant(tmp_path / "nothing")
    assert artifacts.is_vacant(tmp_path)
    for name in (".lock", ".recipe.json.partial-77", ".table.old-3", ".table.shards-ab", ".x.lock"):
        (tmp_path / name).touch()
        assert artifacts.is_vacant(tmp_path), name
    (tmp_path / ".hidden").touch()
    assert not artifacts.is_vacant(tmp_path)
    assert not artifacts.is_vacant(tmp_path / ".hidden")


@pytest.mark.reliability("second writer")
def test_a_second_writer_is_refused_while_the_first_writes(tmp_path):
    failures = []

    def second() -> None:
        try:
            make(tmp_path / "x", b"second")
        except BusyError as error:
            failures.append(str(error))

    with artifacts.writing(tmp_path / "x", "thing", {}) as folder:
        (folder / "a.bin").write_bytes(b"first")
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert "x is in use by process" in failures[0]
    assert (tmp_path / "x" / "a.bin").read_bytes() == b"first"


@pytest.mark.parametrize("exchange", [True, False])
def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path, monkeypatch, exchange):
    """This ended with an error, although the new version stood there, and the link moved aside stayed for good."""
    if not exchange:
        monkeypatch.setattr(artifacts, "_exchange", lambda *_: False)
    make(tmp_path / "target", b"old")
    (tmp_path / "x").symlink_to(tmp_path / "target")
    make(tmp_path / "x", b"new")
    assert {p.name for p in tmp_path.iterdir()} == {"x", "target"}
    assert (tmp_path / "x" / "a.bin").read_bytes() == b"new"
    assert (tmp_path / "target" / "a.bin").read_bytes() == b"old"
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    make(tmp_path / "dangling", b"new")
    artifacts.verify(tmp_path / "dangling", "thing")
    assert {p.name for p in tmp_path.iterdir()} == {"x", "target", "dangling"}


def test_a_file_is_never_replaced_by_a_directory(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(StorageError, match="x cannot be written: it is a file, and a thing is a directory"):
        make(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_new_directory_has_the_rights_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        make(tmp_path / "x")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_files_have_the_rights_that_the_umask_leaves_whoever_writes_them(tmp_path, umask):
    """Safetensors made files of mode 0600, so that nobody but their owner could read a run on a shared disk."""
    (tmp_path / "linked").write_bytes(b"abc")
    (tmp_path / "linked").chmod(0o604)
    before = os.umask(umask)
    try:
        with artifacts.writing(tmp_path / "x", "thing", {}) as folder:
            save_file({"a": torch.zeros(2)}, folder / "a.safetensors")
            (folder / "sub").mkdir()
            (folder / "sub" / "b.bin").touch(0o400)
            os.link(tmp_path / "linked", folder / "linked")
        with artifacts.replacing(tmp_path / "y") as partial:
            save_file({"a": torch.zeros(2)}, partial)
        artifacts.write_text(tmp_path / "z", "text")
    finally:
        os.umask(before)
    for name in ("x/a.safetensors", "x/sub/b.bin", "x/manifest.json", "y", "z"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask, name
    assert stat.S_IMODE((tmp_path / "linked").stat().st_mode) == 0o604, "a file of somebody else's keeps its own"


@pytest.mark.reliability("swapped")
@pytest.mark.parametrize("exchange", [True, False])
def test_what_is_read_is_of_one_version_while_a_writer_replaces_it(tmp_path, monkeypatch, exchange):
    """A reader hashed the files by their names and then opened them again: by then they could be of the next version."""
    if not exchange:
        monkeypatch.setattr(artifacts, "_exchange", lambda *_: False)

    def write(version: int) -> None:
        with artifacts.writing(tmp_path / "x", "thing", {"version": version}) as folder:
            for name in "ab":
                (folder / name).write_text(str(version))

    def read(folder: Path, manifest: artifacts.Manifest) -> set[int]:
        time.sleep(0.0005)
        return {manifest.details["version"], *(int((folder / name).read_text()) for name in "ab")}

    write(0)
    seen: set[int] = set()
    done = threading.Event()

    def reader() -> None:
        while not done.is_set():
            versions = artifacts.reading(tmp_path / "x", "thing", read)
            assert len(versions) == 1, versions
            seen.update(versions)

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(reader) for _ in range(2)]
        for version in range(1, 60):
            write(version)
        done.set()
        for each in readers:
            each.result()
    assert len(seen) > 3


@pytest.mark.reliability("swapped")
def test_a_swap_between_checking_and_reading_is_seen(tmp_path):
    make(tmp_path / "x", b"old")
    calls = []

    def read(folder: Path, manifest: artifacts.Manifest) -> bytes:
        calls.append(manifest.fingerprint)
        if len(calls) == 1:
            make(tmp_path / "x", b"new")
        return (folder / "a.bin").read_bytes()

    assert artifacts.reading(tmp_path / "x", "thing", read) == b"new"
    assert len(set(calls)) == 2

    def always(folder: Path, manifest: artifacts.Manifest) -> None:
        make(tmp_path / "x", b"new")

    with pytest.raises(CheckpointError, match="x was replaced 100 times while it was read"):
        artifacts.reading(tmp_path / "x", "thing", always)


def test_a_file_that_may_not_be_read_is_said(tmp_path, monkeypatch):
    make(tmp_path / "x")

    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(artifacts, "sha256_of", denied)  # root may read everything
    with pytest.raises(CheckpointError, match="x cannot be read: Permission denied"):
        artifacts.verify(tmp_path / "x", "thing")


def test_a_place_that_is_a_file_cannot_hold_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        make(tmp_path / "file" / "x")
