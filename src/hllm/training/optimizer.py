"""AdamW with linear warm-up and cosine decay; matrices decay, everything else does not."""

import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hllm.errors import CheckpointError
from hllm.training.recipe import StageConfig

BETAS = (0.9, 0.98)
_LANGUAGE_MODEL = ("item_encoder.backbone.", "item_encoder.item_token")


def build_optimizer(
    model: nn.Module, stage: StageConfig, num_steps: int, *, steps_done: int = 0
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """Return the optimizer over trainable parameters, in up to four groups, and its schedule after `steps_done`."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim >= 2 and not name.endswith("item_token")
            key = (name.startswith(_LANGUAGE_MODEL), is_matrix)
            groups.setdefault(key, []).append(parameter)
    item_rate = stage.item_learning_rate if stage.item_learning_rate is not None else stage.learning_rate
    optimizer = torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": item_rate if in_language_model else stage.learning_rate,
                "weight_decay": stage.weight_decay if is_matrix else 0.0,
            }
            for (in_language_model, is_matrix), parameters in sorted(groups.items(), key=lambda entry: entry[0])
        ],
        betas=BETAS,
    )
    warmup = max(1, round(stage.warmup * num_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))

    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]  # what the schedule multiplies, wherever it starts
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor, last_epoch=steps_done - 1)


def save_optimizer(optimizer: torch.optim.AdamW, file: Path) -> None:
    """Write the moments and step counts as safetensors."""
    state = {
        f"{index}.{name}": value.detach().contiguous().cpu()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    save_file(state, file)


def load_optimizer(optimizer: torch.optim.AdamW, file: Path) -> None:
    """Fill `optimizer` from a file of `save_optimizer`; CheckpointError if it belongs to other parameters."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(file).items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    if sorted(state) != list(range(count)):
        raise CheckpointError(f"{file} holds the state of {len(state)} parameters, the model trains {count}")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
