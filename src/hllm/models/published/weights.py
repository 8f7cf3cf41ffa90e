"""Weights published by the authors of HLLM, turned into a checkpoint of hllm."""

import json
import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hllm import artifacts
from hllm.data.prompt import PromptConfig
from hllm.errors import CheckpointError, ConfigError
from hllm.models.backbone.tokenizer import copy_tokenizer, load_tokenizer, tokenizer_files
from hllm.models.build import ModelConfig, build_model
from hllm.models.checkpoint import ITEM_BACKBONE, USER_BACKBONE, save_checkpoint
from hllm.models.item.text import TextItemConfig
from hllm.models.published.state_dict import read_state_dict
from hllm.models.recommender import MAX_SCALE, SequentialRecommender
from hllm.models.user.llm import UserLLMConfig

PROMPT = "Compress the following sentence into embedding: "
_LLMS = {"item_encoder": "item_llm", "user_encoder": "user_llm"}
_ITEM_TOKEN, _SCALE = "item_emb_tokens", "logit_scale"
_LM_HEAD = "an LM head, which recommends nothing"
_USER_WORDS = "word embeddings of the User LLM, which reads items"
_ROTARY = "rotary frequencies, which follow from the config"


@dataclass(frozen=True)
class ImportedWeights:
    """The outcome of importing a published file."""

    used: int
    """Number of its tensors that are in the checkpoint now."""
    ignored: dict[str, list[str]]
    """Reason -> names of tensors that were left out."""
    pooling: str
    """"item" if the file holds an [ITEM] vector, else "mean"."""
    log_scale: float
    clamped_from: float | None
    """The `logit_scale` of the file, if it was outside [0, ln 100] and had to be brought back."""
    tokenizer: str
    """"copied", or why not."""


def import_published(
    weights: Path,
    *,
    item_config: Path,
    user_config: Path,
    out: Path,
    max_history: int = 50,
    max_tokens: int = 256,
) -> ImportedWeights:
    """Write the checkpoint directory `out` from a flat state dict with the names of bytedance/HLLM.

    `item_config` and `user_config` are directories with the config.json of the two language models (Llama, Mistral,
    or Baichuan2-7B). Tokenizer files beside the former are kept, so that new text can be read. Items read as in the
    reference: its prompt, then "field: value" with nothing between. Tensors stay in the file's number format. They
    are mapped from the file and written one tier after the other, so this takes disk space but little memory.

    Raises CheckpointError if any tensor is missing, unexpected or of another shape. Raises ConfigError for configs
    that fit no model here, and for an `out` that exists. In either case nothing is written.

    Source: names and shapes as in bytedance/HLLM, code/REC/model/HLLM/hllm.py.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; give a new directory")
    state = read_state_dict(weights)
    ignored = _set_aside(state)
    num_tensors = len(state)
    _unpack(state)
    log_scale, clamped_from = _log_scale(state, weights)
    pooling: Literal["item", "mean"] = "item" if _ITEM_TOKEN in state else "mean"
    config = _model_config(pooling, log_scale, max_history=max_history, max_tokens=max_tokens)
    with tempfile.TemporaryDirectory(prefix="hllm-") as folder:
        shapes = Path(folder)  # the configs and the tokenizer, laid out as in a checkpoint
        sources = {ITEM_BACKBONE: item_config, USER_BACKBONE: user_config}
        for name, source in sources.items():
            _write_config(source, shapes / name)
        tokenizer = _stage_tokenizer(item_config, shapes / ITEM_BACKBONE, max_tokens)
        model = _without_memory(config, shapes, sources)
        _fill(model, state, weights)
        model.log_scale = nn.Parameter(torch.tensor(log_scale))
        save_checkpoint(
            out,
            model,
            config,
            num_items=0,
            num_actions=0,
            tokenizer=shapes / ITEM_BACKBONE,
            details={"imported": {"file": weights.name, "sha256": artifacts.sha256_of(weights)}},
        )
    return ImportedWeights(num_tensors, ignored, pooling, log_scale, clamped_from, tokenizer)


def published_name(tier: str, key: str) -> str:
    """Return what the reference calls a tensor of "item_encoder" or "user_encoder"."""
    if key == "item_token":
        return _ITEM_TOKEN
    return f"{_LLMS[tier]}.model.{key.removeprefix('backbone.network.')}"


def _model_config(
    pooling: Literal["item", "mean"], log_scale: float, *, max_history: int, max_tokens: int
) -> ModelConfig:
    """Return how the reference's model is described here; its word embeddings are trained, so they stay trainable."""
    return ModelConfig(
        max_history=max_history,
        item=TextItemConfig(
            backbone=ITEM_BACKBONE,
            pooling=pooling,
            train_word_embeddings=True,
            prompt=PromptConfig(prefix=PROMPT, separator="", strip=False, cut_closing=True, max_tokens=max_tokens),
        ),
        user=UserLLMConfig(backbone=USER_BACKBONE),
        temperature=min(1.0, max(1 / MAX_SCALE, math.exp(-log_scale))),
    )


def _without_memory(config: ModelConfig, folder: Path, sources: Mapping[str, Path]) -> SequentialRecommender:
    """Build the model on torch's meta device: names and shapes only. Errors name the caller's files, not our copies."""
    try:
        with torch.device("meta"):
            return build_model(config, num_items=0, num_actions=0, base=folder)
    except ConfigError as error:
        message = str(error)
        for name, source in sources.items():
            message = message.replace(str(folder / name), str(source))
        raise ConfigError(message) from None


