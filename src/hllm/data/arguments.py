"""Arguments are lists of ids, texts and histories as callers have them: of Python, numpy, pandas or polars."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from hllm.errors import ConfigError


def as_list(values: Any, *, name: str) -> list[Any]:
    """Return the elements of a list, tuple, range, set, array or series; ConfigError for anything else.

    A text is no list of its letters, and a mapping no list of its keys. `name` is the argument's, for the message.
    """
    if isinstance(values, str | bytes):
        raise ConfigError(f"{name} is the text {_shown(values)}, expected a list; give [{_shown(values)}]")
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        kind = "None" if values is None else f"{_shown(values)}, of type {type(values).__name__}"
        raise ConfigError(f"{name} is {kind}; expected a list, an array or a series")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ConfigError(f"{name} is an array of shape {values.shape}, expected one dimension")
    if hasattr(values, "columns"):
        raise ConfigError(f"{name} is a table, expected one column of it; give table[{name!r}] or the like")
    to_list = getattr(values, "to_list", None) or getattr(values, "tolist", None)
    return list(to_list() if to_list is not None else values)


def as_ids(values: Any, *, name: str) -> pl.Series:
    """Return ids as a series; numbers and texts together become texts. ConfigError for what is no list of ids."""
    if isinstance(values, pl.Series):
        ids = values
    else:
        elements = [None if is_absent(value) else value for value in as_list(values, name=name)]
        ids = pl.Series([value.item() if isinstance(value, np.generic) else value for value in elements], strict=False)
    if ids.dtype.is_nested() or ids.dtype == pl.Object:
        raise ConfigError(f"{name} holds {_shown(ids.head(1).to_list()[0])}, expected ids: numbers or texts")
    return ids


def as_texts(values: Any, *, name: str, absent: bool = False) -> list[Any]:
    """Return texts, or mappings of an item's fields; one that is missing is None if `absent`, else a ConfigError."""
    texts = as_list(values, name=name)
    if not texts:
        raise ConfigError(f"{name} is empty; expected a list with at least one text")
    for place, text in enumerate(texts):
        if is_absent(text):
            if not absent:
                raise ConfigError(f"{name}[{place}] is missing; expected a text or a mapping of fields")
            texts[place] = None
        elif not isinstance(text, str | Mapping):
            raise ConfigError(f"{name}[{place}] is {_shown(text)}, expected a text or a mapping of fields")
    return texts


def as_count(value: Any, *, name: str) -> int:
    """Return a whole number from 1 on; ConfigError for any other value."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"{name} is {_shown(value)}; it must be a whole number, at least 1")
    return int(value)


def is_absent(value: Any) -> bool:
    """Return whether a cell is missing: None, or the NaN, NA or NaT of numpy and pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and math.isnan(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
