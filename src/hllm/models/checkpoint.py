"""Keep a model on disk: safetensors for each tier, the backbones' configs and the tokenizer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hllm import artifacts
from hllm.errors import CheckpointError, ConfigError
from hllm.models.backbone.lora import merge_lora
from hllm.models.build import ModelConfig, build_model
from hllm.models.compact import Weights, load_part, save_part
from hllm.models.kinds import TierConfig
from hllm.models.recommender import MODULES, SequentialRecommender

KIND = "checkpoint"
ITEM_BACKBONE = "item_backbone"
USER_BACKBONE = "user_backbone"
_NETWORK = "backbone.network."


def save_checkpoint(
    path: Path,
    model: SequentialRecommender,
    config: ModelConfig,
    *,
    num_items: int,
    num_actions: int,
    tokenizer: Path | None,
    details: dict[str, Any],
    extra_files: Callable[[Path], None] | None = None,
    weights: Weights = "fp32",
) -> None:
    """Write the model as a directory; it appears whole or not at all.

    `tokenizer` is the directory to copy the tokenizer from; `details` is kept in the manifest;
    `extra_files(folder)` may add files, such as the optimizer's state; `weights` is what they are kept in.
    """
    entries = {
        "model": _without_folders(config).model_dump(mode="json"),
        "num_items": num_items,
        "num_actions": num_actions,
        **details,
    }
    entries |= {} if weights == "fp32" else {"weights": weights}
    with artifacts.writing(path, KIND, entries) as folder:
        repeated = _repeated(model)
        for part in MODULES:
            if (module := getattr(model, part)) is not None:
                repeats = {name.removeprefix(f"{part}.") for name in repeated if name.startswith(f"{part}.")}
                save_part(module, folder, part, weights, leave_out=repeats)
        save_file({"log_scale": model.log_scale.detach().reshape(1).cpu()}, folder / "scale.safetensors")
        model.item_encoder.keep_files(folder / ITEM_BACKBONE, tokenizer)
        model.user_encoder.keep_files(folder / USER_BACKBONE)
        if extra_files is not None:
            extra_files(folder)


def load_checkpoint(path: Path) -> tuple[SequentialRecommender, ModelConfig, artifacts.Manifest]:
    """Check every byte, then rebuild the model in evaluation mode; CheckpointError names what is wrong.

    Weights that are kept in bf16 or int8 come back in fp32, and take its memory.
    """
    return artifacts.reading(path, KIND, _read)


def _read(folder: Path, manifest: artifacts.Manifest) -> tuple[SequentialRecommender, ModelConfig, artifacts.Manifest]:
    config = ModelConfig.from_dict(manifest.details["model"], where=f"{folder}/{artifacts.MANIFEST}")
    sizes = {name: manifest.details[name] for name in ("num_items", "num_actions")}
    parts = _read_parts(folder, weights_of(manifest))
    return _rebuilt(config, folder, parts, **sizes).eval(), config, manifest


def merge_checkpoint(path: Path, destination: Path) -> None:
    """Copy a checkpoint with its LoRA additions made part of its weights; the copy is read without peft.

    Optimizer states are left out. Raises ConfigError if the checkpoint has no additions.
    """
    model, config, manifest = load_checkpoint(path)
    if not _tiers_with_lora(config):
        raise ConfigError(f"{path} was trained without lora: there is nothing to merge")
    _copy(path, destination, model, config, manifest, "fp32")


def compact_checkpoint(path: Path, destination: Path, weights: Weights) -> None:
    """Copy a checkpoint with the weights of both tiers in bf16 or int8, and LoRA additions made part of them.

    Optimizer states are left out. Raises ConfigError if it is such a copy already: it has lost digits once.
    """
    model, config, manifest = load_checkpoint(path)
    _require_fp32(path, manifest, ConfigError)
    _copy(path, destination, model, config, manifest, weights)


def weights_of(manifest: artifacts.Manifest) -> Weights:
    """Return what a checkpoint's weights are kept in, by its manifest."""
    weights: Weights = manifest.details.get("weights", "fp32")
    return weights


def load_grown(
    path: Path, config: ModelConfig, *, num_items: int, num_actions: int, fast: bool = True
) -> SequentialRecommender:
    """Rebuild a checkpoint's model, to be trained on, for a catalogue that has grown behind the items it knows.

    Rows of new items (of a table of ids) and of new actions are fresh, drawn as before training. `config` says what
    learns: LoRA additions that the checkpoint lacks are added, and those that `config` lacks become part of the
    weights. Raises CheckpointError as `load_checkpoint` and `load_weights` do, and if weights do not fit `config`.
    """

    def read(folder: Path, manifest: artifacts.Manifest) -> SequentialRecommender:
        _require_fp32(path, manifest, CheckpointError)
        theirs = ModelConfig.from_dict(manifest.details["model"], where=f"{path}/{artifacts.MANIFEST}")
        parts = _read_parts(folder, "fp32")
        if _tiers_with_lora(theirs).keys() - _tiers_with_lora(config).keys():
            sizes = {name: manifest.details[name] for name in ("num_items", "num_actions")}
            merged = merge_lora(_rebuilt(theirs, folder, parts, **sizes))
            parts = {part: dict(getattr(merged, part).state_dict()) for part in parts}
        sizes = {"num_items": num_items, "num_actions": num_actions}
        return _rebuilt(config, folder, parts, **sizes, grown=True, fast=fast)

    return artifacts.reading(path, KIND, read)


