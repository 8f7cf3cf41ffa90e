"""A model on disk: safetensors for each tier, the backbones' configs and the tokenizer; enough to use it anywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hllm import artifacts
from hllm.errors import CheckpointError, ConfigError
from hllm.models.backbone import copy_tokenizer, save_backbone_config
from hllm.models.build import ModelConfig, rebuild_model
from hllm.models.item.text import TextItemConfig, TextItemEncoder
from hllm.models.lora import merge_lora
from hllm.models.recommender import SequentialRecommender
from hllm.models.user.llm import UserLLM

KIND = "checkpoint"
ITEM_BACKBONE = "item_backbone"
USER_BACKBONE = "user_backbone"
_PARTS = ("item_encoder", "user_encoder", "fusion", "ranker")


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
) -> None:
    """Write the model as a directory; it appears whole or not at all.

    `tokenizer` is the directory to copy the tokenizer from; `details` is kept in the manifest;
    `extra_files(folder)` may add files, such as the optimizer's state.
    """
    kept = {"model": config.model_dump(mode="json"), "num_items": num_items, "num_actions": num_actions, **details}
    with artifacts.writing(path, KIND, kept) as folder:
        repeated = _repeated(model)
        for part in _PARTS:
            if (module := getattr(model, part)) is not None:
                own = {k: v for k, v in module.state_dict().items() if f"{part}.{k}" not in repeated}
                state = {k: v.detach().contiguous().cpu() for k, v in own.items()}
                save_file(state, folder / f"{part}.safetensors")
        save_file({"log_scale": model.log_scale.detach().reshape(1).cpu()}, folder / "scale.safetensors")
        if isinstance(model.item_encoder, TextItemEncoder):
            save_backbone_config(model.item_encoder.backbone, folder / ITEM_BACKBONE)
            if tokenizer is not None:
                copy_tokenizer(tokenizer, folder / ITEM_BACKBONE)
        if isinstance(model.user_encoder, UserLLM):
            save_backbone_config(model.user_encoder.backbone, folder / USER_BACKBONE)
        if extra_files is not None:
            extra_files(folder)


def load_checkpoint(path: Path) -> tuple[SequentialRecommender, ModelConfig, artifacts.Manifest]:
    """Check every byte, then rebuild the model in evaluation mode; CheckpointError names what is wrong."""
    manifest = artifacts.verify(path, KIND)
    config = ModelConfig.from_dict(manifest.details["model"], where=f"{path}/{artifacts.MANIFEST}")
    sizes = {name: manifest.details[name] for name in ("num_items", "num_actions")}
    model = rebuild_model(config, **sizes, checkpoint=path)
    load_weights(model, path)
    return model.eval(), config, manifest


def merge_checkpoint(path: Path, destination: Path) -> None:
    """Copy a checkpoint with its LoRA additions made part of its weights; the copy is read without peft.

    Optimizer states are left out. Raises ConfigError if the checkpoint has no additions.
    """
    model, config, manifest = load_checkpoint(path)
    tiers = {
        name: tier for name in ("item", "user") if getattr(tier := getattr(config, name), "lora", None) is not None
    }
    if not tiers:
        raise ConfigError(f"{path} was trained without lora: there is nothing to merge")
    own = ("model", "num_items", "num_actions")
    save_checkpoint(
        destination,
        merge_lora(model),
        config.model_copy(update={name: tier.model_copy(update={"lora": None}) for name, tier in tiers.items()}),
        num_items=manifest.details["num_items"],
        num_actions=manifest.details["num_actions"],
        tokenizer=path / ITEM_BACKBONE,
        details={name: value for name, value in manifest.details.items() if name not in own},
    )


def load_grown(path: Path, *, num_items: int, num_actions: int) -> SequentialRecommender:
    """Rebuild a checkpoint's model, to be trained on, for a catalogue that has grown behind the items it knows.

    Rows of new items (of a table of ids) and of new actions are fresh, drawn as before training. What learns is what
    learnt. Raises CheckpointError as `load_checkpoint` does.
    """
    manifest = artifacts.verify(path, KIND)
    config = ModelConfig.from_dict(manifest.details["model"], where=f"{path}/{artifacts.MANIFEST}")
    model = rebuild_model(config, num_items=num_items, num_actions=num_actions, checkpoint=path)
    load_weights(model, path, grown=True)
    if isinstance(config.item, TextItemConfig) and isinstance(model.item_encoder, TextItemEncoder):
        words = model.item_encoder.backbone.network.get_input_embeddings().weight
        words.requires_grad_(config.item.train_word_embeddings or not config.item.pretrained)
    return model


def load_weights(model: SequentialRecommender, path: Path, *, grown: bool = False) -> None:
    """Fill `model` with a checkpoint's weights; CheckpointError if names or shapes differ.

    With `grown`, rows that the model has and the checkpoint lacks, behind those that it has, stay as they are.
    """
    try:
        repeated = _repeated(model)
        for part in _PARTS:
            if (module := getattr(model, part)) is not None:
                here = module.state_dict()
                kept = load_file(path / f"{part}.safetensors")
                if grown:
                    kept = {k: torch.cat([v, here[k][len(v) :]]) if v.dim() else v for k, v in kept.items()}
                module.load_state_dict({k: v for k, v in here.items() if f"{part}.{k}" in repeated} | kept)
        model.log_scale.data.copy_(load_file(path / "scale.safetensors")["log_scale"][0])
    except (RuntimeError, SafetensorError, FileNotFoundError, KeyError) as error:
        raise CheckpointError(f"the weights in {path} do not fit the model: {str(error).splitlines()[0]}") from None


def _repeated(model: SequentialRecommender) -> set[str]:
    """Return the names of weights that the model holds under an earlier name too: those of tiers that share them."""
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return every - {name for name, _ in model.named_parameters()}
