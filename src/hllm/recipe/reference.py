"""`compat = "reference"`: the options under which a recipe computes what the HLLM paper's code computes.

Only options that a recipe leaves out are filled in, and the resolved recipe shows all of them. Differences that no
option removes, and why, stand in docs/decisions/0001-differences-from-the-reference.md.
"""

# Proved by tests/parity/test_data.py.

import copy
import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from hllm.parts import PARTS, PartConfig, spec

# pandas.read_csv takes these for an empty cell, and so the reference takes them for a field without a value.
_MISSING = ("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
            "NA", "NULL", "NaN", "None", "n/a", "nan", "null")  # fmt: skip
_RECIPE: dict[str, Any] = {
    "seed": 2020,
    "data": {"missing": _MISSING, "unknown_items": "keep", "items_without_text": "keep"},
    "select_by": "ndcg@200",
}
_SPLIT: dict[str, dict[str, Any]] = {"leave-one-out": {"min_length": 2}}
_ITEM: dict[str, dict[str, Any]] = {
    "llm": {
        "train_word_embeddings": True,
        "positions": "end",
        "prompt": {
            "prefix": "Compress the following sentence into embedding: ",
            "separator": "",
            "strip": False,
            "cut_closing": True,
        },
    },
}
_USER: dict[str, dict[str, Any]] = {
    "sasrec": {"norm": "post", "norm_eps": 1e-12, "positions": "end", "input_norm": True, "final_norm": False},
    "hstu": {"relative_bias": False, "positions": "end"},
}
_STAGE = {
    "windows": "blocks",
    "learning_rate": 1e-4,
    "betas": (0.9, 0.999),
    "decay": "all",
    "max_gradient_norm": math.inf,
    "objective": {"kind": "next-item"},
}
_CONTRASTIVE = {"negatives": {"kind": "pooled"}, "loss": {"mask": "cosine"}}


def with_reference_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's values, and the reference's for options that they leave out.

    Without a number of negatives each window draws one for each of its max_history + 1 items, as there. A value of
    the wrong type stays as it is, to be refused with the rest of the recipe.
    """
    filled: dict[str, Any] = _plain(values)
    _fill(filled, _RECIPE)
    split = filled.setdefault("split", {})
    if isinstance(split, dict):
        _fill(split, _SPLIT.get(str(split.get("kind", "leave-one-out")), {}))
    model = filled.get("model")
    model = model if isinstance(model, dict) else {}
    item, user = model.get("item"), model.get("user")
    for tier, by_kind in ((item, _ITEM), (user, _USER)):
        if isinstance(tier, dict):
            _fill(tier, by_kind.get(str(tier.get("kind")), {}))
    stages = filled.get("stages")
    for stage in stages if isinstance(stages, list) else ():
        if isinstance(stage, dict):
            _fill(stage, _STAGE)
            for goal in _contrastive(stage):
                _fill(goal, _CONTRASTIVE)
                _fill_pool(goal["negatives"], stage, model)
    return filled


def _contrastive(stage: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objective and the terms of a stage that have negatives."""
    terms = stage.get("terms")
    goals = [("objective", stage["objective"])]
    goals += [("term", term) for term in (terms if isinstance(terms, list) else ())]
    return [
        goal
        for family, goal in goals
        if isinstance(goal, dict)
        and goal.get("kind") in PARTS[family]
        and "negatives" in spec(family, goal["kind"]).config.model_fields
    ]


def _fill_pool(negatives: Any, stage: dict[str, Any], model: dict[str, Any]) -> None:
    """Let each window of a batch draw max_history + 1 negatives."""
    history = stage.get("max_history") or model.get("max_history", 50)
    windows = stage.get("batch_size", 64)
    if not stage.get("gradient_cache"):
        windows = stage.get("micro_batch_size") or windows
    if (
        isinstance(negatives, dict)
        and negatives.get("kind") == _CONTRASTIVE["negatives"]["kind"]
        and type(history) is type(windows) is int
    ):
        negatives.setdefault("num_sampled", windows * (history + 1))


def _fill(values: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for key, default in defaults.items():
        if not isinstance(default, Mapping):
            values.setdefault(key, default)
        elif isinstance(inner := values.setdefault(key, {}), dict):
            _fill(inner, default)


def _plain(value: Any) -> Any:
    """Return a copy in which config models, which a program may pass, are tables of the fields that were set."""
    if isinstance(value, BaseModel):
        given = value.model_fields_set | ({"kind"} if isinstance(value, PartConfig) else set())
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields if name in given}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return copy.deepcopy(value)
