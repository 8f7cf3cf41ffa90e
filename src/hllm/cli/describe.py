"""`hllm data describe` shows what is in a data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
)
from hllm.cli.show import echo
from hllm.errors import ConfigError

if TYPE_CHECKING:
    from hllm.data.describing.description import Description


def describe(
    source: str | None = typer.Argument(
        None,
        help='A data set that hllm knows, such as "movielens-100k", or a folder with two files named interactions and '
        "items, in any form that a recipe reads.",
    ),
    interactions: Path | None = typer.Option(None, "--interactions", help="The interactions table; with --items."),
    items: Path | None = typer.Option(None, "--items", help="The items table; with --interactions."),
    recipe: Path | None = typer.Option(
        None, "--recipe", help="Describe what a recipe trains on: its data, split, prompt and tokenizer."
    ),
    run: Path | None = typer.Option(None, "--run", help="Describe what a finished run was trained on."),
    user_col: str | None = typer.Option(None, "--user-col", help='Column of the user ids; default "user_id".'),
    item_col: str | None = typer.Option(None, "--item-col", help='Column of the item ids; default "item_id".'),
    time_col: str | None = typer.Option(
        None, "--time-col", help='Column of the times; default "timestamp"; "": the order of the file.'
    ),
    time_unit: str | None = typer.Option(None, "--time-unit", help='Of numeric times: "s", "ms", "us" or "none".'),
    time_format: str | None = typer.Option(None, "--time-format", help='Form of the times, such as "%m/%d/%Y %H:%M".'),
    text_cols: str | None = typer.Option(
        None, "--text-cols", help="Comma-separated columns that describe an item; default: every text column."
    ),
    separator: str | None = SEPARATOR,
    encoding: str | None = ENCODING,
    no_header: bool = NO_HEADER,
    columns: str | None = COLUMNS,
    items_columns: str | None = ITEMS_COLUMNS,
    tokenizer: str | None = typer.Option(
        None, "--tokenizer", metavar="MODEL", help='Count tokens as a model does: "minilm-l6", or a model directory.'
    ),
    max_length: int | None = typer.Option(
        None, "--max-length", min=1, help="Where an item's text is cut, in tokens; default 64, or what the recipe says."
    ),
    as_json: bool = JSON,
    page: Path | None = typer.Option(None, "--html", metavar="FILE", help="Write one HTML page with pictures."),
) -> None:
    """Show what is in a data set before anything is trained on it.

    Counts and density; how long histories and how popular items are; when things happened, or that the times are no
    clock; rows that cannot be used; repeated interactions; items without text, or with the text of another item; how
    many tokens the texts have and how many are cut; how much of the training data lies after the test targets. The
    last lines say what to do about it. Nothing is written but --html.

    Begin with: hllm data describe movielens-100k --tokenizer minilm-l6 --max-length 32

    Your own: hllm data describe --interactions clicks.csv --items catalogue.csv --user-col visitor --html data.html
    """
    origins = [source is not None, interactions is not None or items is not None, recipe is not None, run is not None]
    if sum(origins) != 1:
        raise ConfigError(
            "give one of: a data set's name or folder, --interactions and --items, --recipe, or --run; "
            f"found {sum(origins) or 'none'}"
        )
    options = {
        "user_col": user_col,
        "item_col": item_col,
        "time_col": time_col,
        "time_unit": time_unit,
        "time_format": time_format,
        "text_cols": column_list(text_cols),
    }
    settings: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    settings |= form_keys(separator, encoding, no_header, columns, items_columns)
    if run is not None and settings:
        names = ("no_header" if name == "header" else name for name in settings)
        named = ", ".join("--" + name.replace("_", "-") for name in names)
        raise ConfigError(f"a run's columns cannot be chosen again: leave out {named}")
    from hllm.jobs import describe as job
    from hllm.runs.run import Run

    if run is not None:
        name, described = Run(run).name, job.describe_run(Run(run), tokenizer=tokenizer, max_length=max_length)
    else:
        if recipe is not None:
            data = job.source_of_recipe(recipe)
        else:
            data = job.source_of_files(interactions, items) if source is None else job.source_of_name(source)
        described = job.describe_source(data, settings, tokenizer=tokenizer, max_length=max_length)
        name = data.name
    _show(described, name, page, as_json=as_json)


def _show(described: "Description", name: str, page: Path | None, *, as_json: bool) -> None:
    from hllm import artifacts
    from hllm.reports.description import description_page, description_text

    if page is not None:
        artifacts.write_text(page, description_page(described, title=f"The data of {name}"))
    if as_json:
        echo(described.model_dump_json(indent=1))
    else:
        echo(description_text(described) + (f"\n\n{page}" if page else ""))
