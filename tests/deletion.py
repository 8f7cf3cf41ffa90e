"""Delete each system and each add-on package in turn, and see that what is left passes. Usage: deletion.py [TEST …].

A system is a folder of `systems/`. An add-on is a package that pyproject.toml lists in [tool.deletion], with its tests. The
core must not depend on either. For each, a copy of the checkout without it is made, its generated pages are written again,
and `lint-imports`, `pytest --collect-only` and some tests of the core run there. TEST: other tests to run, such as `tests`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE = ["tests/test_package.py", "tests/test_recipes.py", "tests/test_docs.py", "tests/test_systems.py"]


@dataclass(frozen=True)
class Deletion:
    """Something that the rest must be able to do without."""

    name: str
    folders: tuple[str, ...]
    """Relative to the checkout."""
    generator: str
    """The script that writes the pages which tell of it."""


def deletions() -> list[Deletion]:
    """Return every system and every add-on package of this checkout."""
    systems = [path.parent.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("systems/*/system.md"))]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["deletion"]
    return [
        *(Deletion(folder, (folder,), "docs/coverage.py") for folder in systems),
        *(Deletion(name, (f"src/hllm/{name}", f"tests/{name}"), "docs/generate.py") for name in settings["add-ons"]),
    ]


def copy_without(deletion: Deletion, target: Path) -> None:
    """Copy the files that git knows or does not ignore, but for those of the deletion."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    missing = [folder for folder in deletion.folders if not (ROOT / folder).is_dir()]
    if missing:
        raise SystemExit(f"{deletion.name}: there is no folder {missing[0]}")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not any(Path(name).is_relative_to(folder) for folder in deletion.folders):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def check(deletion: Deletion, tests: list[str]) -> bool:
    """Return whether all commands pass in a copy without it; what a failing one prints is shown."""
    scripts = Path(sys.executable).parent
    commands = [
        [sys.executable, deletion.generator],
        [str(scripts / "lint-imports")],
        [sys.executable, "-m", "pytest", "--collect-only", "-q"],
        [sys.executable, "-m", "pytest", "-q", *tests],
    ]
    with tempfile.TemporaryDirectory() as folder:
        copy_without(deletion, Path(folder))
        environment = os.environ | {"PYTHONPATH": str(Path(folder) / "src")}  # wins over an editable installation
        for command in commands:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode:
                print(f"{deletion.name}: {' '.join(command)} failed\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
                return False
    return True


def main() -> int:
    """Try every deletion; return 1 if one of them leaves something broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=CORE)
    tests = parser.parse_args().tests
    passed = []
    for deletion in deletions():
        start = time.monotonic()
        passed.append(check(deletion, tests))
        print(f"without {deletion.name}: {'passed' if passed[-1] else 'FAILED'}, {time.monotonic() - start:.0f} s")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
