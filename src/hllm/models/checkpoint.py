"""A model on disk: safetensors for each tier, the backbones' configs and the tokenizer; enough to use it anywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hllm import artifacts
from hllm.errors import CheckpointError
from hllm.models.backbone import copy_tokenizer, save_backbone_config
from hllm.models.build import ModelConfig, rebuild_model
from hllm.models.item.text import TextItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.user.llm import UserLLM

KIND = "checkpoint"
ITEM_BACKBONE = "item_backbone"
USER_BACKBONE = "user_backbone"
_PARTS = ("item_encoder", "user_encoder", "fusion")


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
        for part in _PARTS:
            if (module := getattr(model, part)) is not None:
                state = {k: v.detach().contiguous().cpu() for k, v in module.state_dict().items()}
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


def load_weights(model: SequentialRecommender, path: Path) -> None:
    """Fill `model` with a checkpoint's weights; CheckpointError if names or shapes differ."""
    try:
        for part in _PARTS:
            if (module := getattr(model, part)) is not None:
                module.load_state_dict(load_file(path / f"{part}.safetensors"))
        model.log_scale.data.copy_(load_file(path / "scale.safetensors")["log_scale"][0])
    except (RuntimeError, SafetensorError, FileNotFoundError, KeyError) as error:
        raise CheckpointError(f"the weights in {path} do not fit the model: {str(error).splitlines()[0]}") from None
