"""Text columns describe an item in words: titles and descriptions, not row numbers, prices, links or dates."""

import html
import re
from collections.abc import Iterable
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from hllm.errors import DataError

_TEXTS = (pl.String, pl.Categorical, pl.Enum)
_MOST = 0.5  # share of the filled cells that must have words
_LOOKED_AT = 300  # characters of a cell
_LINK = r"(?i)\b(?:https?|ftp)://\S+|\bwww\.\S+|\S+\.(?:jpe?g|png|gif|webp|svg)\b"
_NO_WORDS = (
    r"(?i)\b(?:am|pm|utc|gmt|st|nd|rd|th|true|false|none|null|nan|na|inf|infinity|usd|eur|gbp|jan(?:uary)?|feb(?:ruary)?|"
    r"mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?|"
    r"(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?)\b"
)
_IN_NUMBERS = r"(\d)(?:[TZtz]|[Ee][+-]?|st|nd|rd|th|[AaPp][Mm])(\d|\b)"  # 2020-01-02T10:11:12Z, 1.5e-3, 2nd, 8PM
_WORD = r"\p{L}"
_TAG = re.compile(r"<(?:!--.*?--|/?[a-zA-Z][^<>]*)>", re.DOTALL)
_HAS_HTML = (
    r"(?s)</?(?i:p|br|b|i|u|em|strong|div|span|ul|ol|li|a|h[1-6]|table|tr|td|img|font|script)\b[^<>]*>"
    r"|&(?:[a-zA-Z]+|#\d+|#x[0-9a-fA-F]+);"
)


def default_text_columns(items: pl.LazyFrame, item_col: str | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the columns that are read if none are named, and what each other one holds instead of words.

    A column is read if at least half of its filled cells have words, whatever its type; one called "title" always is.
    The same cells give the same columns, whether they are stored as text or as numbers and dates.
    """
    schema = items.collect_schema()
    others = {name: _instead_of_text(kind) for name, kind in schema.items() if not isinstance(kind, _TEXTS)}
    names = [name for name, kind in schema.items() if isinstance(kind, _TEXTS) and name != item_col]
    shares = _shares(items, names)
    for name in names:
        filled, worded, linked = shares[name]
        if not filled:
            others[name] = "nothing"
        elif not name.strip():
            others[name] = "no name"
        elif name.lower() != "title" and worded < _MOST * filled:
            others[name] = "links" if linked else "numbers or dates"
    others.pop(item_col or "", None)
    return tuple(name for name in names if name not in others), others


def left_out(others: dict[str, str]) -> str:
    """Return what each column holds instead of words, for people: "'price' (numbers), 'url' (links)"."""
    return ", ".join(f"{name!r} ({what})" for name, what in others.items())


def holds_text(column: pl.Series) -> bool:
    """Return whether every cell can be shown as text; bytes of another encoding than UTF-8 cannot."""
    try:
        column.cast(pl.String)
    except PolarsError:
        return False
    return True


def require_texts(items: pl.DataFrame, names: Iterable[str]) -> None:
    """Raise DataError if one of the named columns holds bytes that are no text."""
    for name in names:
        if not holds_text(items[name]):
            filled = (row for row, cell in enumerate(items[name]) if cell is not None and len(cell))
            first = next(row for row in filled if not holds_text(items[name].slice(row, 1)))
            raise DataError(
                f"items: column {name!r} holds bytes that are no text in UTF-8; first in data row {first + 1}. "
                "Write it as text, or name other columns with data.text_cols and data.title_col"
            )


def require_text(text_cols: Iterable[str], items: pl.DataFrame) -> None:
    """Raise DataError if there is no column to read."""
    if not list(text_cols):
        columns, others = default_text_columns(items.lazy(), None)
        found = ", ".join([*map(repr, columns), *filter(None, [left_out(others)])])
        raise DataError(
            f"the items have no text to read; they have {found}. Give a table of items with a title or another "
            'text, name columns with data.text_cols, or take a model that reads none (model.item.kind = "id")'
        )


def html_share(items: pl.LazyFrame, columns: tuple[str, ...]) -> dict[str, float]:
    """Return the share of the cells of each column that hold HTML, of those columns where some do."""
    if not columns:
        return {}
    shares = items.select(pl.col(name).cast(pl.String).str.contains(_HAS_HTML).mean() for name in columns)
    row = shares.collect(engine="streaming").row(0, named=True)
    return {name: share for name, share in row.items() if share}


def without_html(texts: pl.Series) -> pl.Series:
    """Return texts without tags, with "&amp;" and its like as the characters that they stand for."""
    marked = texts.cast(pl.String).str.contains(_HAS_HTML).fill_null(False)
    plain = texts.cast(pl.String).to_list()
    return pl.Series(
        texts.name,
        [_plain(text) if mark and text is not None else text for text, mark in zip(plain, marked, strict=True)],
        dtype=pl.String,
    )


def _plain(text: str) -> str:
    return " ".join(html.unescape(_TAG.sub(" ", html.unescape(text))).split())


def _shares(items: pl.LazyFrame, names: list[str]) -> dict[str, tuple[int, int, int]]:
    """Return the number of filled cells of each column, of those with words, and of those with links alone."""
    if not names:
        return {}
    counts = []
    for number, name in enumerate(names):
        text = pl.col(name).cast(pl.String).str.head(_LOOKED_AT)
        bare = text.str.replace_all(_LINK, " ")
        bare = bare.str.replace_all(_IN_NUMBERS, "$1 $2").str.replace_all(_NO_WORDS, " ")
        worded, linked = bare.str.contains(_WORD), text.str.contains(_LINK)
        filled = text.str.replace_all(r"(?i)^\s*(?:none|null|nan|na|n/a|-|\\n)?\s*$", "") != ""
        counts += [filled.sum().alias(f"{number} filled"), (filled & worded).sum().alias(f"{number} worded"),
                   (filled & linked & ~worded).sum().alias(f"{number} linked")]  # fmt: skip
    row = items.select(counts).collect(engine="streaming").row(0, named=True)
    kinds = ("filled", "worded", "linked")
    return {name: tuple(int(row[f"{n} {kind}"] or 0) for kind in kinds) for n, name in enumerate(names)}  # type: ignore[misc]


def _instead_of_text(kind: Any) -> str:
    if kind.is_numeric() or kind.is_temporal():
        return "numbers or dates"
    if kind == pl.Boolean:
        return "true or false"
    if kind == pl.Binary:
        return "bytes that are no text"
    return "nothing" if kind == pl.Null else "records or vectors"
