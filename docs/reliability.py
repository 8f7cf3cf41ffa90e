"""Say what was tried to make hllm lose or mix data, and how often it did: docs/reliability.md.

`python docs/reliability.py JUNIT.xml` counts the trials of `pytest -m reliability --junitxml JUNIT.xml`, keeps them in
docs/reliability.json, and writes the page. Without an argument it writes the page from what is kept.
"""

import datetime
import json
import os
import platform
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent / "reliability.json"
TARGET = Path(__file__).parent / "reliability.md"
ROWS = {
    "training killed": (
        "Training that is killed by SIGKILL at any moment goes on with the same command. Losses, metrics and "
        "weights end as those of a run that was not disturbed, bit for bit, and nothing half-written is left."
    ),
    "save killed": (
        "A checkpoint whose writer is killed before any of its changes to files is the old one or the new one, whole."
    ),
    "verb killed": (
        "A verb that is killed while it writes has written all or nothing. The same command then makes the "
        "same bytes. Vectors of items and users go on where they were."
    ),
    "training stopped": (
        "Training that dies or is stopped in the middle of an epoch, of a validation or of a save goes on to "
        "the same losses and weights."
    ),
    "processes": "Two processes train as one does, in the same order of examples.",
    "signals": "SIGTERM and SIGINT end a verb with the number of the signal. Training first saves its last step.",
    "not finite": "A step whose loss or gradient is not finite changes no weight. The tenth in a row ends training.",
    "bytes changed": (
        "One changed byte in any file of a checkpoint, dataset, token cache, table, index, exported vectors "
        "or imported interactions is found. The message names the place."
    ),
    "files cut": "A file of those that is cut at 0, 1, 8, half or all but one of its bytes, or is missing, is found.",
    "disk": (
        "A full disk, a read-only folder or a folder of another user ends a verb with a sentence. The files "
        "that were there stay as they were; the log of evaluations may have a line more."
    ),
    "second writer": "A second writer to the same place is refused and told who writes.",
    "swapped": "What is opened while another process replaces it is of one version, and is never called damaged.",
    "other parts": "A table, index or dataset that belongs to another model is refused.",
    "strangers": (
        "A run, index or model directory of a stranger runs no code, reads nothing outside of itself and "
        "connects to nothing."
    ),
    "sockets": "No verb opens a socket, but those that fetch.",
    "any table": (
        "Any ids, texts and times, with NUL, lone surrogates, ties and empty cells, make a dataset or an "
        "error with a message. A second preparation changes nothing, nor does the order of rows whose times "
        "differ."
    ),
    "broken tables": "Broken tables are refused in a sentence; rows at fault are counted, exactly.",
    "metrics": (
        "Metrics equal those of ir-measures, which others wrote. A model of constant scores is at chance, exactly."
    ),
    "batches": "A text has the same vector alone, among others, padded or packed.",
    "control tokens": "No text of an item forges a control token.",
    "imports": "Importing the package and showing its help load no heavy library.",
}
_HEAD = """# Reliability

This page says what was done to make `hllm` lose, mix or misread data, and how often that succeeded. One command does it
all again and writes this page:

```
make reliability
```

Each row is a claim. A trial is one kill, one damaged file, one made table, or one case of a test. `make nightly` makes
ten times the kills and made tables, and tries every change to a file. Made by `python docs/reliability.py` from
`docs/reliability.json`; do not edit.

"""


def counted(junit: Path) -> dict[str, Any]:
    """Return the record of a run of the tests: trials, failed tests and files for each row."""
    rows: dict[str, dict[str, Any]] = {row: {"trials": 0, "failures": 0, "tests": []} for row in ROWS}
    for case in ElementTree.parse(junit).iter("testcase"):
        kept = {each.get("name"): each.get("value") for each in case.iter("property")}
        if "row" not in kept or case.find("skipped") is not None:
            continue
        row = rows[str(kept["row"])]
        row["trials"] += int(kept.get("trials") or 1)
        row["failures"] += case.find("failure") is not None or case.find("error") is not None
        row["tests"] = sorted({*row["tests"], str(case.get("file"))})
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "nightly": "HLLM_NIGHTLY" in os.environ,
        "rows": rows,
    }


def page(record: dict[str, Any]) -> str:
    """Return the page of a record."""
    rows = record["rows"]
    lines = ["| | claim | trials | failures | tests |", "| --- | --- | ---: | ---: | --- |"]
    for name, claim in ROWS.items():
        row = rows[name]
        tests = ", ".join(f"`{test}`" for test in row["tests"])
        lines.append(f"| {name} | {claim} | {row['trials']:,} | {row['failures']:,} | {tests} |")
    trials, failures = (sum(row[key] for row in rows.values()) for key in ("trials", "failures"))
    size = "the trials of `make nightly`" if record["nightly"] else "the trials of `make reliability`"
    machine = f"{record['date']}, {record['machine']}, Python {record['python']}"
    return _HEAD + f"{machine}: {size}, {trials:,} in all; {failures:,} failed.\n\n" + "\n".join(lines) + "\n"


def stored() -> dict[str, Any]:
    """Return the record that is kept."""
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return record


if __name__ == "__main__":
    for junit in sys.argv[1:]:
        RECORD.write_text(json.dumps(counted(Path(junit)), indent=1) + "\n", encoding="utf-8")
    TARGET.write_text(page(stored()), encoding="utf-8")
