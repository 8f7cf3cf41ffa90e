"""Make the network that a config describes, with the weights of its directory, of a caller, or fresh ones."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from hllm.errors import CheckpointError, ConfigError
from hllm.models.backbone.directory import Header, read_headers

_NOT_WEIGHTS = ("inv_freq", "position_ids", "token_type_ids", "masked_bias", "attention_mask", "logit_scale")
"""Tensors that older versions of transformers kept beside the weights; a network computes them itself."""


def open_network(
    path: Path | dict[str, Any], config: Any, *, pretrained: bool, weights: Mapping[str, Tensor] | None
) -> Any:
    """Return the network in fp32 without its head; see `load_backbone`.

    Raises ConfigError for a config that makes no network; CheckpointError unless the network reads every tensor of
    its layers, and finds all that it needs.
    """
    options = {"dtype": torch.float32, "attn_implementation": _attention()}
    if not pretrained and weights is None:
        return _made(path, config, options)
    with torch.device("meta"):
        outline = _made(path, config, options)
    if weights is not None:
        of_type: Any = MODEL_MAPPING[type(config)]
        with _quiet():
            return of_type.from_pretrained(
                None, config=config, state_dict=_with_words(outline, config, weights), **options
            )
    assert isinstance(path, Path), "a shape has no weights"
    headers = read_headers(path)
    _require_as_many(outline, headers, path)
    with _quiet():
        try:
            network, report = AutoModel.from_pretrained(
                path, config=config, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
            )
        except Exception as error:  # whatever a strange directory brings about in transformers
            raise CheckpointError(
                f"{path} holds no safetensors weights that fit its config: {_sentence(error)}"
            ) from None
    _require_all_read(network, report, headers, path)
    return network


def _made(path: Path | dict[str, Any], config: Any, options: Mapping[str, Any]) -> Any:
    try:
        return AutoModel.from_config(config, **options)
    except Exception as error:  # a wrong value fails in as many ways as there are values
        raise ConfigError(
            f"{_named(path)} describes no network of type {config.model_type!r} that transformers "
            f"{transformers.__version__} can make: {_sentence(error)}"
        ) from None


def _require_as_many(outline: nn.Module, headers: Mapping[str, Header], path: Path) -> None:
    """Raise CheckpointError if the config describes a network far larger than the weights: it may not fit in memory."""
    described = sum(parameter.numel() for parameter in outline.parameters())
    held = sum(torch.Size(header.shape).numel() for header in headers.values())
    if described > 4 * held + 1_000_000:
        raise CheckpointError(
            f"{path}/config.json describes a network of {described:,} parameters, and the weights hold {held:,}: "
            "one of them belongs to another model; fetch the model again"
        )


def _require_all_read(network: Any, report: Mapping[str, Any], headers: Mapping[str, Header], path: Path) -> None:
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler"))
    if missing:
        raise CheckpointError(
            f"the weights in {path} lack {len(missing)} of the network's tensors; first: {', '.join(missing[:3])}"
        )
    modules = {name for name, _ in network.named_modules() if name}
    prefix = network.base_model_prefix
    beside = sorted(name for name in report["unexpected_keys"] if _changes(name, headers.get(name), modules, prefix))
    if beside:
        raise CheckpointError(
            f"the weights in {path} hold {len(beside)} tensors that nothing reads, of layers that the network has; "
            f"first: {', '.join(beside[:3])}. Without them it would compute something else: they are scales of "
            "quantised weights, or config.json belongs to another model"
        )


def _changes(name: str, header: Header | None, modules: set[str], prefix: str) -> bool:
    """Return whether a tensor that nothing reads is of a module of the network, and not of a head or a cut layer."""
    module, _, tensor = name.removeprefix(f"{prefix}.").rpartition(".")
    computed = header is not None and (header.dtype[0] in "IUB" or len(header.shape) > 3)  # positions and masks
    if computed or tensor in _NOT_WEIGHTS or module.startswith("pooler"):
        return False
    return module in modules or re.search(r"scale_inv$|(weight|input|output|[kqv])_scale$|^scales$", tensor) is not None


def _with_words(outline: Any, config: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `weights` with zeros, which take no memory, for word embeddings that are not among them.

    A tier that reads no words has none, and drops them. Without anything in their place transformers draws them first,
    which takes longer than all else in loading a few layers.
    """
    if any(len(weight) == config.vocab_size for weight in weights.values() if weight.ndim == 2):
        return dict(weights)  # most likely they are there
    words = outline.get_input_embeddings().weight
    name = next(name for name, parameter in outline.named_parameters() if parameter is words)
    return {name: torch.zeros(()).expand(words.shape), **weights}


def _attention() -> str | None:
    """Return None for the best that the network has, which is fused where it can be (not in Gemma 2, say).

    On a CPU, torch's fused attention is slow in its backward pass at the lengths of items and histories.

    Two AMX cores, two layers in the shape of SmolLM2, bf16 autocast: 512 × 12 tokens in 1.72 s fused and 0.97 s
    plain, 64 × 50 in 0.73 s and 0.57 s (benchmarks/precision.py).
    """
    return None if torch.cuda.is_available() else "eager"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' report of unused weights: the head and the layers beyond num_layers are meant to be."""
    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def _named(path: Path | dict[str, Any]) -> str:
    return f"{path}/config.json" if isinstance(path, Path) else "the config"


def _sentence(error: Exception) -> str:
    """Return an error of another library in one line, with its type where the text alone says little."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:400]
