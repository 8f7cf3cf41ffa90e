"""The tables of items of a finished run: vectors of its own items, or of others."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from polars.exceptions import PolarsError

from hllm import artifacts
from hllm.batches.batch import item_batch
from hllm.data import checks
from hllm.data.dataset import Dataset
from hllm.data.prompt import PromptConfig, render
from hllm.data.reading.tables import Table, read_table, require_columns
from hllm.data.tokens import TokenCache
from hllm.distributed import Group
from hllm.embedding.encode import encode_in_batches
from hllm.embedding.items import ItemWork, content_keys, embed_items, open_if_good
from hllm.embedding.rows import Dtype
from hllm.embedding.shards import Compute, Embedded, Share, clear_shards
from hllm.errors import ConfigError, DataError
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.checkpoint import ITEM_BACKBONE, load_checkpoint
from hllm.models.recommender import SequentialRecommender
from hllm.precision import Precision, choose_device, resolve_precision
from hllm.progress import Progress
from hllm.recipe.recipe import Recipe
from hllm.runs.bundle import require_trained
from hllm.runs.run import Run

_ROWS_AT_ONCE = 65_536


def embed_run_items(
    run: Run, path: Path, *, items: Table | None = None, dtype: Dtype = "fp32", share: Share | None = None,
    dim: int | None = None,
) -> Embedded:  # fmt: skip
    """Write the vectors of the run's items, or of the table `items`, by its best checkpoint to `path`.

    `dim` keeps only the first numbers of each, for scoring elsewhere: the user tier reads whole vectors.
    `items` needs the item id column, and for an Item LLM the text columns, of the training data. What stands at `path`
    or in the run is not encoded again where text and model are the same; see `embedding.items.embed_items`. Raises
    DataError for items without id or text, for items that stand twice, and for items that a model of ids does not know.
    Raises ConfigError for a `dim` beyond the vectors, or in the run's own table.
    """
    recipe = run.read_recipe()
    require_trained(run)
    model, config, manifest = load_checkpoint(run.best_path)
    _check_dim(dim, model.user_encoder.dim, own=path.resolve() == run.table_path.resolve())
    dataset = Dataset.load(run.dataset_path)
    device, origin = choose_device(), _Origin.of(manifest, recipe)
    encoder = _Encoder(model.to(device), recipe.precision, device)
    prompt = config.item.text_prompt
    if prompt is not None:
        catalogue = dataset.items if items is None else _items_of(items, dataset, dataset.text_cols, recipe)
        compute = encoder.texts(catalogue, dataset, prompt, run.best_path / ITEM_BACKBONE)
        work = origin.texts(catalogue, dataset, prompt, compute)
    else:
        ids = dataset.item_ids if items is None else _items_of(items, dataset, (), recipe)[dataset.item_col]
        rows = dataset.item_rows(ids)
        work = origin.indices(ids, rows, encoder.indices(rows))
    return embed_items(replace(work, dim=dim), path, dtype=dtype, share=share or Share(), reuse=(run.table_path,))


def embed_catalogue(run: Run, group: Group, vectors: Float[torch.Tensor, "item dim"] | None = None) -> None:
    """Write the run's own table of items, unless a good one of its best checkpoint is there.

    `vectors` are what that checkpoint gives for the run's items, where they are known.
    """
    table = open_if_good(run.table_path)
    group.wait()  # all have looked
    if table is not None and table.checkpoint == artifacts.read_manifest(run.best_path, "checkpoint").fingerprint:
        if group.first:
            clear_shards(run.table_path)  # a kill came while they were removed
        return
    if vectors is not None:
        if group.first:
            embed_items(_looked_up(run, vectors.cpu()), run.table_path, dtype="fp32", share=Share())
    else:
        if group.size > 1:
            embed_run_items(run, run.table_path, share=Share(group.rank + 1, group.size))
            group.wait()
        if group.first:
            embed_run_items(run, run.table_path)
    group.wait()


def _looked_up(run: Run, vectors: Float[torch.Tensor, "item dim"]) -> ItemWork:
    """Return the work of taking the run's items from `vectors`, which its best checkpoint gave for them."""
    recipe, dataset = run.read_recipe(), Dataset.load(run.dataset_path)
    prompt = recipe.model.item.text_prompt
    origin = _Origin.of(artifacts.read_manifest(run.best_path, "checkpoint"), recipe)

    def compute(rows: Int[np.ndarray, " item"], advance: Progress) -> torch.Tensor:
        advance(len(rows))
        return vectors[torch.from_numpy(rows)]

    if prompt is not None:
        return origin.texts(dataset.items, dataset, prompt, compute)
    return origin.indices(dataset.item_ids, np.arange(dataset.num_items), compute)


