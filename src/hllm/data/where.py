"""Conditions choose rows of one table, such as `rating >= 4 and event = "purchase"`; nothing in them is ever run.

    condition  = comparison | not condition | condition and condition | condition or condition | (condition)
    comparison = COLUMN (= | != | < | <= | > | >=) VALUE | COLUMN [not] in (VALUE, …) | COLUMN is [not] missing
    VALUE      = 4 | -0.5 | "text" | 'text' | true | false
    COLUMN     = a name, or any name between backticks: `price (EUR)`

`not` binds closer than `and`, which binds closer than `or`. A cell that is missing or empty fulfils no comparison, not
even `!=`; ask for it with `is missing`.
"""

import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from hllm.errors import ConfigError, DataError, nearest

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])|(?P<text>"[^"]*"|'[^']*')|`(?P<quoted>[^`]+)`"""
    r"""|(?P<word>[^\W\d][\w.\-]*)|(?P<sign><=|>=|==|!=|<>|=|<|>|\(|\)|\[|\]|,))"""
)
_OPERATIONS = {"=": "eq", "==": "eq", "!=": "ne", "<>": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_RESERVED = ("and", "or", "not", "in", "is", "missing", "null", "true", "false")
_MOST = 2_000  # characters of a condition
_DEEPEST = 50
Value = int | float | str | bool


@dataclass(frozen=True)
class CellComparison:
    """A column, an operation and the values it is compared with."""

    column: str
    operation: str
    """eq, ne, lt, le, gt, ge, in or missing."""
    values: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Not:
    """The contrary of a condition."""

    condition: "Condition"


@dataclass(frozen=True)
class Joined:
    """Several conditions: all of them, or any."""

    all: bool
    conditions: tuple["Condition", ...]


Condition = CellComparison | Not | Joined


def parse(text: str) -> Condition:
    """Return the condition that a text spells; ConfigError says where it cannot be read."""
    if len(text) > _MOST:
        raise ConfigError(f"a condition of {len(text):,} characters; expected at most {_MOST:,}")
    reader = _Reader(text)
    condition = reader.either(0)
    if reader.kind is not None:
        reader.refuse("expected and, or, or the end")
    return condition


def columns_of(condition: Condition) -> tuple[str, ...]:
    """Return the columns that a condition reads, each once."""
    match condition:
        case CellComparison(column=column):
            return (column,)
        case Not(condition=inner):
            return columns_of(inner)
        case Joined(conditions=conditions):
            return tuple(dict.fromkeys(name for each in conditions for name in columns_of(each)))


def expression(condition: Condition, schema: Mapping[str, typing.Any], *, table: str) -> pl.Expr:
    """Return the condition as an expression that is never null; `table` names the table in errors.

    Raises ConfigError for a column that the schema lacks, or a value that cannot be compared with its type.
    """
    for name in columns_of(condition):
        if name not in schema:
            raise ConfigError(
                f"the condition names a column {name!r}, which {table} lack{nearest(name, schema)}; they have "
                f"{', '.join(map(repr, schema))}"
            )
    return _expression(condition, schema).fill_null(False)


def require_numbers(condition: Condition, frame: pl.LazyFrame, *, table: str) -> None:
    """Raise DataError if a column of text that is compared with numbers holds something else."""
    schema = frame.collect_schema()
    for name in _compared_with_numbers(condition):
        if not _is_text(schema[name]):
            continue
        text = pl.col(name).cast(pl.String).str.strip_chars()
        wrong = frame.select(text).filter((text != "") & text.cast(pl.Float64, strict=False).is_null())
        first = wrong.head(1).collect(engine="streaming")
        if len(first):
            raise DataError(
                f"the condition compares {name!r} of the {table} with a number, but a row holds {first.item()!r}; "
                'compare with a text in quotes, such as event = "purchase"'
            )


def filtered(frame: pl.LazyFrame, text: str, *, table: str) -> pl.LazyFrame:
    """Return the rows that fulfil the condition `text`; ConfigError or DataError if it does not fit the table."""
    condition = parse(text)
    mask = expression(condition, frame.collect_schema(), table=table)
    require_numbers(condition, frame, table=table)
    return frame.filter(mask)


def _expression(condition: Condition, schema: Mapping[str, typing.Any]) -> pl.Expr:
    match condition:
        case Not(condition=inner):
            return ~_expression(inner, schema)
        case Joined(all=True, conditions=conditions):
            return pl.all_horizontal([_expression(each, schema) for each in conditions])
        case Joined(conditions=conditions):
            return pl.any_horizontal([_expression(each, schema) for each in conditions])
        case CellComparison(column=name, operation="missing"):
            return _cell(name, schema[name]).is_null()
        case CellComparison(column=name, operation="in", values=values):
            return pl.any_horizontal([_compared(name, schema[name], "eq", value) for value in values])
        case CellComparison(column=name, operation=operation, values=values):
            return _compared(name, schema[name], operation, values[0])


def _compared(name: str, kind: typing.Any, operation: str, value: Value) -> pl.Expr:
    """Return a comparison in the terms of the column: text with text, numbers with numbers, dates with dates."""
    cell = _cell(name, kind)
    if isinstance(value, bool):
        if kind == pl.Boolean:
            return _apply(cell, operation, value)
        if _is_text(kind):
            return _apply(cell.str.strip_chars().str.to_lowercase(), operation, str(value).lower())
    elif isinstance(value, int | float):
        if kind.is_numeric():
            return _apply(cell, operation, value)
        if _is_text(kind):  # whole numbers beyond 2 to the 53rd are not equal to their neighbours
            text = cell.str.strip_chars()
            exact = text.cast(pl.Int64, strict=False) if isinstance(value, int) else pl.lit(None, dtype=pl.Int64)
            return pl.coalesce(
                _apply(exact, operation, value), _apply(text.cast(pl.Float64, strict=False), operation, value)
            )
    elif kind.is_temporal():
        return _apply(cell.cast(pl.Datetime("us")), operation, _date(name, value))
    elif _is_text(kind) and (operation in ("eq", "ne") or re.match(r"\d{4}-\d\d-\d\d", value)):
        return _apply(cell, operation, value)
    elif _is_text(kind):
        raise ConfigError(
            f"the condition compares {name!r} with {value!r} by size, but texts have none; write a number without "
            "quotes, or a date such as '2024-05-31'"
        )
    raise ConfigError(
        f"the condition compares {name!r}, which is of type {kind}, with {value!r}; write numbers without quotes, "
        "texts with quotes, and true or false for flags"
    )


def _cell(name: str, kind: typing.Any) -> pl.Expr:
    """Return a column in which an empty cell is missing."""
    column = pl.col(name)
    if _is_text(kind):
        column = column.cast(pl.String)
        return pl.when(column.str.strip_chars() != "").then(column)
    return pl.when(column.is_not_nan()).then(column) if kind.is_float() else column


def _apply(cell: pl.Expr, operation: str, value: typing.Any) -> pl.Expr:
    compared: pl.Expr = getattr(cell, operation)(pl.lit(value))
    return compared


def _date(name: str, value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"{name!r} holds dates, but {value!r} is none such as '2024-05-31'") from None
    return moment if type(moment) is not date else datetime.combine(moment, datetime.min.time())


def _is_text(kind: typing.Any) -> bool:
    return isinstance(kind, pl.String | pl.Categorical | pl.Enum)


def _compared_with_numbers(condition: Condition) -> tuple[str, ...]:
    match condition:
        case CellComparison(column=column, values=values):
            numbers = any(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
            return (column,) if numbers else ()
        case Not(condition=inner):
            return _compared_with_numbers(inner)
        case Joined(conditions=conditions):
            return tuple(dict.fromkeys(name for each in conditions for name in _compared_with_numbers(each)))


class _Reader:
    """Reads a condition from left to right; `kind` and `value` are those of the next token, None at the end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.start = self.end = 0
        self.kind: str | None = None
        self.value = ""
        self.advance()

    def advance(self) -> None:
        """Go to the next token."""
        self.start = self.end + len(self.text[self.end :]) - len(self.text[self.end :].lstrip())
        if self.start == len(self.text):
            self.kind, self.value = None, "the end"
            return
        match = _TOKEN.match(self.text, self.end)
        if match is None or match.lastgroup is None:
            self.refuse("expected a column, an operation or a value", self.text[self.start :].split()[0])
        self.kind, self.value, self.end = match.lastgroup, match[match.lastgroup], match.end()
        if self.kind == "word" and self.value.lower() in _RESERVED:
            self.kind = self.value = self.value.lower()

    def refuse(self, expected: str, found: str | None = None) -> typing.NoReturn:
        """Raise a ConfigError at the next token."""
        raise ConfigError(
            f"the condition {self.text!r} cannot be read at position {self.start + 1}, {found or self.value!r}: "
            f'{expected}; for example: rating >= 4 and event = "purchase"'
        )

    def take(self, *tokens: str) -> bool:
        """Go beyond the next token if it is one of `tokens`; tell whether it was."""
        if self.kind is None or self.kind in ("text", "quoted") or self.value not in tokens:
            return False
        self.advance()
        return True

    def either(self, depth: int) -> Condition:
        """Read conditions between `or`."""
        parts = [self.both(depth)]
        while self.take("or"):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else Joined(all=False, conditions=tuple(parts))

    def both(self, depth: int) -> Condition:
        """Read conditions between `and`."""
        parts = [self.one(depth)]
        while self.take("and"):
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else Joined(all=True, conditions=tuple(parts))

    def one(self, depth: int) -> Condition:
        """Read a comparison, `not` and a condition, or one in parentheses."""
        if depth > _DEEPEST:
            self.refuse(f"expected at most {_DEEPEST} conditions within one another")
        if self.take("not"):
            return Not(self.one(depth + 1))
        if self.take("("):
            inner = self.either(depth + 1)
            if not self.take(")"):
                self.refuse("expected )")
            return inner
        if self.kind not in ("word", "quoted"):
            self.refuse("expected a column")
        column = self.value
        self.advance()
        if self.take("is"):
            negated = self.take("not")
            if not self.take("missing", "null"):
                self.refuse("expected missing")
            return Not(CellComparison(column, "missing")) if negated else CellComparison(column, "missing")
        negated = self.take("not")
        if self.take("in"):
            within = CellComparison(column, "in", self.values())
            return Not(within) if negated else within
        if negated or self.kind != "sign" or self.value not in _OPERATIONS:
            self.refuse("expected in" if negated else "expected one of = != < <= > >=, in, is missing")
        operation = _OPERATIONS[self.value]
        self.advance()
        return CellComparison(column, operation, (self.one_value(),))

    def values(self) -> tuple[Value, ...]:
        """Read values between commas, in parentheses."""
        if not self.take("(", "["):
            self.refuse("expected ( and values between commas")
        values = [self.one_value()]
        while self.take(","):
            values.append(self.one_value())
        if not self.take(")", "]"):
            self.refuse("expected , or )")
        return tuple(values)

    def one_value(self) -> Value:
        """Read a number, a text, true or false."""
        kind, value = self.kind, self.value
        if kind == "word":
            self.refuse(f'expected a value: a number, or a text in quotes such as "{value}"')
        if kind not in ("number", "text", "true", "false"):
            self.refuse("expected a value: a number, a text in quotes, true or false")
        self.advance()
        if kind == "text":
            return value[1:-1]
        if kind == "number":
            return int(value) if re.fullmatch(r"[+-]?\d+", value) else float(value)
        return kind == "true"
