"""Fetching, against wheels made here and served to the real pip from a folder."""

import os
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from hllm import artifacts
from hllm.errors import ConfigError, FetchError, HllmWarning, StorageError
from hllm.sources.wheels import Wheel, fetch_wheel
from tests.test_artifacts import disk_of

PAYLOAD = b"0123456789" * 20_000


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A package index with one wheel, tiny-data 1.0; pip is pointed at it and at nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_data-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny_data/files/a.bin", PAYLOAD)
        archive.writestr("tiny_data/files/sub/b.txt", "b")
        archive.writestr("tiny_data/code.py", "raise SystemExit('imported')")
        archive.writestr("tiny_data-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n")
        archive.writestr(
            "tiny_data-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_data-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def wheel(index: Path, **changed) -> Wheel:
    file = index / "tiny_data-1.0-py3-none-any.whl"
    given = {
        "requirement": "tiny-data==1.0", "sha256": artifacts.sha256_of(file), "size_bytes": file.stat().st_size,
        "prefix": "tiny_data/files/",
    }  # fmt: skip
    return Wheel(**(given | changed))


def copy(unpacked: Path, folder: Path) -> None:
    (unpacked / "a.bin").rename(folder / "a.bin")


def fetch(wheel: Wheel, to: Path, prepare=copy) -> bool:
    return fetch_wheel(wheel, destination=to, kind="thing", prepare=prepare)


def test_a_wheel_becomes_a_directory_once(index, tmp_path):
    target = tmp_path / "home" / "thing"
    assert fetch(wheel(index), target) is True
    assert (target / "a.bin").read_bytes() == PAYLOAD
    assert sorted(p.name for p in target.iterdir()) == ["a.bin", "manifest.json"]
    known = wheel(index)
    (index / "tiny_data-1.0-py3-none-any.whl").unlink()  # a second download would now fail
    assert fetch(known, target) is False
    assert list((tmp_path / "home" / ".downloads").rglob("*.whl")) == []


def test_a_folder_that_pip_removes_while_bytes_are_counted(index, tmp_path, monkeypatch):
    scan, gone = os.scandir, []
    (tmp_path / ".downloads" / "tmp-tiny-data==1.0" / "pip-temporary").mkdir(parents=True)

    def vanishing(path="."):
        if not isinstance(path, int) and Path(path).name == "pip-temporary" and not gone:
            gone.append(path)
            raise FileNotFoundError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert fetch(wheel(index), tmp_path / "thing") is True
    assert gone


def test_a_damaged_copy_is_said_and_fetched_again(index, tmp_path):
    fetch(wheel(index), tmp_path / "thing")
    (tmp_path / "thing" / "a.bin").write_bytes(PAYLOAD[:-1])
    with pytest.warns(HllmWarning, match=r"a\.bin is damaged: .* It is fetched again"):
        assert fetch(wheel(index), tmp_path / "thing") is True
    assert (tmp_path / "thing" / "a.bin").read_bytes() == PAYLOAD


def test_a_copy_in_another_releases_format_is_said_and_fetched_again(index, tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(artifacts, "FORMAT_VERSION", 1)
        fetch(wheel(index), tmp_path / "thing")
    with pytest.warns(HllmWarning, match="has format version 1, this hllm reads 2"):
        assert fetch(wheel(index), tmp_path / "thing") is True
    assert fetch(wheel(index), tmp_path / "thing") is False


def test_a_damaged_copy_stays_where_nothing_can_be_fetched(index, tmp_path):
    fetch(wheel(index), tmp_path / "thing")
    (tmp_path / "thing" / "a.bin").write_bytes(PAYLOAD[:-1])
    with pytest.warns(HllmWarning), pytest.raises(FetchError, match="cannot be reached"):
        fetch(wheel(index, requirement="other-data==1.0"), tmp_path / "thing")
    assert (tmp_path / "thing" / "a.bin").read_bytes() == PAYLOAD[:-1]


def test_a_failure_after_the_download_does_not_download_again(index, tmp_path):
    known = wheel(index)

    def fail(unpacked: Path, folder: Path) -> None:
        raise RuntimeError("conversion failed")

    with pytest.raises(RuntimeError, match="conversion failed"):
        fetch(known, tmp_path / "thing", fail)
    assert not (tmp_path / "thing").exists()
    (index / "tiny_data-1.0-py3-none-any.whl").unlink()
    assert fetch(known, tmp_path / "thing") is True


def test_a_wrong_checksum_is_refused_and_removed(index, tmp_path):
    with pytest.raises(FetchError, match=r"is not the file hllm knows: its SHA-256 is .*, expected 000000000000…"):
        fetch(wheel(index, sha256="0" * 64), tmp_path / "thing")
    assert not (tmp_path / "thing").exists()
    assert list((tmp_path / ".downloads").rglob("*.whl")) == []


def test_an_index_without_the_wheel(index, tmp_path):
    with pytest.raises(FetchError, match=r"cannot be reached or does not have other-data==1\.0; check the network"):
        fetch(wheel(index, requirement="other-data==1.0"), tmp_path / "thing")


def test_no_network(index, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens there
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(FetchError, match="cannot be reached"):
        fetch(wheel(index), tmp_path / "thing")


def test_a_full_disk(index, tmp_path):
    known = wheel(index)
    with disk_of(50_000), pytest.raises(StorageError, match=r"the disk is full: tiny-data==1\.0 needs 0 MB in"):
        fetch(known, tmp_path / "thing")
    fetch_from_download = fetch(known, tmp_path / "first")
    assert fetch_from_download
    assert not (tmp_path / "thing").exists()


def test_a_full_disk_while_unpacking_leaves_nothing(index, tmp_path):
    known = wheel(index)

    def grow(unpacked: Path, folder: Path) -> None:
        (folder / "big").write_bytes(PAYLOAD * 3)

    with disk_of(len(PAYLOAD) * 2), pytest.raises(StorageError, match="the disk is full"):
        fetch(known, tmp_path / "thing", grow)
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("index", ".downloads")] == []


def test_a_python_without_pip(index, tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(FetchError, match=r"has no pip, which fetches tiny-data==1.0: python -m ensurepip"):
        fetch(wheel(index), tmp_path / "thing")


def test_a_wheel_without_the_wanted_files(index, tmp_path):
    with pytest.raises(FetchError, match=r"tiny-data==1\.0 holds no files under elsewhere/"):
        fetch(wheel(index, prefix="elsewhere/"), tmp_path / "thing")


def test_unknown_names_are_explained():
    from hllm.models.published.fetch import fetch_model
    from hllm.sources.data_sets import fetch_data

    with pytest.raises(ConfigError, match=r"unknown data set 'movielens-100' \(did you mean 'movielens-100k'\?\)"):
        fetch_data("movielens-100")
    with pytest.raises(ConfigError, match=r"unknown model 'smollm' .*known: smollm2-135m, minilm-l6"):
        fetch_model("smollm")