def _check_dim(dim: int | None, whole: int, *, own: bool) -> None:
    if dim is not None and not 1 <= dim <= whole:
        raise ConfigError(f"dim is {dim}, the model's vectors have {whole} numbers; expected 1 to {whole}")
    if dim is not None and own:
        raise ConfigError("the run's own table is read by its user tier, whole vectors; give another --out for a dim")


@dataclass(frozen=True)
class _Origin:
    """The checkpoint and the precision that vectors come from."""

    checkpoint: str
    precision: str

    @classmethod
    def of(cls, manifest: artifacts.Manifest, recipe: Recipe) -> "_Origin":
        return cls(manifest.fingerprint, resolve_precision(recipe.precision, choose_device()))

    def texts(self, items: pl.DataFrame, dataset: Dataset, prompt: PromptConfig, compute: Compute) -> ItemWork:
        """Return the work on the items' texts; at no time are all of them in memory as they are rendered."""
        keys, lengths = [], []
        for part in items.iter_slices(_ROWS_AT_ONCE):
            texts = render(part, dataset.text_cols, prompt)
            keys.append(content_keys(texts, checkpoint=self.checkpoint, precision=self.precision))
            lengths.append(np.array([len(text) for text in texts]))
        ids = items[dataset.item_col]
        return ItemWork(ids, np.concatenate(keys), np.concatenate(lengths), compute, self.checkpoint, self.precision)

    def indices(self, ids: pl.Series, index: Int[np.ndarray, " item"], compute: Compute) -> ItemWork:
        """Return the work on items that are known by their number only."""
        texts = (f"item {number}" for number in index)
        keys = content_keys(texts, checkpoint=self.checkpoint, precision=self.precision)
        return ItemWork(ids, keys, np.zeros(len(ids), dtype=np.int64), compute, self.checkpoint, self.precision)


class _Encoder:
    """The item tier of a checkpoint, which encodes the items of a table."""

    def __init__(self, model: SequentialRecommender, precision: Precision, device: torch.device) -> None:
        self.encode = model.item_encoder
        self.precision = precision
        self.device = device

    def texts(self, items: pl.DataFrame, dataset: Dataset, prompt: PromptConfig, tokenizer: Path) -> Compute:
        """Return what encodes rows of `items`."""
        tokenize, _ = load_tokenizer(tokenizer, prompt.max_tokens, cut_closing=prompt.cut_closing)

        def compute(rows: Int[np.ndarray, " item"], advance: Progress) -> torch.Tensor:
            tokens = TokenCache.of(tokenize(render(items[rows], dataset.text_cols, prompt)))
            return encode_in_batches(
                self.encode, len(rows), tokens, device=self.device, precision=self.precision, advance=advance
            )

        return compute

    def indices(self, index: Int[np.ndarray, " item"]) -> Compute:
        """Return what looks up some of the items `index`."""

        def compute(rows: Int[np.ndarray, " item"], advance: Progress) -> torch.Tensor:
            batch = item_batch(index[rows], None).to(self.device)
            with torch.no_grad():
                vectors: torch.Tensor = self.encode(batch).float()
            advance(len(rows))
            return vectors

        return compute


def _items_of(source: Table, dataset: Dataset, text_cols: tuple[str, ...], recipe: Recipe) -> pl.DataFrame:
    """Read a table of items into the types of the dataset's catalogue."""
    columns = {"item_col": dataset.item_col} | {f"text_cols[{i}]": name for i, name in enumerate(text_cols)}
    table = read_table(source, recipe.data.items_form, name="items")
    require_columns(table, columns, name="items")
    kinds = {name: dataset.items.schema[name] for name in columns.values()}
    try:
        items = table.select(pl.col(name).cast(kind) for name, kind in kinds.items())
    except PolarsError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the items' columns do not have the catalogue's types: {reason}") from None
    looked_for = ("missing_item_ids", "duplicate_items", *(("items_without_text",) if text_cols else ()))
    policies: dict[str, checks.Policy] = {name: "error" for name in looked_for}
    text_columns = text_cols or (dataset.item_col,)
    checks.refuse(checks.errors(checks.item_faults(items, dataset.item_col, text_columns, policies)))
    return items
