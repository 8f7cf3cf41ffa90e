"""The content of a language model's directory decides what a run is, wherever the directory lies."""

# Proved by tests/training/test_going_on.py.

from pathlib import Path

from hllm import artifacts
from hllm.models.backbone.directory import CONFIG, names_in, own_file
from hllm.models.backbone.tokenizer import tokenizer_files


def fingerprint_of_model(folder: Path) -> str:
    """Return a hash of a model directory's settings, tokenizer and weights; other files in it do not count."""
    weights = [name for name in names_in(folder) if ".safetensors" in name and not name.startswith(".")]
    names = [own_file(folder, name).name for name in [CONFIG, *tokenizer_files(folder), *weights]]
    return artifacts.fingerprint({name: artifacts.sha256_of(folder / name) for name in names})
