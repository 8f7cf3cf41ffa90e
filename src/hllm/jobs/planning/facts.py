"""Gather the facts of the data that costs depend on: counted if they are at hand, else from published sizes."""

# Proved by tests/jobs/planning/test_plan.py.

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from hllm.batches.negatives import NegativesConfig
from hllm.batches.windows import WindowConfig, windows_of
from hllm.data.build import build_dataset
from hllm.data.dataset import Dataset
from hllm.data.prompt import PromptConfig, render
from hllm.data.split import split_dataset
from hllm.errors import ConfigError
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.recipe.recipe import Recipe
from hllm.sources.data_sets import SIZES, locate
from hllm.sources.language_models import resolve_backbone
from hllm.sources.local import DataSetSize

_SAMPLE = 1000  # items that are tokenised to see how long they are
_LONGEST = 2000  # interactions of a user, where only the mean is known
_POPULARITY = 0.5  # exponent of Zipf's law for which 5,632 draws from Pixel8M are 98 % distinct, as they are


@dataclass(frozen=True)
class DataFacts:
    """Sizes and distributions."""

    name: str
    counted: bool
    """Whether the data were read; else they are what is published, and the law that fits it."""
    num_users: int
    num_interactions: int
    num_actions: int
    history_lengths: Int[np.ndarray, " length"]
    """Every number of training interactions that some user has."""
    users_by_length: Float[np.ndarray, " length"]
    """Number of users who have it."""
    item_share: Float[np.ndarray, " num_items"]
    """Share of each item in the training interactions."""
    token_lengths: Int[np.ndarray, " sample"]
    """Tokens of some items; empty for a model that reads no text."""
    missing: tuple[str, ...]
    """Things that are not on this machine, each with what to do about it."""
    assumed: tuple[str, ...]
    """Assumptions in place of facts that are not known, in sentences."""

    @property
    def num_items(self) -> int:
        """Return the size of the catalogue."""
        return len(self.item_share)

    def windows(self, config: WindowConfig) -> tuple[Int[np.ndarray, " length"], Float[np.ndarray, " length"]]:
        """Return the lengths, in items, that training windows have, in order, and how many windows have each."""
        counts: dict[int, float] = {}
        for length, users in zip(self.history_lengths.tolist(), self.users_by_length.tolist(), strict=True):
            for start, end in windows_of(length, config):
                counts[end - start] = counts.get(end - start, 0.0) + users
        lengths = sorted(counts)
        return np.array(lengths, dtype=np.int64), np.array([counts[length] for length in lengths])

    def expected_distinct(self, drawn: float, negatives: NegativesConfig, windows: int, queries: float) -> float:
        """Return how many distinct items a batch has, of whose windows `drawn` items are, with its negatives.

        Each of them is taken to be drawn by itself, in proportion to its popularity.
        """
        if negatives.takes_all:
            return float(self.num_items)
        weight = self.item_share**negatives.popularity_power
        share = weight / weight.sum()
        with np.errstate(divide="ignore"):
            absent = np.exp(drawn * np.log1p(-self.item_share))
            if negatives.draws_distinct:
                absent *= 1 - min(1.0, negatives.num_sampled / self.num_items)
            elif negatives.draws:
                absent *= np.exp(negatives.num_drawn(windows, queries) * np.log1p(-share))
        return float((1 - absent).sum())


