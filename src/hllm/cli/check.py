"""`hllm data check` counts the faults of two tables, and what would be left of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hllm.cli.exits import EXIT_WRONG_INPUT
from hllm.cli.options import JSON, column_list, overrides_option
from hllm.cli.show import show_json
from hllm.errors import ConfigError
from hllm.reports.text import text_table

if TYPE_CHECKING:
    from hllm.data.build import Preparation
    from hllm.data.schema import DataConfig


def check(
    interactions: Path | None = typer.Option(
        None, "--interactions", help="Interactions: CSV, TSV, JSON lines or Parquet."
    ),
    items: Path | None = typer.Option(None, "--items", help="The items, in the same formats."),
    recipe: Path | None = typer.Option(None, "--recipe", help="Take tables, columns and policies from a recipe."),
    user_col: str | None = typer.Option(None, "--user-col", help="Column that names the user."),
    item_col: str | None = typer.Option(None, "--item-col", help="Column of both tables that names the item."),
    time_col: str | None = typer.Option(None, "--time-col", help='Column that orders; "": the order of the file.'),
    action_col: str | None = typer.Option(None, "--action-col", help="Column that says what the user did."),
    text_cols: str | None = typer.Option(None, "--text-cols", help="Columns that describe an item, comma-separated."),
    overrides: list[str] = overrides_option(
        'Change a key, such as data.unknown_items="drop"; repeatable.', metavar="data.KEY=VALUE"
    ),
    quarantine: Path | None = typer.Option(None, "--quarantine", help="Folder for the rows at fault."),
    as_json: bool = JSON,
) -> None:
    """Count every fault, show its first rows, and say what is left; exit 2 if training would refuse the tables."""
    from hllm.data.build import prepare, refusals

    options = {
        "user_col": user_col,
        "item_col": item_col,
        "time_col": time_col,
        "action_col": action_col,
        "text_cols": column_list(text_cols),
        "quarantine": None if quarantine is None else str(quarantine),
    }
    mapped = {key: value for key, value in options.items() if value is not None}
    if recipe is not None:
        tables, config = _from_recipe(recipe, mapped, overrides)
    elif interactions is not None and items is not None:
        tables, config = (interactions, items), _config(mapped, overrides)
    else:
        raise ConfigError("give --interactions and --items, or --recipe")
    preparation, _ = prepare(interactions or tables[0], items or tables[1], config)
    refused = refusals(preparation)
    if as_json:
        show_json(preparation.facts() | {"refused": refused})
    else:
        typer.echo(_table(preparation, refused))
    if config.quarantine is not None and not as_json:
        typer.echo(f"the rows at fault are in {config.quarantine}")
    if refused:
        raise typer.Exit(EXIT_WRONG_INPUT)


def _config(mapped: dict[str, Any], overrides: list[str]) -> "DataConfig":
    from hllm.config import Config
    from hllm.data.schema import DataConfig

    class Tables(Config):
        """Holds the one table of a recipe that is needed here."""

        data: DataConfig

    return Tables.from_dict({"data": mapped}, where="hllm data check", overrides=overrides).data


def _from_recipe(path: Path, mapped: dict[str, Any], overrides: list[str]) -> tuple[tuple[Path, Path], "DataConfig"]:
    from hllm.data.schema import DataConfig
    from hllm.recipe.recipe import Recipe
    from hllm.sources.data_sets import locate

    data = Recipe.from_toml(path, overrides).data
    config = DataConfig.from_dict(data.model_dump() | mapped, where=str(path))
    return locate(config, path.parent.resolve()), config


def _table(preparation: "Preparation", refused: list[str]) -> str:
    """Return the faults, then the steps, then the verdict."""
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
    if refused:
        lines += ["", f"training would refuse these tables ({len(refused)} reasons):", *(f"- {r}" for r in refused)]
    return "\n".join(lines)
