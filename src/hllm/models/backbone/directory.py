"""A model directory is looked at before anything of it is used: its files, its settings, its weights' headers."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from safetensors import SafetensorError, safe_open

from hllm.errors import CheckpointError, ConfigError

CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"
_MAX_JSON_BYTES = 32 * 2**20
_FLOATS = ("F64", "F32", "F16", "BF16")
_MOST = {"layer": 1_000, "label": 100_000, "expert": 100_000}
"""What a config may say at most in a number whose name has this word: so many objects are made of it."""


@dataclass(frozen=True)
class Header:
    """The type and the shape of a stored tensor."""

    dtype: str
    shape: tuple[int, ...]


def own_file(folder: Path, name: str) -> Path:
    """Return a file of a model directory that is there, can be read, and lies in it.

    A link may lead to the directory itself or, in a cache of Hugging Face, to its store of files. Raises
    CheckpointError for weights, ConfigError for others.
    """
    file, home = folder / name, folder.resolve()
    wrong = CheckpointError if ".safetensors" in name else ConfigError
    try:
        real = file.resolve()
        in_cache = home.parent.name == "snapshots" and real.parent == home.parent.parent / "blobs"
        if not (real.is_relative_to(home) or in_cache):
            raise wrong(f"{file} is a symbolic link that leads out of the model directory: put the file itself there")
        if not file.is_file():
            raise wrong(f"{file} is {'no file' if os.path.lexists(file) else 'missing'}: fetch the model again")
        with file.open("rb") as stream:
            beginning = stream.read(len(_POINTER))
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
        raise wrong(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not beginning:
        raise wrong(f"{file} is empty: its download failed; fetch the model again")
    if beginning == _POINTER:
        raise wrong(f"{file} is a pointer of Git LFS, not the file itself: run git lfs pull there, or fetch it again")
    return file


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file of a model directory; ConfigError or CheckpointError as `own_file`."""
    file = own_file(folder, name)
    wrong = CheckpointError if ".safetensors" in name else ConfigError
    try:
        if file.stat().st_size > _MAX_JSON_BYTES:
            raise wrong(f"{file} has {file.stat().st_size:,} bytes; expected at most {_MAX_JSON_BYTES:,}")
        values = json.loads(file.read_bytes())
    except OSError as error:
        raise wrong(f"{file} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise wrong(f"{file} is nested too deeply for a model's file") from None
    except ValueError as error:
        raise wrong(f"{file} is not JSON: {error}; fetch the model again") from None
    if not isinstance(values, dict):
        raise wrong(f"{file} holds {type(values).__name__}, expected an object in braces")
    return values


def require_settings(folder: Path) -> None:
    """Raise ConfigError for a config.json that asks for what is not read here, or for more than a model has."""
    values, file = read_json(folder, CONFIG), folder / CONFIG
    for key in ("quantization_config", "compression_config"):
        if (how := values.get(key)) is not None:
            method = how.get("quant_method", "an unknown method") if isinstance(how, dict) else how
            raise ConfigError(
                f"{file} says that the weights are quantised ({key}: {method}), and hllm reads plain floats only: "
                "take the model's repository without quantisation, or save it dequantised and remove this entry"
            )
    if values.get("transformers_weights") is not None:
        raise ConfigError(
            f"{file} names a file of weights (transformers_weights): call that file {_WEIGHTS} and remove the entry"
        )
    _require_bounds(values, file)


def names_in(folder: Path) -> list[str]:
    """Return the names of all that is in a model directory, in order; ConfigError if it cannot be listed."""
    try:
        return sorted(file.name for file in folder.iterdir())
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror}") from None


def has_weights(folder: Path) -> bool:
    """Return whether a model directory says that it holds weights, whatever they are like."""
    return any(name in names_in(folder) for name in (_WEIGHTS, _INDEX))


def weight_names(folder: Path) -> list[str]:
    """Return the names of the files that hold the weights: safetensors of this directory; CheckpointError otherwise."""
    shards = _shards(folder) if os.path.lexists(folder / _INDEX) else []
    if os.path.lexists(folder / _WEIGHTS):
        shards = [_WEIGHTS]
    if not shards:
        others = [name for name in names_in(folder) if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        found = f"; it holds {others[0]}, a pickle, which hllm does not open" if others else ""
        raise CheckpointError(
            f"{folder} holds no safetensors weights: {_WEIGHTS} and {_INDEX} are missing{found}. "
            "Fetch the model's safetensors, or load it and save it again with save_pretrained of transformers"
        )
    return [own_file(folder, name).name for name in shards]


def read_headers(folder: Path) -> dict[str, Header]:
    """Return the header of each tensor of the weights, without reading these.

    Raises CheckpointError for a file that is cut or damaged, and for tensors in fewer than 16 bits.
    """
    headers: dict[str, Header] = {}
    for name in weight_names(folder):
        try:
            with safe_open(folder / name, framework="pt") as opened:
                for key in opened.keys():  # it is no mapping
                    tensor = opened.get_slice(key)
                    headers[key] = Header(tensor.get_dtype(), tuple(tensor.get_shape()))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{folder / name} is cut or damaged, or no safetensors file: {error}; fetch the model again"
            ) from None
    _require_floats(headers, folder)
    return headers


def _shards(folder: Path) -> list[str]:
    file, mapping = folder / _INDEX, read_json(folder, _INDEX).get("weight_map")
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(name, str) for name in mapping.values()):
        raise CheckpointError(f"{file} has no weight_map from tensors to files; fetch the model again")
    names = sorted(set(mapping.values()))
    for name in names:
        if PurePath(name).name != name or not name.endswith(".safetensors") or "\0" in name:
            raise CheckpointError(
                f"{file} names {name!r}; expected names of .safetensors files in the model directory itself"
            )
    return names


def _require_bounds(values: Mapping[str, Any], file: Path) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _require_bounds(value, file)
        elif isinstance(value, int | float):
            for word, most in _MOST.items():
                if word in key.lower() and not value <= most:
                    raise ConfigError(f"{file} says {key} = {value:g}; expected at most {most:,}")


def _require_floats(headers: Mapping[str, Header], folder: Path) -> None:
    packed = [
        f"{name} ({header.dtype})"
        for name, header in headers.items()
        if header.dtype not in _FLOATS and (header.dtype[0] == "F" or re.search("weight|packed", name.split(".")[-1]))
    ]
    if packed:
        raise CheckpointError(
            f"{len(packed)} of {len(headers)} tensors in {folder} are quantised, and nothing here reads their scales; "
            f"first: {', '.join(packed[:3])}. Take the model's repository without quantisation ({', '.join(_FLOATS)})"
        )
