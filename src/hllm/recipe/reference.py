"""`compat = "reference"`: the named options under which a recipe computes what the HLLM paper's code computes.

Only what a recipe leaves out is filled in, and the resolved recipe shows all of it. What cannot be asked for, and
why, stands in docs/decisions/0001-differences-from-the-reference.md.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

# What pandas.read_csv takes for an empty cell, and so the reference for a field without a value.
_MISSING = ("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
            "NA", "NULL", "NaN", "None", "n/a", "nan", "null")  # fmt: skip
_RECIPE: dict[str, Any] = {
    "seed": 2020,
    "data": {"missing": _MISSING, "unknown_items": "keep", "items_without_text": "keep"},
    "model": {"windows": "blocks"},
    "select_by": "ndcg@200",
}
_LEAVE_ONE_OUT = {"min_length": 2}
_ITEM = {
    "train_word_embeddings": True,
    "prompt": {"prefix": "Compress the following sentence into embedding: ", "separator": "", "strip": False},
}
_USER: dict[str, dict[str, Any]] = {
    "sasrec": {"norm": "post", "norm_eps": 1e-12, "positions": "end", "input_norm": True, "final_norm": False},
    "hstu": {"relative_bias": False, "positions": "end"},
}
_STAGE = {
    "learning_rate": 1e-4,
    "betas": (0.9, 0.999),
    "decay": "all",
    "max_gradient_norm": math.inf,
    "negatives": {"kind": "pooled"},
    "loss": {"mask": "cosine"},
}


def with_reference_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's values with the reference's wherever they are silent.

    Without a number of negatives each window draws one for each of its max_history + 1 items, as there. What is not
    of the right type stays as it is, to be refused with the rest of the recipe.
    """
    filled: dict[str, Any] = _plain(values)
    _fill(filled, _RECIPE)
    split = filled.setdefault("split", {})
    if isinstance(split, dict) and split.get("kind", "leave-one-out") == "leave-one-out":
        _fill(split, _LEAVE_ONE_OUT)
    model = filled.get("model")
    model = model if isinstance(model, dict) else {}
    item, user = model.get("item"), model.get("user")
    if isinstance(item, dict) and item.get("kind") == "llm":
        _fill(item, _ITEM)
    if isinstance(user, dict):
        _fill(user, _USER.get(str(user.get("kind")), {}))
    stages = filled.get("stages")
    for stage in stages if isinstance(stages, list) else ():
        if isinstance(stage, dict):
            _fill(stage, _STAGE)
            _fill_pool(stage, model)
    return filled


def _fill_pool(stage: dict[str, Any], model: dict[str, Any]) -> None:
    """Let each window of the batches that negatives are drawn for have max_history + 1 of them."""
    history = stage.get("max_history") or model.get("max_history", 50)
    windows = stage.get("batch_size", 64)
    if not stage.get("gradient_cache"):
        windows = stage.get("micro_batch_size") or windows
    negatives = stage["negatives"]
    if isinstance(negatives, dict) and negatives.get("kind") == "pooled" and type(history) is type(windows) is int:
        negatives.setdefault("num_sampled", windows * (history + 1))


def _fill(values: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for key, default in defaults.items():
        if not isinstance(default, Mapping):
            values.setdefault(key, default)
        elif isinstance(inner := values.setdefault(key, {}), dict):
            _fill(inner, default)


def _plain(value: Any) -> Any:
    """Return a copy in which config models, which a program may pass, are tables of what was set in them."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return copy.deepcopy(value)
