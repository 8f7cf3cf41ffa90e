"""A flat state dict from a file that somebody else wrote: read as plain tensors, never as code."""

# Proved by tests/models/published/test_weights.py.

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hllm.errors import CheckpointError, first_few

_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "model.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `.safetensors` file or of a torch pickle, by name, on the CPU in the file's format.

    Tensors are mapped into memory, not read, wherever the format allows it: the file must stay until they are used.
    A dict wrapped as `state_dict` or `model` is taken out, and "module." or "model." in front of every name goes.
    Raises CheckpointError for a file that is missing, damaged, or holds anything but tensors by name. A pickle that
    asks for code is refused before any of it runs.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give the weights, such as pytorch_model.bin")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for _ in _WRAPPERS:
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    wrong = [key for key, value in content.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if wrong or not content:
        found = f"{len(wrong)} of {len(content)} entries are no tensors; first: {first_few(wrong)}"
        raise CheckpointError(f"{path} is not a state dict: {found if wrong else 'it is empty'}")
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in content)), ""):
        content = {key.removeprefix(prefix): value for key, value in content.items()}
    return dict(content)


def _read_safetensors(path: Path) -> Mapping[Any, Any]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from None
    return tensors


def _read_pickle(path: Path) -> Mapping[Any, Any]:
    try:
        # Only files in torch's zip format can be mapped; those from before torch 1.6 are read.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # torch's own advice is to load the file without this protection; only its finding is kept.
        finding = str(error).partition("WeightsUnpickler error:")[2].partition(" was not an allowed")[0].strip()
        raise CheckpointError(
            f"{path} holds more than tensors, or is no torch file; nothing of it was run ({finding or 'unreadable'}). "
            "Save the plain state dict with torch.save, or as safetensors"
        ) from None
    except Exception as error:  # a damaged pickle fails in as many ways as there are types
        raise CheckpointError(f"{path} is damaged or no torch file: {type(error).__name__}: {error}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dict of tensors by name")
    return content
