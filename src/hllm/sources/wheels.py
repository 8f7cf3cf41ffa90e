"""Fetch files that travel in Python wheels: pip downloads a pinned version; it is checked, unpacked, never imported."""

import os
import shutil
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hllm import artifacts
from hllm.errors import CheckpointError, FetchError, HllmWarning, StorageError
from hllm.locks import locked
from hllm.progress import progress

_TAIL = 400
_DISK_FULL = ("No space left on device", "Disk quota exceeded", "File too large")
_NO_NETWORK = (
    "NewConnectionError",
    "Temporary failure in name resolution",
    "Could not find a version",
    "ConnectTimeoutError",
    "ProxyError",
    "Network is unreachable",
    "No matching distribution",
)


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel and the files in it that are wanted."""

    requirement: str
    """Pinned requirement, such as "recbole==1.2.1"."""
    sha256: str
    size_bytes: int
    prefix: str
    """Only members below this folder of the wheel are unpacked, without the prefix."""


def fetch_wheel(wheel: Wheel, *, destination: Path, kind: str, prepare: Callable[[Path, Path], None]) -> bool:
    """Make `destination` from the wheel's files, unless it is there already; return whether it was made.

    A destination that is damaged, or was written by a release with another format, is made again, with a warning.

    `prepare(unpacked, folder)` turns the unpacked files into the final ones; the directory then appears in one
    rename. A wheel that was downloaded before, by an attempt that failed later, is checked and used again.
    Raises FetchError (no pip, no network, wrong checksum), StorageError (disk full)
    or BusyError (another process fetches it).
    """
    if (destination / artifacts.MANIFEST).is_file():
        try:
            artifacts.verify(destination, kind)
            return False
        except CheckpointError as error:
            warnings.warn(f"{error}. It is fetched again", HllmWarning, stacklevel=2)
    with locked(destination):
        _fetch(wheel, destination, kind, prepare)
    return True


def _fetch(wheel: Wheel, destination: Path, kind: str, prepare: Callable[[Path, Path], None]) -> None:
    downloads = destination.parent / ".downloads"
    path = _download(wheel, downloads)
    with artifacts.writing(destination, kind, {"requirement": wheel.requirement, "sha256": wheel.sha256}) as folder:
        unpacked = folder / ".unpacked"
        _unpack(wheel, path, unpacked)
        prepare(unpacked, folder)
        for leftover in sorted(unpacked.rglob("*"), reverse=True):
            leftover.rmdir() if leftover.is_dir() else leftover.unlink()
        unpacked.rmdir()
    path.unlink()
    for left in (_scratch_of(wheel, downloads), _log_of(wheel, downloads)):  # of a download that was killed
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _scratch_of(wheel: Wheel, downloads: Path) -> Path:
    """Return where bytes of this wheel arrive: beside the destination, so that they can be counted."""
    return downloads / f"tmp-{wheel.requirement}"


def _log_of(wheel: Wheel, downloads: Path) -> Path:
    return downloads / f"pip-{wheel.requirement}.log"


def _download(wheel: Wheel, downloads: Path) -> Path:
    """Return the checked wheel file in `downloads`; pip resumes an interrupted download by itself."""
    try:
        downloads.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{downloads} cannot be made: {error.strerror}; choose another place with HLLM_HOME"
        ) from None
    name = wheel.requirement.split("==")[0].replace("-", "_")
    for path in downloads.glob(f"{name}-*.whl"):
        if artifacts.sha256_of(path) == wheel.sha256:
            return path
        path.unlink()
    _run_pip(wheel, downloads)
    wheels = list(downloads.glob(f"{name}-*.whl"))
    if not wheels:
        raise FetchError(f"pip reported success but left no wheel of {wheel.requirement} in {downloads}")
    digest = artifacts.sha256_of(wheels[0])
    if digest != wheel.sha256:
        wheels[0].unlink()
        raise FetchError(
            f"the download of {wheel.requirement} is not the file hllm knows: its SHA-256 is {digest[:12]}…, "
            f"expected {wheel.sha256[:12]}…. It was removed; try again, and check the package index if this repeats"
        )
    return wheels[0]


def _run_pip(wheel: Wheel, downloads: Path) -> None:
    """Run `pip download`, showing how many bytes have arrived."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet",
               "--disable-pip-version-check", "--dest", str(downloads), wheel.requirement]  # fmt: skip
    scratch, log = _scratch_of(wheel, downloads), _log_of(wheel, downloads)
    scratch.mkdir(exist_ok=True)
    with log.open("wb") as output, progress(f"download {wheel.requirement}", wheel.size_bytes) as advance:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "TMPDIR": str(scratch)})
        num_bytes = 0
        try:
            while process.poll() is None:
                time.sleep(0.2)
                new_num_bytes = min(wheel.size_bytes, _arrived(scratch))
                advance(max(0, new_num_bytes - num_bytes), f"{new_num_bytes / 1e6:.0f} MB")
                num_bytes = max(num_bytes, new_num_bytes)
        finally:
            process.kill()  # where a signal ended the wait
        if process.returncode == 0:
            advance(wheel.size_bytes - num_bytes, f"{wheel.size_bytes / 1e6:.0f} MB")
    message = log.read_text(errors="replace").strip()
    log.unlink()
    for leftover in sorted(scratch.rglob("*"), reverse=True):
        leftover.rmdir() if leftover.is_dir() else leftover.unlink()
    if process.returncode != 0:
        raise _pip_error(wheel, message, downloads)


def _pip_error(wheel: Wheel, message: str, downloads: Path) -> FetchError | StorageError:
    if "No module named pip" in message:
        return FetchError(f"{sys.executable} has no pip, which fetches {wheel.requirement}: python -m ensurepip")
    if any(phrase in message for phrase in _DISK_FULL):
        return StorageError(
            f"the disk is full: {wheel.requirement} needs {wheel.size_bytes / 1e6:.0f} MB in {downloads}; "
            "free some space or choose another place with HLLM_HOME"
        )
    if any(phrase in message for phrase in _NO_NETWORK):
        return FetchError(
            f"the package index that pip is set up with cannot be reached or does not have {wheel.requirement}; check "
            f"the network and `pip config list`, then try again. pip said: {message[-_TAIL:]}"
        )
    return FetchError(f"pip could not download {wheel.requirement}: {message[-_TAIL:]}")


def _unpack(wheel: Wheel, path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.startswith(wheel.prefix) and not m.is_dir()]
            if not members:
                raise FetchError(f"{wheel.requirement} holds no files under {wheel.prefix}")
            for member in members:
                member.filename = member.filename.removeprefix(wheel.prefix)
                archive.extract(member, folder)  # zipfile drops "..", drive letters and leading slashes
    except zipfile.BadZipFile as error:
        raise FetchError(f"{path} is not a readable wheel: {error}") from None


def _arrived(scratch: Path) -> int:
    """Return the bytes of the wheels below `scratch`, where pip makes and removes folders meanwhile."""
    folders = os.walk(scratch)  # leaves out a folder that is gone; Path.rglob fails at it
    return sum(_size(Path(folder, name)) for folder, _, names in folders for name in names if name.endswith(".whl"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # pip has just renamed it
        return 0