def _set_aside(state: dict[str, Tensor]) -> dict[str, list[str]]:
    """Take out of `state` what the reference stores and never reads; return the names by reason."""
    ignored: dict[str, list[str]] = {}
    for name in sorted(state):
        llm, _, rest = name.partition(".")
        if llm not in _LLMS.values():
            continue
        if rest.startswith("lm_head."):
            reason = _LM_HEAD
        elif llm == "user_llm" and rest == "model.embed_tokens.weight":
            reason = _USER_WORDS
        elif rest.endswith("rotary_emb.inv_freq"):
            reason = _ROTARY
        else:
            continue
        ignored.setdefault(reason, []).append(name)
        del state[name]
    return ignored


def _unpack(state: dict[str, Tensor]) -> None:
    """Split Baichuan's W_pack, the rows of q, k and v one after another, into three, in place."""
    for name in [name for name in state if name.endswith(".W_pack.weight")]:
        packed = state.pop(name)
        for part, rows in zip("qkv", packed.tensor_split(3), strict=True):
            state[name.replace(".W_pack.", f".{part}_proj.")] = rows


def _log_scale(state: dict[str, Tensor], weights: Path) -> tuple[float, float | None]:
    """Take the scale out of `state`; return its logarithm within [0, ln 100], and the file's if that was outside."""
    if _SCALE not in state:
        raise CheckpointError(f"{weights} lacks {_SCALE!r}: it is not a state dict of HLLM")
    tensor = state.pop(_SCALE)
    value = float(tensor) if tensor.shape == () else math.nan
    if not math.isfinite(value):
        raise CheckpointError(
            f"{_SCALE!r} in {weights} has shape {tuple(tensor.shape)} and value {value}; expected one finite number"
        )
    log_scale = min(max(value, 0.0), math.log(MAX_SCALE))
    # A float32 just above ln 100 is what the reference's own clamp leaves behind.
    return log_scale, value if abs(value - log_scale) > 1e-6 else None


def _fill(model: SequentialRecommender, state: Mapping[str, Tensor], weights: Path) -> None:
    """Put the tensors themselves, not copies, into a model without memory; CheckpointError for any that differ."""
    reader = model.item_encoder.reader
    if reader is None or reader.projector is not None:
        raise CheckpointError(
            "the two configs are of different hidden_size, which the reference cannot have; check --item-config and "
            "--user-config"
        )
    tensors = {published_name(t, k): (t, k, v) for t in _LLMS for k, v in getattr(model, t).state_dict().items()}
    shapes = {name: (1, *v.shape) if name == _ITEM_TOKEN else tuple(v.shape) for name, (_, _, v) in tensors.items()}
    faults = [
        _listed("missing", [name for name in tensors if name not in state]),
        _listed("unexpected", [name for name in state if name not in tensors]),
        _listed(
            "of another shape",
            [
                f"{name} {tuple(state[name].shape)}, expected {shape}"
                for name, shape in shapes.items()
                if name in state and tuple(state[name].shape) != shape
            ],
        ),
        _listed("not floating point", [name for name, value in state.items() if not value.is_floating_point()]),
    ]
    if any(faults):
        raise CheckpointError(
            f"{weights} does not fit the configs: {'; '.join(filter(None, faults))}. "
            "Check that --item-config and --user-config are those of the base model"
        )
    for tier in _LLMS:
        tier_state = {k: state[name].reshape(v.shape) for name, (t, k, v) in tensors.items() if t == tier}
        getattr(model, tier).load_state_dict(tier_state, assign=True)


def _listed(fault: str, names: Iterable[str]) -> str:
    listing = list(names)
    return f"{len(listing)} {fault}, first: {', '.join(listing[:3])}" if listing else ""


def _write_config(source: Path, folder: Path) -> None:
    """Write `source`/config.json into `folder`, Baichuan's as the equal Llama's; other models' as it is."""
    try:
        values = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{source} holds no config.json; give the directory of the base model") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source}/config.json cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{source}/config.json holds no JSON object")
    if values.get("model_type") == "baichuan":
        values = _as_llama(values, source)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")


def _as_llama(baichuan: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Return the Llama config of a Baichuan-7B: RoPE, RMSNorm, SwiGLU, as many key heads as query heads.

    Source: Baichuan 2, arXiv:2309.10305, section 2; its 13B model has ALiBi instead of RoPE.
    """
    if baichuan.get("hidden_size") == 5120 or "max_position_embeddings" not in baichuan:
        raise ConfigError(
            f"{source}/config.json is of a Baichuan with ALiBi (13B), which has no equal here; "
            "only the 7B models, with rotary positions, can be imported"
        )
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "max_position_embeddings", "rms_norm_eps", "hidden_act")  # fmt: skip
    absent = [name for name in sizes if name not in baichuan]
    if absent:
        raise ConfigError(f"{source}/config.json lacks {', '.join(absent)}; take it from the model's own directory")
    dimensions = {name: baichuan[name] for name in sizes}
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_key_value_heads": baichuan["num_attention_heads"],
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        **dimensions,
    }


def _stage_tokenizer(source: Path, folder: Path, max_tokens: int) -> str:
    """Copy the tokenizer of `source` into `folder` if it can be read; return "copied" or why not."""
    names = tokenizer_files(source)
    if not names:
        return f"none in {source}: the checkpoint reads token ids, no new text"
    copy_tokenizer(source, folder)
    try:
        load_tokenizer(folder, max_tokens)
    except ConfigError as error:
        for name in names:
            (folder / name).unlink()
        reason = str(error).partition("\n")[0].replace(str(folder), str(source))
        return (
            f"not copied: {reason} To read new text, put a tokenizer.json there, and no auto_map in "
            "tokenizer_config.json"
        )
    return "copied"
