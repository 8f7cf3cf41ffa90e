"""BackboneFacts: abilities of a network, as seen on examples; kept with a checkpoint, they need not be tried again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers

from hllm.models.backbone.rows import Heads

_FILE = "facts.json"


@dataclass(frozen=True)
class BackboneFacts:
    """Abilities of a network. The devices that make it fast are listed in the docstring of `hllm.models.backbone`."""

    width: int
    """Size of its states."""
    causal: bool
    """Whether a position sees nothing behind it."""
    fast: bool = False
    """Whether devices that make it fast are in use; False for the stock network."""
    ends_early: bool = False
    """Whether its last layer's feed-forward net can read chosen positions alone."""
    reads_behind: bool = False
    """Whether texts with the same beginning can share its keys and values."""
    packs: bool = False
    """Whether several short sequences can stand in one padded row."""
    rows: frozenset[Heads] | None = None
    """The attention that it calls for where sequences stand in one row without padding; empty where it cannot read
    such a row, None where that was not tried, as without a GPU."""

    def save(self, folder: Path) -> None:
        """Write the facts, and the versions of the libraries that they hold for."""
        facts = asdict(self) | {"rows": None if self.rows is None else sorted(map(list, self.rows), key=str)}
        (folder / _FILE).write_text(json.dumps({"versions": _versions(), "facts": facts}, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "BackboneFacts | None":
        """Read facts; None if there are none that can be read and that hold for the libraries installed here."""
        if not (folder / _FILE).is_file():
            return None
        try:
            content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            if content["versions"] != _versions():
                return None
            rows = content["facts"].pop("rows")
            return cls(**content["facts"], rows=None if rows is None else frozenset(Heads(*heads) for heads in rows))
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return None  # they are found out again


def _versions() -> dict[str, str]:
    return {"torch": str(torch.__version__), "transformers": transformers.__version__}
