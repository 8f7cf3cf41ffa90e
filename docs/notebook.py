"""Turn a program whose cells begin with `# %%` into a notebook."""

import json
import re
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent.parent / "examples" / "first_hour.py"
TARGET = SOURCE.with_name("first-hour.ipynb")
_CELL = re.compile(r"^# %%(.*)\n", flags=re.MULTILINE)


def notebook() -> str:
    """Return the notebook of the first hour, without outputs: they depend on the machine."""
    _, *parts = _CELL.split(SOURCE.read_text(encoding="utf-8"))  # kind and text of each cell, in turn
    cells = [_cell(kind.strip(), text.strip()) for kind, text in zip(parts[::2], parts[1::2], strict=True)]
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cell(kind: str, text: str) -> dict[str, Any]:
    if kind == "[markdown]":
        prose = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        return {"cell_type": "markdown", "metadata": {}, "source": prose.splitlines(keepends=True)}
    source = text.splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
