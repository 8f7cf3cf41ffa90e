"""A data set is described: one with a name, two files, that of a recipe or of a finished run."""

# Proved by tests/cli/test_describe.py.

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.dataset import Dataset
from hllm.data.describing.description import Description
from hllm.data.describing.measure import TokenCounter, describe
from hllm.data.describing.tables import describe_tables
from hllm.data.prompt import PromptConfig
from hllm.data.schema import FOLDER_TABLE, DataConfig
from hllm.data.split import SplitConfig, split_dataset
from hllm.errors import ConfigError, HllmWarning
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.checkpoint import ITEM_BACKBONE
from hllm.recipe.recipe import Recipe
from hllm.runs.run import Run
from hllm.sources.data_sets import locate, with_source_columns
from hllm.sources.language_models import resolve_backbone
from hllm.training.fit import recipe_from

_UNCUT = 100_000  # tokens: longer than any item's text; no more are counted of one


@dataclass(frozen=True)
class DataSource:
    """Two tables to describe, and the way in which a recipe would split and read them."""

    name: str
    data: DataConfig
    base: Path = field(default_factory=Path.cwd)
    """Relative paths start here."""
    split: SplitConfig = field(default_factory=LeaveOneOutSplit)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    tokenizer: str | None = None
    """The model of the recipe, if it reads text."""


def source_of_recipe(path: Path) -> DataSource:
    """Return what a recipe trains on."""
    recipe, base = recipe_from(path)
    prompt, backbone = _prompt(recipe)
    return DataSource(path.stem, recipe.data, base, recipe.split, prompt, backbone)


def source_of_files(interactions: Path | None, items: Path | None) -> DataSource:
    """Return two tables, or one without items; ConfigError if the interactions are missing."""
    if interactions is None:
        raise ConfigError("--items go with --interactions; give both")
    table = None if items is None else str(items)
    return DataSource(interactions.name, DataConfig(interactions=str(interactions), items=table))


def source_of_name(source: str) -> DataSource:
    """Return a data set that hllm knows, or the tables of a folder; ConfigError if the folder lacks one."""
    folder = Path(source)
    if not folder.is_dir():
        return DataSource(source, with_source_columns(DataConfig(source=source)))
    if (folder / FOLDER_TABLE).is_file():
        return DataSource(folder.resolve().name, DataConfig.from_dict({"from": source}, where=source))
    interactions, items = (str(_table_in(folder, name)) for name in ("interactions", "items"))
    return DataSource(folder.resolve().name, DataConfig(interactions=interactions, items=items))


def describe_source(
    source: DataSource, columns: Mapping[str, object], *, tokenizer: str | None, max_length: int | None
) -> Description:
    """Describe tables, with `columns` in place of those that the source names.

    Tokens are counted with `tokenizer` (None: the source's own), and texts cut at `max_length`. Warns, and counts no
    tokens, where the source's own is not at hand.
    """
    data = source.data
    if columns:
        data = DataConfig.from_dict({**data.model_dump(), **columns}, where="options")
    tables = locate(data, source.base)
    if tokenizer is not None or source.tokenizer is None:
        counter = _counter(tokenizer, Path.cwd(), max_length, source.prompt)
    else:
        try:
            counter = _counter(source.tokenizer, source.base, max_length, source.prompt)
        except ConfigError as error:  # all the rest can be told without the recipe's model
            warnings.warn(f"no token lengths: {error}", HllmWarning, stacklevel=2)
            counter = None
    return describe_tables(*tables, data, split=source.split, prompt=source.prompt, counter=counter)


def describe_run(run: Run, *, tokenizer: str | None, max_length: int | None) -> Description:
    """Describe what a finished run was trained on, with `tokenizer` in place of its own."""
    recipe = run.read_recipe()
    dataset = Dataset.load(run.dataset_path)
    prompt, backbone = _prompt(recipe)
    own = str((run.best_path / ITEM_BACKBONE).resolve()) if backbone else None
    counter = _counter(tokenizer or own, Path.cwd(), max_length, prompt, shown=tokenizer or backbone)
    return describe(dataset, split_dataset(dataset, recipe.split), prompt=prompt, counter=counter)


def _table_in(folder: Path, name: str) -> Path:
    files = sorted(folder.glob(f"{name}.*"))
    if len(files) != 1:
        there = "several" if files else "none"
        raise ConfigError(
            f"{folder} should hold one file {name}, such as {name}.parquet or {name}.csv, found {there}; name it with "
            f"--{name}"
        )
    return files[0]


def _prompt(recipe: Recipe) -> tuple[PromptConfig, str | None]:
    """Return how a recipe's items become texts, and the model that reads them; None for a tier of ids."""
    item = recipe.model.item
    reader = item.language_model
    return item.text_prompt or PromptConfig(), None if reader is None else reader.backbone


def _counter(
    tokenizer: str | None, base: Path, max_length: int | None, prompt: PromptConfig, *, shown: str | None = None
) -> TokenCounter | None:
    """Return the tokenizer to count with, None if none is named; ConfigError if it is not at hand."""
    if tokenizer is None:
        if max_length is not None:
            raise ConfigError("--max-length counts tokens: name a model with --tokenizer, such as minilm-l6")
        return None
    tokenize, _ = load_tokenizer(resolve_backbone(tokenizer, base), _UNCUT)
    return TokenCounter(shown or tokenizer, tokenize, max_length or prompt.max_tokens)
