"""The bundle: all that answers for a finished run, in one embedding space; it never changes."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hllm import artifacts
from hllm.data.dataset import Dataset
from hllm.data.prompt import render
from hllm.data.reading.tables import Table
from hllm.data.split import Split, split_dataset
from hllm.embedding.table import ItemEmbeddingTable
from hllm.embedding.texts import ItemReader
from hllm.errors import CheckpointError, ConfigError
from hllm.evaluation.baselines import Popularity
from hllm.models.checkpoint import ITEM_BACKBONE, load_checkpoint
from hllm.models.recommender import SequentialRecommender
from hllm.precision import choose_device
from hllm.recipe.recipe import Recipe
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.index.index import Index
from hllm.retrieval.index.retriever import IndexRetriever, open_index
from hllm.retrieval.retriever import Retriever
from hllm.retrieval.scorer import ModelScorer
from hllm.runs.run import Run


@dataclass(frozen=True)
class Origin:
    """The finished run that a bundle comes from."""

    run: Run
    recipe: Recipe
    checkpoint: str
    """Fingerprint of the checkpoint that made the vectors."""
    num_items: int
    """Size of the catalogue that the run holds."""
    index: Callable[[], Index | None]
    """Opens the run's index, at the first call; None if there is none. CheckpointError if it is damaged."""
    reader: Callable[[], ItemReader]
    """Opens the reader of texts, at the first call; ConfigError if the model knows items by id only."""


@final
@dataclass(frozen=True, eq=False)
class Bundle:
    """A dataset, a model and its table of item vectors, which belong together, and what finds items in the table."""

    origin: Origin
    dataset: Dataset
    """The run's own, and the items that were added since."""
    scorer: ModelScorer
    """The user tier over the vectors of all these items."""
    grown_index: Index | None = None
    """An index that has the added items too; of no account where there are none."""

    @property
    def run(self) -> Run:
        """Return the run's directory."""
        return self.origin.run

    @property
    def recipe(self) -> Recipe:
        """Return the recipe that the run was trained by."""
        return self.origin.recipe

    @property
    def model(self) -> SequentialRecommender:
        """Return the model, in evaluation mode."""
        return self.scorer.model

    @property
    def reader(self) -> ItemReader:
        """Return the reader of texts; ConfigError if the model knows items by id only."""
        return self.origin.reader()

    @property
    def grown(self) -> bool:
        """Return whether the bundle has items that the run lacks."""
        return self.dataset.num_items > self.origin.num_items

    @property
    def index(self) -> Index | None:
        """Return the index over the vectors; None if there is none of the size that the scorer compares.

        Also None after `with_items`, if no index of that size was in use: the one on disk does not have the new items.
        """
        index = self.grown_index if self.grown else self.origin.index()
        return None if index is None or self.scorer.dim not in (None, index.config.dim) else index

    @cached_property
    def exact(self) -> Retriever:
        """Return exact search, by which the bundle is evaluated."""
        return ExactRetriever(self.scorer)

    @property
    def retriever(self) -> Retriever:
        """Return what recommends: the index if there is one, else exact search."""
        index = self.index
        return self.exact if index is None else IndexRetriever(self.scorer.first(index.config.dim), index)

    @cached_property
    def popular(self) -> Retriever:
        """Return the fallback, which gives everyone the items with the most training interactions."""
        return ExactRetriever(Popularity(self.dataset, self.split))

    @cached_property
    def split(self) -> Split:
        """Return how the data was split for training."""
        return split_dataset(self.dataset, self.recipe.split)

    def at(self, dim: int | None) -> "Bundle":
        """Return a bundle that scores by the first `dim` numbers of the vectors; the model is shared."""
        return replace(self, scorer=self.scorer.over(self.scorer.table, dim=dim))

    def with_items(self, items: Table) -> "Bundle":
        """Return a bundle with new items, known only by their text, at the end of the catalogue; see `extended`."""
        reader, known, index = self.reader, self.dataset.num_items, self.index
        dataset = self.dataset.extended(items, self.recipe.data.items_form)
        vectors = reader.read_rendered(render(dataset.items[known:], dataset.text_cols, reader.prompt))
        if index is not None:
            index = copy(index)
            index.add(dataset.item_ids[known:], self.scorer.first(index.config.dim).comparable(vectors))
        scorer = self.scorer.over(torch.cat([self.scorer.table, vectors]), dim=self.scorer.dim)
        return Bundle(self.origin, dataset, scorer, index)


def open_run(run: Run, *, device: torch.device | None = None) -> Bundle:
    """Open a finished run on `device` (None: the best there is).

    Raises CheckpointError if it is damaged, mixed up, or training has not finished an epoch.
    """
    recipe = run.read_recipe()
    if (run.folder / artifacts.MANIFEST).is_file():  # a copy or an export, each part of which has its own besides
        artifacts.read_manifest(run.folder, "run")
    if not artifacts.standing(run.table_path).exists():
        raise CheckpointError(f"{run.folder} is not finished: it has no item vectors; run hllm train again to go on")
    model, _, manifest = load_checkpoint(run.best_path)
    table = ItemEmbeddingTable.load(run.table_path, checkpoint=manifest.fingerprint)
    dataset = Dataset.load(run.dataset_path)
    for name, fingerprint in (("dataset", dataset.fingerprint), ("recipe", run.recipe_fingerprint)):
        if fingerprint != manifest.details[name]:
            raise CheckpointError(
                f"the {name} in {run.folder} is not the one its checkpoint was trained with: fingerprint "
                f"{fingerprint[:12]}…, expected {manifest.details[name][:12]}…; restore it from a copy, or train again"
            )
    scorer = scorer_of(model, table.vectors, recipe, device=device)

    def index() -> Index | None:
        return (
            open_index(run.index_path, run.table_path, dataset) if artifacts.standing(run.index_path).exists() else None
        )

    def reader() -> ItemReader:
        return reader_of(scorer, recipe, run, dataset)

    origin = Origin(run, recipe, manifest.fingerprint, dataset.num_items, cache(index), cache(reader))
    return Bundle(origin, dataset, scorer)


def require_trained(run: Run) -> None:
    """Raise CheckpointError if the run has no checkpoint to embed with."""
    if not run.has_best:
        raise CheckpointError(f"{run.folder} is not finished: it has no best checkpoint; run hllm train again to go on")


def scorer_of(
    model: SequentialRecommender,
    table: Float[Tensor, "item dim"],
    recipe: Recipe,
    *,
    device: torch.device | None = None,
) -> ModelScorer:
    """Return the scorer of a recipe's model over item vectors; it puts the model on `device`, in evaluation mode."""
    device = device or choose_device()
    return ModelScorer(
        model.to(device).eval(), table,
        max_history=recipe.model.max_history, device=device, precision=recipe.precision,
    )  # fmt: skip


def reader_of(scorer: ModelScorer, recipe: Recipe, run: Run, dataset: Dataset) -> ItemReader:
    """Return what reads texts as the model read the catalogue's; ConfigError if it knows items by id only."""
    prompt = recipe.model.item.text_prompt
    if prompt is None:
        raise ConfigError("this model knows items by id only and cannot read text; train one with an Item LLM")
    return ItemReader.open(
        scorer.model, run.best_path / ITEM_BACKBONE, prompt, dataset.text_cols,
        device=scorer.device, precision=recipe.precision,
    )  # fmt: skip
