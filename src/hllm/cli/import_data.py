"""`hllm data import` turns a public data set, or two tables, into hllm's own layout."""

import json
from pathlib import Path
from typing import Any

import typer

from hllm.cli.options import (
    COLUMNS,
    ENCODING,
    ITEMS_COLUMNS,
    JSON,
    NO_HEADER,
    SEPARATOR,
    column_list,
    form_keys,
    one_of,
)
from hllm.cli.show import echo, show_json
from hllm.data.importing.layouts import LAYOUTS

HELP = (
    "Turn a public data set, or any two tables, into interactions.parquet and items.parquet with the default "
    "columns.\n\n"
    "Prints the [data] table for a recipe, and keeps it in the directory: a recipe reads it with "
    '[data] from = "DIR", as do `hllm data check DIR` and `hllm data describe DIR`. '
    "The directory is written whole or not at all; what the layout knows of an interaction (rating, action, session, "
    "price) is kept as a column.\n\n"
    "hllm data import movielens-1m ml-1m --out data/ml-1m\n\n"
    "hllm data import table . --interactions 'clicks-*.csv.gz' --items goods.jsonl --user-col visitor --item-col sku "
    "--time-col at --text-cols name,brand --out data/shop\n\n"
    "Layouts, and the files expected in PATH:\n\n"
    + "\n\n".join(f"{name}: {layout.about}" for name, layout in LAYOUTS.items())
)


def import_data(
    layout: str = typer.Argument(help="One of the layouts above."),
    path: Path = typer.Argument(help="The folder with its files."),
    out: Path = typer.Option(..., "--out", help="The directory to write; it must not exist."),
    interactions: Path | None = typer.Option(None, "--interactions", help="Which file, if PATH has several."),
    items: Path | None = typer.Option(None, "--items", help="Which file, if PATH has several."),
    user_col: str = typer.Option("user_id", "--user-col", help="table, recbole: column that names the user."),
    item_col: str = typer.Option("item_id", "--item-col", help="table, recbole: column that names the item."),
    items_item_col: str | None = typer.Option(
        None, "--items-item-col", help="Column that names the item in the items, if it is called differently there."
    ),
    time_col: str = typer.Option(
        "timestamp", "--time-col", help="Column of the time: a number or date. '': the file's order is the order."
    ),
    action_col: str | None = typer.Option(None, "--action-col", help="Column of what the user did, such as click."),
    text_cols: str | None = typer.Option(
        None, "--text-cols", help="Columns that describe an item, between commas; default: every column of words."
    ),
    time_format: str | None = typer.Option(
        None,
        "--time-format",
        help='Form of the times, such as "%m/%d/%Y %H:%M" or "%Y%m%d"; default: found in the column.',
    ),
    separator: str | None = SEPARATOR,
    encoding: str | None = ENCODING,
    no_header: bool = NO_HEADER,
    columns: str | None = COLUMNS,
    items_columns: str | None = ITEMS_COLUMNS,
    where: str | None = typer.Option(
        None, "--where", help="Write only the interactions that fulfil a condition, such as 'rating >= 4'."
    ),
    match_ids: str = typer.Option(
        "exact", "--match-ids", help='"loose": ids of items are the same but for blanks, quotes, zeros in front and .0.'
    ),
    as_json: bool = JSON,
) -> None:
    """Turn a public data set, or any two tables, into interactions and items with the default columns."""
    from hllm.data.importing.import_layout import import_layout
    from hllm.data.importing.layout import Columns
    from hllm.data.schema import DataConfig

    keys = form_keys(separator, encoding, no_header, columns, items_columns)
    data = DataConfig.from_dict(keys, where="hllm data import")
    text = column_list(text_cols)
    named = Columns(user_col, item_col, time_col, action_col, items_item_col, None if text is None else tuple(text))
    done = import_layout(
        layout, path, out=out, interactions=interactions, items=items, columns=named, where=where,
        time_format=time_format,
        forms=(data.interactions_form, data.items_form),
        match_ids=one_of("--match-ids", match_ids, ("exact", "loose")),
    )  # fmt: skip
    if as_json:
        shown: dict[str, Any] = vars(done) | {"folder": str(done.folder), "notes": list(done.notes)}
        show_json(shown)
        return
    echo(f"{out}: {done.num_users:,} users, {done.num_items:,} items, {done.num_interactions:,} interactions")
    for note in done.notes:
        echo(f"note: {note}")
    echo(f"\n{done.toml()}\n\nA recipe reads all this with:\n\n[data]\nfrom = {json.dumps(str(out))}")