def load_weights(model: SequentialRecommender, path: Path) -> None:
    """Fill `model` with a checkpoint's weights to train on; CheckpointError if names or shapes differ.

    So too for weights that were exported to bf16 or int8, which have lost the digits that small steps change.
    """

    def read(folder: Path, manifest: artifacts.Manifest) -> None:
        _require_fp32(path, manifest, CheckpointError)
        with _fitting(path):
            _fill(model, folder, _read_parts(folder, "fp32"))

    artifacts.reading(path, KIND, read)


def _rebuilt(
    config: ModelConfig,
    path: Path,
    parts: dict[str, dict[str, Tensor]],
    *,
    num_items: int,
    num_actions: int,
    grown: bool = False,
    fast: bool = True,
) -> SequentialRecommender:
    """Return a checkpoint's model with its weights; see `_fill` for `grown`."""
    with _fitting(path):
        item, user = (_network_of(parts[part]) for part in ("item_encoder", "user_encoder"))
        model = build_model(
            config.model_copy(update=_kept(config)),
            num_items=num_items,
            num_actions=num_actions,
            base=path,
            weights={"item": item, "user": item if config.share_backbone else user},
            fast=fast,
        )
        _fill(model, path, parts, grown=grown)
    return model


def _without_folders(config: ModelConfig) -> ModelConfig:
    """Return the settings with the names of language models in place of their paths, which are of this machine."""
    tiers: dict[str, TierConfig] = {"item": config.item, "user": config.user}
    models = {name: tier.language_model for name, tier in tiers.items()}
    names = {name: PurePath(model.backbone).name for name, model in models.items() if model is not None}
    return config.model_copy(
        update={tier: tiers[tier].model_copy(update={"backbone": name}) for tier, name in names.items()}
    )


def _kept(config: ModelConfig) -> dict[str, TierConfig]:
    """Return the tiers with the language models that a checkpoint keeps; they were cut to their layers already."""
    folders: dict[str, tuple[TierConfig, str]] = {
        "item": (config.item, ITEM_BACKBONE),
        "user": (config.user, USER_BACKBONE),
    }
    return {
        name: tier.model_copy(update={"backbone": folder, "num_layers": None})
        for name, (tier, folder) in folders.items()
        if tier.language_model is not None
    }


def _read_parts(path: Path, weights: Weights) -> dict[str, dict[str, Tensor]]:
    with _fitting(path):
        return {part: load_part(path, part, weights) for part in MODULES if (path / f"{part}.safetensors").is_file()}


def _network_of(part: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a tier's language model by its own names, without LoRA's additions."""
    return {
        name.removeprefix(_NETWORK).replace(".base_layer.", "."): value
        for name, value in part.items()
        if name.startswith(_NETWORK) and ".lora_" not in name
    }


def _fill(
    model: SequentialRecommender, path: Path, parts: dict[str, dict[str, Tensor]], *, grown: bool = False
) -> None:
    """Fill in what is kept; with `grown`, rows that the model has behind those that are kept stay as they are."""
    repeated = _repeated(model)
    for part in MODULES:
        if (module := getattr(model, part)) is not None:
            state, weights = module.state_dict(), parts[part]
            if grown:
                weights = _with_new_lora(weights, state)
                weights = {k: torch.cat([v, state[k][len(v) :]]) if v.dim() else v for k, v in weights.items()}
            module.load_state_dict({k: v for k, v in state.items() if f"{part}.{k}" in repeated} | weights)
    model.log_scale.data.copy_(load_file(path / "scale.safetensors")["log_scale"][0])


def _with_new_lora(weights: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name weights as under additions that they were kept without, and add those as they were drawn."""
    under = {name.replace(".base_layer.", "."): name for name in state if ".base_layer." in name}
    drawn = {name: value for name, value in state.items() if ".lora_" in name}
    return drawn | {under.get(name, name): value for name, value in weights.items()}


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Say what does not fit together inside."""
    try:
        yield
    except (RuntimeError, SafetensorError, FileNotFoundError, KeyError) as error:
        raise CheckpointError(f"the weights in {path} do not fit the model: {str(error).splitlines()[0]}") from None


def _copy(
    path: Path, destination: Path, model: SequentialRecommender, config: ModelConfig, manifest: artifacts.Manifest,
    weights: Weights,
) -> None:  # fmt: skip
    """Save a loaded checkpoint again, without LoRA."""
    tiers = _tiers_with_lora(config)
    arguments = ("model", "num_items", "num_actions")
    save_checkpoint(
        destination,
        merge_lora(model) if tiers else model,
        config.model_copy(update={name: tier.model_copy(update={"lora": None}) for name, tier in tiers.items()}),
        num_items=manifest.details["num_items"],
        num_actions=manifest.details["num_actions"],
        tokenizer=path / ITEM_BACKBONE,
        details={name: value for name, value in manifest.details.items() if name not in arguments},
        weights=weights,
    )


def _tiers_with_lora(config: ModelConfig) -> dict[str, TierConfig]:
    tiers: dict[str, TierConfig] = {"item": config.item, "user": config.user}
    models = {name: tier.language_model for name, tier in tiers.items()}
    return {name: tiers[name] for name, model in models.items() if model is not None and model.lora is not None}


def _require_fp32(path: Path, manifest: artifacts.Manifest, error: type[ConfigError] | type[CheckpointError]) -> None:
    if (weights := weights_of(manifest)) != "fp32":
        raise error(
            f"{path} holds weights in {weights}, made by hllm export-model for use, not for training or another "
            "export: they have lost digits; take the run that it was exported from"
        )


def _repeated(model: SequentialRecommender) -> set[str]:
    """Return the names of weights that the model holds under an earlier name too: those of tiers that share them."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return names - {name for name, _ in model.named_parameters()}
