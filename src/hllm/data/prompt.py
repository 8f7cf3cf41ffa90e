"""Join an item's fields into the one text that the Item LLM reads."""

import difflib
from collections.abc import Mapping
from typing import Any

import polars as pl
from pydantic import Field

from hllm.config import Config
from hllm.data.arguments import is_absent
from hllm.data.texts import require_text
from hllm.errors import DataError, nearest

_NEARLY = 0.75  # "titel" and "title" are .8 alike, "time" and "title" .67


class PromptConfig(Config):
    """Settings by which an item's fields become one text."""

    prefix: str = ""
    """Put before every item's text. The paper's is "Compress the following sentence into embedding: "."""
    separator: str = " "
    """Put between two fields."""
    field_names: bool = True
    """Write "field: value"; False writes the value alone, which saves tokens where values speak for themselves."""
    strip: bool = True
    """Take the blanks off both ends of a value, and leave out a value of blanks; False leaves values as they are."""
    max_tokens: int = Field(default=64, ge=1)
    """An item's text is cut on the right to this many tokens, the tokenizer's own special tokens included."""
    cut_closing: bool = False
    """A text that is cut loses the tokenizer's closing token too, such as BERT's [SEP], as in the HLLM paper's code.
    False keeps it, and cuts one more of the text."""


def render(items: pl.DataFrame, fields: tuple[str, ...], config: PromptConfig) -> list[str]:
    """Return "prefix field: value separator field: value" for each row; empty fields are left out.

    A row of nulls is an item that no table describes (data.unknown_items = "keep"): its text is empty. Raises DataError
    if there are no fields.
    """
    require_text(fields, items)
    columns = [items[field].cast(pl.String).to_list() for field in fields]
    rows = zip(*columns, strict=True)
    return [
        _join(dict(zip(fields, row, strict=True)), config) if any(v is not None for v in row) else "" for row in rows
    ]


def render_text(text: str, fields: tuple[str, ...], config: PromptConfig) -> str:
    """Render a new item given as free text, or as lines or "; "-separated parts "field: value".

    Raises DataError for an empty text, and for a name that is nearly a field's. A text that names no field is taken as
    the first field; the case of letters does not matter.
    """
    if not fields:
        raise DataError("the items of this catalogue have no text columns: there is no way to describe a new item")
    values: dict[str, str] = {}
    for part in text.replace("\n", ";").split(";"):
        name, colon, value = part.partition(":")
        field = _field(name.strip(), fields) if colon else None
        if field is not None:
            values[field] = value.strip()
        elif values:
            last = next(reversed(values))
            values[last] += ";" + part
        else:
            values[fields[0]] = part.strip()
    return _new_item({field: values.get(field, "").strip(" ;") for field in fields}, config)


def render_fields(values: Mapping[str, Any], fields: tuple[str, ...], config: PromptConfig) -> str:
    """Render a new item given as a mapping; DataError names a field that the catalogue does not have."""
    for name in values:
        if name not in fields:
            raise DataError(f"unknown field {name!r}{nearest(name, fields)}; items are read by {', '.join(fields)}")
    cells = {field: values.get(field) for field in fields}
    return _new_item({field: "" if is_absent(value) else str(value) for field, value in cells.items()}, config)


def _field(name: str, fields: tuple[str, ...]) -> str | None:
    """Return the field that a name before a colon means; None for other words, such as those of a title."""
    for field in fields:
        if name.casefold() == field.casefold():
            return field
    close = difflib.get_close_matches(name.casefold(), [field.casefold() for field in fields], n=1, cutoff=_NEARLY)
    if close:
        raise DataError(
            f"unknown field {name!r}{nearest(name, fields)}; items are read by {', '.join(fields)}. If it is text, put "
            f'"{fields[0]}: " before it'
        )
    return None


def _new_item(values: Mapping[str, str], config: PromptConfig) -> str:
    if not any(value.strip() for value in values.values()):
        fields = list(values)
        raise DataError(f'a new item needs text, such as "{fields[0]}: …", in at least one of {", ".join(fields)}')
    joined = _join(values, config)
    if any("\ud800" <= letter <= "\udfff" for letter in joined):
        raise DataError(
            f"{joined[:60]!a} holds half of a surrogate pair, which is no text; read its source again as UTF-8"
        )
    return joined


def _join(values: Mapping[str, str | None], config: PromptConfig) -> str:
    texts = {field: (value or "").strip() if config.strip else value or "" for field, value in values.items()}
    parts = [f"{field}: {text}" if config.field_names else text for field, text in texts.items() if text]
    return config.prefix + config.separator.join(parts)
