"""`hllm data check` counts the faults of two tables, and what would be left of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hllm.cli.exits import EXIT_WRONG_INPUT
from hllm.cli.options import (
    COLUMNS,
    ENCODING,
    ITEMS_COLUMNS,
    JSON,
    NO_HEADER,
    SEPARATOR,
    column_list,
    form_keys,
    overrides_option,
)
from hllm.cli.show import echo, show_json
from hllm.errors import ConfigError
from hllm.reports.text import text_table

if TYPE_CHECKING:
    from hllm.data.build import Preparation
    from hllm.data.dataset import Dataset
    from hllm.data.schema import DataConfig


def check(
    folder: Path | None = typer.Argument(None, help="A folder that `hllm data import` wrote."),
    interactions: Path | None = typer.Option(
        None, "--interactions", help="Interactions, in any form that a recipe reads."
    ),
    items: Path | None = typer.Option(None, "--items", help="The items, in the same forms; none: the ids alone."),
    recipe: Path | None = typer.Option(None, "--recipe", help="Take tables, columns and policies from a recipe."),
    user_col: str | None = typer.Option(None, "--user-col", help="Column that names the user."),
    item_col: str | None = typer.Option(None, "--item-col", help="Column of both tables that names the item."),
    time_col: str | None = typer.Option(None, "--time-col", help='Column that orders; "": the order of the file.'),
    time_unit: str | None = typer.Option(None, "--time-unit", help='Of numeric times: "s", "ms", "us" or "none".'),
    time_format: str | None = typer.Option(None, "--time-format", help='Form of the times, such as "%m/%d/%Y %H:%M".'),
    action_col: str | None = typer.Option(None, "--action-col", help="Column that says what the user did."),
    text_cols: str | None = typer.Option(None, "--text-cols", help="Columns that describe an item, comma-separated."),
    separator: str | None = SEPARATOR,
    encoding: str | None = ENCODING,
    no_header: bool = NO_HEADER,
    columns: str | None = COLUMNS,
    items_columns: str | None = ITEMS_COLUMNS,
    overrides: list[str] = overrides_option(
        'Change a key, such as data.unknown_items="drop"; repeatable.', metavar="data.KEY=VALUE"
    ),
    quarantine: Path | None = typer.Option(None, "--quarantine", help="Folder for the rows at fault."),
    as_json: bool = JSON,
) -> None:
    """Count every fault, show its first rows, and say what is left; exit 2 if training would refuse the tables."""
    from hllm.data.build import prepare, refusals
    from hllm.sources.data_sets import locate

    options = {
        "user_col": user_col,
        "item_col": item_col,
        "time_col": time_col,
        "time_unit": time_unit,
        "time_format": time_format,
        "action_col": action_col,
        "text_cols": column_list(text_cols),
        "quarantine": None if quarantine is None else str(quarantine),
    }
    mapped = {key: value for key, value in options.items() if value is not None}
    mapped |= form_keys(separator, encoding, no_header, columns, items_columns)
    if sum(given is not None for given in (folder, interactions, recipe)) != 1:
        raise ConfigError(
            "give one of: a folder that hllm data import wrote, --interactions with --items, and --recipe"
        )
    reads_text = False
    if recipe is not None:
        tables, config, reads_text = _from_recipe(recipe, mapped, overrides)
    elif folder is not None:
        config = _config({"from": str(folder)} | mapped, overrides)
        tables = locate(config, Path())
    else:
        assert interactions is not None
        tables, config = (interactions, items), _config(mapped, overrides)
    preparation, dataset = prepare(tables[0], items or tables[1], config)
    refused = refusals(preparation)
    if reads_text and not dataset.text_cols:
        refused.append("the model of the recipe reads text, but the items have no text column")
    if as_json:
        show_json(preparation.facts() | {"text_cols": dataset.text_cols, "refused": refused})
    else:
        echo(_table(preparation, dataset, config, refused))
    if config.quarantine is not None and not as_json:
        echo(f"the rows at fault are in {config.quarantine}")
    if refused:
        raise typer.Exit(EXIT_WRONG_INPUT)


def _config(mapped: dict[str, Any], overrides: list[str]) -> "DataConfig":
    from hllm.config import Config
    from hllm.data.schema import DataConfig

    class Tables(Config):
        """Holds the one table of a recipe that is needed here."""

        data: DataConfig

    return Tables.from_dict({"data": mapped}, where="hllm data check", overrides=overrides).data


def _from_recipe(
    path: Path, mapped: dict[str, Any], overrides: list[str]
) -> tuple[tuple[Path, Path | None], "DataConfig", bool]:
    from hllm.data.schema import DataConfig
    from hllm.recipe.recipe import Recipe
    from hllm.sources.data_sets import locate

    recipe = Recipe.from_toml(path, overrides)
    config = DataConfig.from_dict(recipe.data.model_dump() | mapped, where=str(path))
    return locate(config, path.parent.resolve()), config, recipe.model.item.text_prompt is not None


def _table(preparation: "Preparation", dataset: "Dataset", config: "DataConfig", refused: list[str]) -> str:
    """Return the faults, then the steps, then the columns of text, then the verdict."""
    faults = [
        (fault.name, fault.table, f"{len(fault.rows):,}", f"{fault.total:,}", fault.policy, fault.first or "-")
        for fault in preparation.faults
    ]
    counts = ("rows", "users", "items")
    steps = [(step["step"], *(f"{step[count]:,}" for count in counts)) for step in preparation.steps]
    lines = [
        *text_table(("fault", "table", "rows", "of", "policy", "first data rows"), faults),
        "",
        *text_table(("step", *counts), steps),
    ]
    for step in preparation.steps:
        if "rounds" in step:
            lines.append(
                f"{step['step']}: at least {step['min_user']} interactions a user and {step['min_item']} an item, "
                f"applied in {step['rounds']} rounds"
            )
    lines += ["", _texts(dataset, config)]
    if "dates" in preparation.steps[0]:
        lines.append(f"times are read as {preparation.steps[0]['dates']}; data.time_format names another form")
    if "clock" in preparation.steps[0]:
        lines.append(f"the times are not those of our days; is it {preparation.steps[0]['clock']}?")
    if refused:
        lines += ["", f"training would refuse these tables ({len(refused)} reasons):", *(f"- {r}" for r in refused)]
    return "\n".join(lines)


def _texts(dataset: "Dataset", config: "DataConfig") -> str:
    """Return which columns describe an item, and why others do not, if nobody has named them."""
    from hllm.data.texts import default_text_columns, left_out

    columns = f"text is read from: {', '.join(dataset.text_cols) or 'no column'}"
    others = {} if config.text_cols is not None else default_text_columns(dataset.items.lazy(), config.item_col)[1]
    return columns + (f"; not from {left_out(others)}" if others else "")
