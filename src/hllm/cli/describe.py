"""`hllm data describe`."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hllm.errors import ConfigError, HllmWarning

if TYPE_CHECKING:
    from hllm.data.describing.description import Description
    from hllm.data.describing.measure import TokenCounter
    from hllm.data.prompt import PromptConfig
    from hllm.data.schema import DataConfig
    from hllm.data.split import SplitConfig
    from hllm.recipe.recipe import Recipe

_SUFFIXES = (".parquet", ".csv", ".tsv")


def describe(
    source: str | None = typer.Argument(
        None,
        help='A data set that hllm knows, such as "movielens-100k", or a folder with two files named interactions and '
        "items, each .parquet, .csv or .tsv.",
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
    text_cols: str | None = typer.Option(
        None, "--text-cols", help="Comma-separated columns that describe an item; default: every text column."
    ),
    tokenizer: str | None = typer.Option(
        None, "--tokenizer", metavar="MODEL", help='Count tokens as a model does: "minilm-l6", or a model directory.'
    ),
    max_length: int | None = typer.Option(
        None, "--max-length", min=1, help="Where an item's text is cut, in tokens; default 64, or what the recipe says."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for programs."),
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
    from hllm import artifacts
    from hllm.reports.description import description_page, description_text

    given = [source is not None, interactions is not None or items is not None, recipe is not None, run is not None]
    if sum(given) != 1:
        raise ConfigError(
            "give one of: a data set's name or folder, --interactions and --items, --recipe, or --run; "
            f"found {sum(given) or 'none'}"
        )
    columns = {
        "user_col": user_col,
        "item_col": item_col,
        "time_col": time_col,
        "time_unit": time_unit,
        "text_cols": None if text_cols is None else [c.strip() for c in text_cols.split(",")],
    }
    chosen = {key: value for key, value in columns.items() if value is not None}
    if run is not None:
        if chosen:
            raise ConfigError(f"a run's columns cannot be chosen again: leave out {', '.join(map(_option, chosen))}")
        described, name = _of_run(run, tokenizer, max_length), run.resolve().name
    else:
        wanted = _of_recipe(recipe) if recipe is not None else _of_files(source, interactions, items)
        described = _of_tables(wanted, chosen, tokenizer, max_length)
        name = wanted.name
    if page is not None:
        artifacts.write_text(page, description_page(described, title=f"The data of {name}"))
    if as_json:
        typer.echo(described.model_dump_json(indent=1))
    else:
        typer.echo(description_text(described) + (f"\n\n{page}" if page else ""))


@dataclass(frozen=True)
class _Wanted:
    """What to describe, from a recipe or from options."""

    name: str
    data: "DataConfig"
    base: Path
    split: "SplitConfig"
    prompt: "PromptConfig"
    tokenizer: str | None


def _of_files(source: str | None, interactions: Path | None, items: Path | None) -> _Wanted:
    from hllm.data.prompt import PromptConfig
    from hllm.data.schema import DataConfig
    from hllm.data.split import SplitConfig

    wanted = _Wanted("", DataConfig(), Path.cwd(), SplitConfig(), PromptConfig(), None)
    if source is None:
        if interactions is None or items is None:
            raise ConfigError("--interactions and --items belong together; give both")
        return replace(
            wanted, name=interactions.name, data=DataConfig(interactions=str(interactions), items=str(items))
        )
    folder = Path(source)
    if not folder.is_dir():
        return replace(wanted, name=source, data=DataConfig(source=source))
    files = [_table_in(folder, name) for name in ("interactions", "items")]
    data = DataConfig(interactions=str(files[0]), items=str(files[1]))
    return replace(wanted, name=folder.resolve().name, data=data)


def _table_in(folder: Path, name: str) -> Path:
    found = [file for suffix in _SUFFIXES if (file := folder / f"{name}{suffix}").is_file()]
    if len(found) != 1:
        there = "several" if found else "none"
        raise ConfigError(
            f"{folder} should hold one file {name} ({', '.join(_SUFFIXES)}), found {there}; name it with --{name}"
        )
    return found[0]


def _of_recipe(path: Path) -> _Wanted:
    from hllm.training.fit import recipe_from

    recipe, base = recipe_from(path)
    prompt, backbone = _prompt(recipe)
    return _Wanted(path.stem, recipe.data, base, recipe.split, prompt, backbone)


def _prompt(recipe: "Recipe") -> tuple["PromptConfig", str | None]:
    """Return how a recipe's items become texts, and the model that reads them; None for a tier of ids."""
    from hllm.data.prompt import PromptConfig

    item = recipe.model.item
    return (item.prompt, item.backbone) if item.kind == "llm" else (PromptConfig(), None)


def _of_tables(
    wanted: _Wanted, chosen: Mapping[str, object], tokenizer: str | None, max_length: int | None
) -> "Description":
    from hllm.data.describing.tables import describe_tables
    from hllm.data.schema import DataConfig
    from hllm.sources.data_sets import locate

    data = DataConfig.from_dict({**wanted.data.model_dump(), **chosen}, where="options") if chosen else wanted.data
    tables = locate(data, wanted.base)
    if tokenizer is not None or wanted.tokenizer is None:
        counter = _counter(tokenizer, Path.cwd(), max_length, wanted.prompt)
    else:
        try:
            counter = _counter(wanted.tokenizer, wanted.base, max_length, wanted.prompt)
        except ConfigError as error:  # all the rest can be told without the recipe's model
            warnings.warn(f"no token lengths: {error}", HllmWarning, stacklevel=2)
            counter = None
    return describe_tables(*tables, data, split=wanted.split, prompt=wanted.prompt, counter=counter)


def _of_run(folder: Path, tokenizer: str | None, max_length: int | None) -> "Description":
    from hllm.data.dataset import Dataset
    from hllm.data.describing.measure import describe
    from hllm.data.split import split_dataset
    from hllm.runs.run import Run

    run = Run(folder)
    recipe = run.read_recipe()
    dataset = Dataset.load(run.dataset_path)
    prompt, backbone = _prompt(recipe)
    own = str((run.best_path / "item_backbone").resolve()) if backbone else None
    counter = _counter(tokenizer or own, Path.cwd(), max_length, prompt, shown=tokenizer or backbone)
    return describe(dataset, split_dataset(dataset, recipe.split), prompt=prompt, counter=counter)


def _counter(
    tokenizer: str | None, base: Path, max_length: int | None, prompt: "PromptConfig", *, shown: str | None = None
) -> "TokenCounter | None":
    """Return the tokenizer to count with, None if none is named; ConfigError if it is not at hand."""
    if tokenizer is None:
        if max_length is not None:
            raise ConfigError("--max-length counts tokens: name a model with --tokenizer, such as minilm-l6")
        return None
    from hllm.data.describing.measure import TokenCounter
    from hllm.models.backbone.tokenizer import load_tokenizer
    from hllm.sources.language_models import resolve_backbone

    tokenize, _ = load_tokenizer(resolve_backbone(tokenizer, base), _UNCUT)
    return TokenCounter(shown or tokenizer, tokenize, max_length or prompt.max_tokens)


_UNCUT = 1_000_000  # tokens: longer than any item's text


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")
