"""The schema says what the columns of the caller's tables mean."""

# Proved by tests/data/test_build.py.

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hllm.checked import check_files
from hllm.config import Config
from hllm.data.reading.form import Form
from hllm.data.where import parse
from hllm.errors import ConfigError

FOLDER_TABLE = "data.toml"
"""File of an imported folder that holds its `[data]` table, with paths that start at the folder."""


class TargetConfig(Config):
    """A label of the interactions, such as a click: what a head of model.ranking learns to predict."""

    name: str = Field(min_length=1)
    """Name of the target in model.ranking.targets, and in results."""
    column: str
    """Column of the interactions. An empty cell is no label: the interaction says nothing about this target."""
    at_least: float | None = None
    """The label is 1 where the column, a number, is at least this, else 0."""
    values: tuple[str, ...] = ()
    """The label is 1 where the column holds one of these texts, else 0."""

    @model_validator(mode="after")
    def _one_rule(self) -> "TargetConfig":
        if (self.at_least is None) == (not self.values):
            raise ValueError(f"target {self.name!r} needs one of at_least, for a number, and values, for texts")
        return self


class DataConfig(Config):
    """The places of the tables, and the names of their columns.

    `from = "FOLDER"`, beside any of these keys, takes all others from the data.toml of a folder that `hllm data import`
    wrote; a recipe's path starts at the recipe's own folder.
    """

    source: str | None = None
    """A data set that hllm knows by name, such as "movielens-100k"; or give `interactions` and `items`."""
    interactions: str | None = None
    """Path of the interactions table: one row for each thing that a user did with an item."""
    items: str | None = None
    """Path of the items table: one row for each item, with the columns that describe it. None: the items are the ids
    that the interactions name, which is enough for model.item.kind = "id"."""
    user_col: str = "user_id"
    """Column of the interactions that names the user."""
    item_col: str = "item_id"
    """Column of both tables that names the item."""
    time_col: str = "timestamp"
    """Column of the interactions that orders them: any number or date. "": the file's order is the order."""
    time_unit: Literal["s", "ms", "us", "none"] = "s"
    """Unit of a numeric time_col, since 1970; dates need none. "none": it orders, but is no clock."""
    time_format: str | None = None
    """Format of the times, such as "%m/%d/%Y %H:%M" or "%Y%m%d". None: numbers, or dates in any usual form, where the
    whole column decides whether the day or the month comes first."""
    separator: str | None = None
    """Text between two fields of text tables, such as ";" or "tab". None: found in the first lines. A table whose first
    line lacks it is read by its own."""
    encoding: str | None = None
    """Encoding of text tables that are not UTF-8, such as "cp1252" or "shift_jis". None: UTF-16 is recognised, and odd
    bytes in UTF-8 are read as cp1252, with a warning."""
    header: bool = True
    """Whether the first line of text tables names the columns. False: they are those of `columns`, else column_1,
    column_2 and so on."""
    columns: tuple[str, ...] | None = None
    """Names of the interactions' columns, in order, for a text table without a header."""
    items_columns: tuple[str, ...] | None = None
    """Names of the items' columns, in order, for a text table without a header."""
    action_col: str | None = None
    """Column of the interactions that says what the user did, such as "click"; model.inputs.action reads it."""
    split_col: str | None = None
    """Column of the interactions that says which part each is in, such as "train"; split.kind = "column" reads it."""
    where: str | None = None
    """Condition on the interactions that are read, such as 'rating >= 4 and event in ("cart", "purchase")'; all others
    are left out before anything else is done."""
    targets: tuple[TargetConfig, ...] = ()
    """Labels that are read from columns of the interactions, each a [[data.targets]] table."""
    text_cols: tuple[str, ...] | None = None
    """Columns of the items that describe an item, in the order they are read. None: every column of words, so no
    numbers, dates or links; `hllm data check` says which."""
    title_col: str | None = None
    """Column of the items shown to people. None: "title" where there is one, else the first of `text_cols`."""
    missing: tuple[str, ...] = ()
    """Texts that stand for an empty cell in `text_cols`, such as "NA"."""
    html: Literal["keep", "clean"] = "keep"
    """Tags such as <br> and signs such as &amp; in `text_cols`: "clean" takes tags out and writes the signs as what
    they stand for."""
    match_ids: Literal["exact", "loose"] = "exact"
    """Way to look up an interaction's item. "loose": where no item has the id, the one item whose id is the same but
    for blanks, quotes, zeros in front or .0 at the end is taken."""
    unknown_items: Literal["error", "drop", "keep"] = "error"
    """Policy for interactions whose item the items table lacks; "keep" adds the item with an empty text."""
    items_without_text: Literal["error", "drop", "keep"] = "error"
    """Policy for items whose `text_cols` are all empty; "drop" drops their interactions too."""
    items_without_interactions: Literal["keep", "drop"] = "keep"
    """Policy for items that no one has interacted with; "keep" leaves them in the catalogue, to be recommended too."""
    missing_user_ids: Literal["error", "drop"] = "error"
    """Policy for interactions that have no user id, or an empty one."""
    missing_item_ids: Literal["error", "drop"] = "error"
    """Policy for rows of either table that have no item id, or an empty one."""
    unreadable_times: Literal["error", "drop"] = "error"
    """Policy for interactions whose time is missing or neither a number nor a date."""
    duplicate_items: Literal["error", "drop"] = "error"
    """Policy for rows of the items whose id an earlier row has; "drop" keeps the first row of each id."""
    duplicate_interactions: Literal["error", "drop", "keep"] = "keep"
    """Policy for interactions of the same user, item, time and action as another; "drop" keeps the first one.
    Not looked for without a time_col, where meeting an item again is no fault."""
    quarantine: str | None = None
    """Folder for the rows at fault, each with the fault's name and its row number: one below the working folder."""
    min_user_interactions: int = Field(default=0, ge=0)
    """Users with fewer interactions are left out. 0: no bound."""
    min_item_interactions: int = Field(default=0, ge=0)
    """Items with fewer interactions are left out, of the catalogue too. 0: no bound."""
    filter: Literal["k-core", "one-pass"] = "k-core"
    """Way to apply the two bounds. "k-core": again and again until every user and item left keeps to them.
    "one-pass": items once, then users once, after which an item may have fewer; as HLLM's Amazon Books."""

    @model_validator(mode="before")
    @classmethod
    def _from_folder(cls, values: Any, info: Any) -> Any:
        if not isinstance(values, Mapping) or "from" not in values:
            return values
        others = {key: value for key, value in values.items() if key != "from"}
        return _table_of(str(values["from"]), (info.context or {}).get("base", Path())) | others

    @model_validator(mode="after")
    def _forms_can_be(self) -> "DataConfig":
        _ = self.interactions_form, self.items_form  # a ConfigError is a ValueError
        return self

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> "DataConfig":
        if not self.time_col and (self.time_unit != "s" or self.time_format is not None):
            raise ValueError('time_unit and time_format have no effect beside time_col = "": leave them out')
        if self.filter != "k-core" and not (self.min_user_interactions or self.min_item_interactions):
            raise ValueError(
                f'filter = "{self.filter}" has no effect without min_user_interactions or min_item_interactions: leave '
                "it out"
            )
        return self

    @property
    def interactions_form(self) -> Form:
        """Return how a text table of the interactions is written."""
        return Form(self.separator, self.encoding, self.header, self.columns)

    @property
    def items_form(self) -> Form:
        """Return how a text table of the items is written."""
        return Form(self.separator, self.encoding, self.header, self.items_columns)

    @field_validator("where")
    @classmethod
    def _can_be_read(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse(value)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("targets")
    @classmethod
    def _names_differ(cls, value: tuple[TargetConfig, ...]) -> tuple[TargetConfig, ...]:
        names = [target.name for target in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two targets are named {twice[0]!r}")
        return value


def _table_of(folder: str, base: Path) -> dict[str, Any]:
    """Return the `[data]` table of an imported folder; ValueError if it has none."""
    path = base / Path(folder).expanduser() / FOLDER_TABLE
    check_files([path])
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))["data"]
    except (OSError, KeyError) as error:
        found = "has no table [data]" if isinstance(error, KeyError) else "cannot be read"
        raise ValueError(
            f"from = {folder!r}: {path} {found}; name a folder that hllm data import wrote, or interactions and items"
        ) from None
    except ValueError as error:
        raise ValueError(f"from = {folder!r}: {path} is not valid TOML: {error}") from None
    if "quarantine" in table:
        raise ValueError(f"from = {folder!r}: {path} names a place to write to, quarantine; name it yourself")
    places = {}
    for key in ("interactions", "items"):
        if key in table:
            file = path.parent / str(table[key])
            if file.name != table[key] or not file.resolve().is_relative_to(path.parent.resolve()):
                raise ValueError(f"from = {folder!r}: {path} names {key} outside its folder: {table[key]!r}")
            places[key] = str(Path(folder).expanduser() / table[key])
    return {**table, **places}
