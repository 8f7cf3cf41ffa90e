"""`compat = "reference"`: the named options under which a recipe computes what the HLLM paper's code computes.

Only what a recipe leaves out is filled in, and the resolved recipe shows all of it. What cannot be asked for, and
why, stands in docs/decisions/0001-differences-from-the-reference.md.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

# What pandas.read_csv takes for an empty cell, and so the reference for a field without a value.
_MISSING = ("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
            "NA", "NULL", "NaN", "None", "n/a", "nan", "null")  # fmt: skip
_RECIPE: dict[str, Any] = {
    "seed": 2020,
    "data": {"missing": _MISSING, "unknown_items": "keep", "items_without_text": "keep"},
    "split": {"min_length": 2},
    "model": {"windows": "blocks"},
    "select_by": "ndcg@200",
}
_PROMPT = {"prefix": "Compress the following sentence into embedding: ", "separator": "", "strip": False}
_USER: dict[str, dict[str, Any]] = {
    "sasrec": {"norm": "post", "norm_eps": 1e-12, "positions": "end", "input_norm": True, "final_norm": False},
    "hstu": {"relative_bias": False, "positions": "end"},
}
_STAGE = {
    "learning_rate": 1e-4,
    "betas": (0.9, 0.999),
    "decay": "all",
    "max_gradient_norm": math.inf,
    "loss": {"mask": "cosine"},
}


def with_reference_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's values with the reference's wherever they are silent.

    Without a number of negatives each window draws one for each of its max_history + 1 items, as there.
    """
    filled = copy.deepcopy(dict(values))
    _fill(filled, _RECIPE)
    model = filled["model"]
    item, user = (model[tier] for tier in ("item", "user"))
    if item.get("kind") == "llm":
        _fill(item, {"train_word_embeddings": True, "prompt": _PROMPT})
    _fill(user, _USER.get(user.get("kind"), {}))
    for stage in filled["stages"]:
        _fill(stage, _STAGE)
        history = stage.get("max_history") or model.get("max_history", 50)
        pool = stage.get("batch_size", 64) * (history + 1)
        if "negatives" not in stage:
            stage["negatives"] = {"kind": "pooled", "num_sampled": pool}
    return filled


def _fill(values: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for key, default in defaults.items():
        if isinstance(default, Mapping):
            _fill(values.setdefault(key, {}), default)
        else:
            values.setdefault(key, default)
