import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hllm import artifacts
from hllm.errors import CheckpointError, StorageError


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
    assert {"a.bin", "b.bin", artifacts.MANIFEST} <= before
    assert any(name.startswith(".x.partial") for name in before), "the directory that holds their names"
    assert [name for name, renamed in flushed if renamed] == [tmp_path.name], "the rename itself"


def test_a_single_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    flushed: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: flushed.append((tmp_path / "x").exists()))
    with artifacts.replacing(tmp_path / "x") as partial:
        partial.write_bytes(b"abc")
    assert flushed == [False]


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


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path):
    with disk_of(4096), pytest.raises(StorageError, match=r"the disk is full: .* nothing half-written was left behind"):
        make(tmp_path / "x", b"x" * 10_000)
    assert list(tmp_path.iterdir()) == []
    make(tmp_path / "x", b"old")
    with disk_of(4096), pytest.raises(StorageError, match="what stood there before is unchanged"):
        make(tmp_path / "x", b"x" * 10_000)
    artifacts.verify(tmp_path / "x", "thing")


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
    artifacts.verify(tmp_path / "x", "thing")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_a_running_process_is_writing_is_left_alone(tmp_path):
    (tmp_path / ".x.partial-1-theirs").mkdir()  # process 1 always runs
    make(tmp_path / "x")
    assert (tmp_path / ".x.partial-1-theirs").is_dir()


def test_a_place_that_is_a_file_cannot_hold_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        make(tmp_path / "file" / "x")
