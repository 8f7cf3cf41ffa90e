"""Arguments are lists of ids, texts and histories as callers have them: of Python, numpy, pandas or polars."""

import math
from collections.abc import Iterable, Mapping
from io import IOBase
from typing import Any

import numpy as np
import polars as pl

from hllm.data.ids import EXACT_IN_FLOATS
from hllm.errors import ConfigError


def as_list(values: Any, *, name: str, rows: bool = False) -> list[Any]:
    """Return the elements of a list, tuple, range, set, array or series; ConfigError for anything else.

    A text is no list of its letters, and a mapping no list of its keys. `name` is the argument's, for the message. With
    `rows`, an array of two dimensions is the list of its rows.
    """
    if isinstance(values, str | bytes | bytearray):
        raise ConfigError(f"{name} is the text {_shown(values)}, expected a list; give [{_shown(values)}]")
    if isinstance(values, Mapping | memoryview | IOBase) or not isinstance(values, Iterable):
        kind = "None" if values is None else f"{_shown(values)}, of type {type(values).__name__}"
        raise ConfigError(f"{name} is {kind}; expected a list, an array or a series")
    shape = getattr(values, "shape", (1,))  # of arrays, tensors and series
    if len(shape) != 1 and not (rows and len(shape) == 2) and not hasattr(values, "columns"):
        raise ConfigError(f"{name} is an array of shape {tuple(shape)}, expected one dimension")
    if hasattr(values, "columns"):
        raise ConfigError(f"{name} is a table, expected one column of it; give table[{name!r}] or the like")
    to_list = getattr(values, "to_list", None) or getattr(values, "tolist", None) or getattr(values, "to_pylist", None)
    return list(to_list() if to_list is not None else values)


def as_ids(values: Any, *, name: str) -> pl.Series:
    """Return ids as a series; values of several types become texts. ConfigError for what is no list of ids."""
    if isinstance(values, pl.Series):
        ids = values
    else:
        elements = [_as_id(value) for value in as_list(values, name=name)]
        if len({type(value) for value in elements if value is not None}) > 1 and not any(map(_is_nested, elements)):
            elements = [None if value is None else str(value) for value in elements]
        try:
            ids = pl.Series(elements, strict=False)
        except UnicodeEncodeError as error:
            raise ConfigError(f"{name} holds {_shown(error.object)}, which is no valid text") from None
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


def as_flag(value: Any, *, name: str) -> bool:
    """Return True or False; ConfigError for any other value, such as a text."""
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{name} is {_shown(value)}; expected True or False")
    return bool(value)


def is_absent(value: Any) -> bool:
    """Return whether a cell is missing: None, or the NaN, NA or NaT of numpy and pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and math.isnan(value)


def _as_id(value: Any) -> Any:
    """Return a value of Python: None where it is missing, and an integer for a float that is one."""
    if is_absent(value):
        return None
    value = value.item() if isinstance(value, np.generic) else value
    whole = isinstance(value, float) and value.is_integer() and abs(value) < EXACT_IN_FLOATS
    return int(value) if whole else value


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple | set | np.ndarray | pl.Series)


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}…"