def gather_facts(recipe: Recipe, base: Path, *, count: bool = True) -> DataFacts:
    """Read the recipe's data; for a set known by name that is not at hand, or without `count`, take published sizes.

    Raises ConfigError and DataError as training would for data of one's own.
    """
    prompt, reader = recipe.model.item.text_prompt, recipe.model.item.language_model
    backbones, missing = _backbones(recipe, base)
    source = recipe.data.source
    try:
        tables = locate(recipe.data, base)
    except ConfigError as error:
        if source not in SIZES:
            raise
        tables, missing = None, (str(error), *missing)
    if tables is None or (not count and source in SIZES):
        return _published(str(source), SIZES[str(source)], prompt, missing)
    dataset = build_dataset(*tables, recipe.data)
    tokens, assumed = _no_tokens(prompt)
    if prompt is not None and reader is not None and reader.backbone in backbones:
        tokens, assumed = _tokens_of_a_sample(dataset, prompt, backbones[reader.backbone]), ()
    split = split_dataset(dataset, recipe.split)
    counts = split.train_counts(dataset)
    lengths, users = np.unique(split.training_lengths(dataset), return_counts=True)
    return DataFacts(
        name=source or str(recipe.data.interactions),
        counted=True,
        num_users=dataset.num_users,
        num_interactions=dataset.num_interactions,
        num_actions=len(dataset.action_names),
        history_lengths=lengths.astype(np.int64),
        users_by_length=users.astype(np.float64),
        item_share=counts / counts.sum(),
        token_lengths=tokens,
        missing=missing,
        assumed=assumed,
    )


def _backbones(recipe: Recipe, base: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return where the language models that are needed are, and what is said of each that is not at hand."""
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for model in (recipe.model.item.language_model, recipe.model.user.language_model):
        if model is not None and model.needs_files:
            try:
                found[model.backbone] = resolve_backbone(model.backbone, base)
            except ConfigError as error:
                missing[model.backbone] = str(error)
    return found, tuple(missing.values())


def _no_tokens(prompt: PromptConfig | None) -> tuple[Int[np.ndarray, " sample"], tuple[str, ...]]:
    """Return token lengths without texts or a tokenizer, and what is assumed."""
    if prompt is None:
        return np.zeros(0, dtype=np.int64), ()
    longest = prompt.max_tokens
    return np.array([longest]), (f"every text fills prompt.max_tokens = {longest}: real ones are shorter, and cheaper",)


def _tokens_of_a_sample(dataset: Dataset, prompt: PromptConfig, tokenizer: Path) -> Int[np.ndarray, " sample"]:
    rows = np.linspace(0, dataset.num_items - 1, min(_SAMPLE, dataset.num_items)).astype(np.int64)
    tokenize, _ = load_tokenizer(tokenizer, prompt.max_tokens, cut_closing=prompt.cut_closing)
    return np.array([len(ids) for ids in tokenize(render(dataset.items[rows], dataset.text_cols, prompt))])


def _published(name: str, size: DataSetSize, prompt: PromptConfig | None, missing: tuple[str, ...]) -> DataFacts:
    lengths, share = length_law(size.num_interactions / size.num_users, size.shortest)
    popularity = np.arange(1, size.num_items + 1) ** -_POPULARITY
    tokens, assumed = _no_tokens(prompt)
    laws = (
        f"{name}: published numbers of users, items and interactions; histories as long as a power law from "
        f"{size.shortest} with the published mean says; leave-one-out; items as popular as rank^-{_POPULARITY}"
    )
    return DataFacts(
        name=name,
        counted=False,
        num_users=size.num_users,
        num_interactions=size.num_interactions,
        num_actions=0,
        history_lengths=lengths - 2,
        users_by_length=share * size.num_users,
        item_share=popularity / popularity.sum(),
        token_lengths=tokens,
        missing=missing,
        assumed=(laws, *assumed),
    )


def length_law(mean: float, shortest: int) -> tuple[Int[np.ndarray, " length"], Float[np.ndarray, " length"]]:
    """Return lengths from `shortest` on and the share of each under the power law that has this mean."""
    lengths = np.arange(shortest, _LONGEST + 1)
    logs = np.log(lengths)
    low, high = -5.0, 20.0  # exponents; the mean falls as the exponent rises
    for _ in range(60):
        exponent = (low + high) / 2
        weights = np.exp(-exponent * (logs - logs[0]))
        share = weights / weights.sum()
        low, high = (exponent, high) if (share * lengths).sum() > mean else (low, exponent)
    return lengths, share
