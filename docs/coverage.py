"""Say which published systems are here: docs/coverage.md, from systems/catalogue.toml and systems/*/system.md."""

import tomllib
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent.parent / "systems"
TARGET = Path(__file__).parent / "coverage.md"
STATES = {
    "claim seen": "the recipe has run on real data, and the result shows the claim",
    "claim seen in part": "the recipe has run on real data, and the result shows a part of the claim",
    "claim not seen": "the recipe has run on real data, and the result does not show the claim",
    "planted data": "it runs, and its claim is tested on made data only",
    "in part": "some of the system is here; the page says what is not",
    "recipe only": "the recipe is planned, and was not run: the data or the machine is not at hand",
    "missing": "nothing of it is here",
}
_FENCE = "---\n"
_HEAD = """# Coverage

This page says which published systems are here, and what was seen of their claims. Each has a folder in `systems/`: a
recipe, a page, and a test of its claim on small made data. The tests run with one command:

```
pytest systems
```

An acceptance is fixed before it is run: the protocol, the seeds, and what must exceed what. If that fails, the state
says so, and the page has both numbers. Made by `python docs/generate.py` from `systems/`; do not edit.

| state | meaning | systems |
| --- | --- | ---: |
"""


def facts_of(folder: Path) -> dict[str, Any]:
    """Return the facts at the top of a system's page, between two lines of `---`."""
    _, facts, _ = (folder / "system.md").read_text(encoding="utf-8").split(_FENCE, maxsplit=2)
    read: dict[str, Any] = yaml.safe_load(facts)
    return read


def system_folders() -> list[Path]:
    """Return the folders of systems, in the order of their numbers."""
    return sorted(path.parent for path in FOLDER.glob("*/system.md"))


def coverage() -> str:
    """Return the page: one row for each system of the catalogue."""
    catalogue = tomllib.loads((FOLDER / "catalogue.toml").read_text(encoding="utf-8"))["system"]
    folders = {facts_of(folder)["number"]: folder for folder in system_folders()}
    states = {number: facts_of(folder)["state"] for number, folder in folders.items()}
    counts = {state: sum(states.get(system["number"], "missing") == state for system in catalogue) for state in STATES}
    meanings = [f"| {state} | {meaning} | {counts[state]} |" for state, meaning in STATES.items()]
    rows = [_row(system, folders.get(system["number"])) for system in catalogue]
    table = ["", "| | system | reference | state | last result |", "| ---: | --- | --- | --- | --- |", *rows]
    return _HEAD + "\n".join(meanings + table) + "\n"


def _row(system: dict[str, Any], folder: Path | None) -> str:
    facts = {} if folder is None else facts_of(folder)
    name = system["name"] if folder is None else f"[{system['name']}](../systems/{folder.name}/system.md)"
    references = [system["about"]]
    if "paper" in facts:
        references.append(f"[{facts['paper']}](https://arxiv.org/abs/{facts['paper'].removeprefix('arXiv:')})")
    if "code" in system:
        references.append(f"[code](https://github.com/{system['code']})")
    cells = [
        str(system["number"]),
        name,
        ", ".join(references),
        facts.get("state", "missing"),
        facts.get("result", "–"),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    TARGET.write_text(coverage(), encoding="utf-8")
