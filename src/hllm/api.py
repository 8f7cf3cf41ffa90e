"""The api is the public face: Recommender goes from tables to recommendations in the caller's own ids."""

import copy
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float

from hllm import artifacts
from hllm.data.dataset import Dataset
from hllm.data.prompt import render
from hllm.data.split import Split, options_of, split_dataset
from hllm.data.tables import Table
from hllm.embedding.shards import Share
from hllm.embedding.table import ItemEmbeddingTable, UserEmbeddingTable
from hllm.embedding.texts import ItemReader, ItemText
from hllm.errors import ConfigError, HllmWarning, Stopped, StorageError
from hllm.evaluation.ablations import Ablations, TextReader, ablate, check_switches
from hllm.evaluation.baselines import Popularity, build_baseline
from hllm.evaluation.evaluate import Evaluated, Part, Result, evaluate_with_ranks
from hllm.evaluation.facts import RunFacts
from hllm.models.checkpoint import ITEM_BACKBONE
from hllm.models.recommender import SequentialRecommender
from hllm.precision import choose_device
from hllm.ranking.frame import CandidateIds, rank_frame
from hllm.ranking.ranker import ModelRanker
from hllm.recipe.recipe import Recipe, default_recipe
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.fallback import recommend_or_fall_back
from hllm.retrieval.frame import frame_of, recommended
from hllm.retrieval.histories import Histories
from hllm.retrieval.index.index import Index
from hllm.retrieval.index.retriever import IndexRetriever, open_index
from hllm.retrieval.query import Named, query_of
from hllm.retrieval.retriever import Recommendations, Retriever
from hllm.retrieval.scorer import ModelScorer
from hllm.runs.opened import open_run
from hllm.runs.results import data_policy, device_name, log_evaluation, run_facts
from hllm.runs.run import Run
from hllm.runs.users import embed_users
from hllm.sources.data_sets import locate
from hllm.training.fit import Resume, fit, recipe_from


class Recommender:
    """A trained recommender with its catalogue and its users' histories."""

    _popular: Retriever | None = None  # made when asked for, for the catalogue as it then is

    _grown = False  # by add_items

    def __init__(self, run: Run, dataset: Dataset, model: SequentialRecommender, table: ItemEmbeddingTable) -> None:
        self.run = run
        self.recipe: Recipe = run.read_recipe()
        self.dataset = dataset
        self.model = model
        self.dim: int | None = None
        self._checkpoint = table.checkpoint
        self.device = choose_device()
        self._use_vectors(table.vectors)

    @classmethod
    def fit(
        cls,
        interactions: Table,
        items: Table,
        *,
        recipe: Recipe | Path | str | None = None,
        out: Path | str | None = None,
    ) -> "Recommender":
        """Train on two tables (data frames or paths) as the recipe (None: `default_recipe()`) says.

        The run is kept in `out`; a run that was stopped there goes on, a finished one is loaded. Without `out`
        it lives in a temporary folder until `save`. The recipe's own data.source is not used.
        """
        chosen, base = recipe_from(default_recipe() if recipe is None else recipe)
        if out is not None:
            return cls.load(fit(interactions, items, chosen, Path(out), base=base).folder)
        folder = Path(tempfile.mkdtemp(prefix="hllm-"))
        try:
            recommender = cls.load(fit(interactions, items, chosen, folder / "run", base=base).folder)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, Stopped):
                raise Stopped(error.signal_number, "stopped; give out= to keep what is trained so far") from None
            raise
        weakref.finalize(recommender, shutil.rmtree, folder, ignore_errors=True)
        return recommender

    @classmethod
    def load(cls, path: Path | str) -> "Recommender":
        """Open a finished run; CheckpointError if it is damaged or training has not finished an epoch."""
        run = Run(Path(path))
        opened = open_run(run)
        return cls(run, opened.dataset, opened.model, opened.table)

    def save(self, path: Path | str) -> None:
        """Copy the run to `path`; ConfigError if items were added in memory, which the run does not hold."""
        target = Path(path)
        if self.dataset.num_items != len(Dataset.load(self.run.dataset_path).items):
            raise ConfigError("items added by add_items live in memory only; save before adding, and add them again")
        if target.exists():
            raise ConfigError(f"{target} exists already; give a new directory")
        to_resume = [path.name for path in self.run.checkpoints()[:-1]]
        with artifacts.writing(target, "run", {}) as folder:
            shutil.copytree(
                self.run.folder,
                folder,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns(".*", "damaged-*", *to_resume),
            )

    @cached_property
    def index(self) -> Index | None:
        """The index that `hllm index` has made for this run; None if there is none, or not of the size asked of `at`.

        None too where `at` comes after `add_items` and no index of that size was in use: the one on disk lacks the
        items. CheckpointError if it is damaged, or over other item vectors than the run's.
        """
        path = self.run.index_path
        if not path.exists() or self._grown:
            return None
        found = open_index(path, self.run.table_path, self.dataset)
        return None if self.dim not in (None, found.config.dim) else found

    @property
    def finder(self) -> Retriever:
        """What recommendations come from: the run's index if it has one, else exact search."""
        index = self.index
        return self.retriever if index is None else IndexRetriever(self.scorer.first(index.config.dim), index)

    def at(self, dim: int | None) -> "Recommender":
        """Return a recommender like this that scores by the first `dim` numbers of the vectors; the model is shared."""
        other = copy.copy(self)
        other.dim = dim
        if self._grown and self.index is not None and dim in (None, self.index.config.dim):
            other.__dict__["index"] = copy.copy(self.index)  # has the added items, which the one on disk lacks
        else:
            other.__dict__.pop("index", None)
        other._use_vectors(self.scorer.table)
        return other

    def popular(self) -> Retriever:
        """Return what recommends the items with the most training interactions to everyone."""
        if self._popular is None:
            self._popular = ExactRetriever(Popularity(self.dataset, self.split))
        return self._popular

    @property
    def split(self) -> Split:
        """Return how the data was split for training."""
        return split_dataset(self.dataset, self.recipe.split)

    def recommend(
        self,
        users: Sequence[Any] | pl.Series | None = None,
        *,
        histories: Named | None = None,
        times: Sequence[Sequence[int]] | None = None,
        texts: Sequence[ItemText | None] | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        items: Sequence[Any] | pl.Series | None = None,
        unknown: str = "error",
    ) -> pl.DataFrame:
        """Return the k best items of each user as a frame user_id, item_id, score, rank (from 1), source.

        The source is "model", and the score its similarity: a cosine, unless the recipe says otherwise. A user with
        neither a history nor a text gets what is popular: source "popularity", the score training interactions.

        Ask for known `users` (None: all), or give `histories` of item ids, oldest first: a mapping from any id,
        or a list, whose positions then serve as user_id. `times` are their seconds since 1970, in the same order, for
        a model that reads times. `texts` are sentences, one for each user (or None), read as one more item after the
        history; given alone, their positions serve as user_id. `items` limits what may be recommended. A user gets
        fewer than k rows when fewer items are left. `unknown` says what to do with unknown users, and with unknown
        items in histories: "error"; "skip" leaves them out, and users of whom nothing is known; "popularity" gives
        these what is popular.
        """
        _require_k(k)
        query = query_of(
            self.dataset, self.model, self.reader, users,
            histories=histories, times=times, texts=texts, unknown=unknown,
        )  # fmt: skip
        if unknown == "skip":
            query = query.only(query.histories.known)
        candidates = None
        if items is not None:
            candidates = np.zeros(self.dataset.num_items, dtype=bool)
            candidates[self.dataset.item_rows(items)] = True
        seen = query.histories if exclude_seen else None
        best, sources = recommend_or_fall_back(
            self.finder, self.popular, query.histories, k, exclude=seen, candidates=candidates
        )
        return recommended(self.dataset, query.ids, best, sources)

    def rank(
        self, candidates: CandidateIds, users: Any = None, *, histories: Any = None, target: str | None = None
    ) -> pl.DataFrame:
        """Score candidates for users or histories, which are as in `recommend`; see `ranking.frame.rank_frame`."""
        query = query_of(self.dataset, self.model, self.reader, users, histories=histories)
        return rank_frame(ModelRanker(self.scorer), self.dataset, query.ids, query.histories, candidates, target=target)

    def similar(
        self,
        items: Sequence[Any] | pl.Series | None = None,
        *,
        texts: Sequence[ItemText] | None = None,
        k: int = 10,
    ) -> pl.DataFrame:
        """Return the k items nearest to known `items` or to new `texts` as query, item_id, score (cosine), rank.

        An item is not listed as similar to itself. The query column holds the item id, or the text's position.
        """
        _require_k(k)
        if (items is None) == (texts is None):
            raise ConfigError("give either items or texts")
        if items is not None:
            rows = self.dataset.item_rows(items)
            queries, ids = self._unit[torch.from_numpy(rows)], self.dataset.item_ids[rows]
        else:
            queries = F.normalize(self.reader().read(texts or [])[:, : self.dim], dim=-1, eps=1e-6)
            rows, ids = None, pl.Series(range(len(queries)), dtype=pl.Int64)
        scores = (queries @ self._unit.T).cpu().numpy()
        if rows is not None:
            scores[np.arange(len(rows)), rows] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return frame_of(self.dataset, {"query": ids}, Recommendations(best, np.take_along_axis(scores, best, axis=1)))

    def audience(self, text: ItemText, *, k: int = 10) -> pl.DataFrame:
        """Return the k users to whom a brand-new item, known only by its text, would be offered first.

        The frame is user_id, score, rank: the place the item would take in that user's own list of
        unseen items, behind those that score the same up to rounding. Users are ordered by that place, then by score.
        The first call reads all histories, which takes long; the users' vectors are kept in the run for the next.
        """
        _require_k(k)
        histories = query_of(self.dataset, self.model, self.reader).histories
        item = self.reader().read([text])  # first: it may be wrong, and the users take long
        users = self.scorer.comparable(self._user_vectors(histories))
        table = torch.cat([self.scorer.keys, self.scorer.comparable(item)])
        score, above = np.empty(len(histories)), np.empty(len(histories), dtype=np.int64)
        for user, history in enumerate(histories):
            scores = (table @ users[user]).cpu().numpy()
            scores[history] = -np.inf
            score[user] = scores[-1]
            above[user] = (scores[:-1] >= scores[-1] - _ROUNDING * max(1.0, abs(score[user]))).sum()
        order = np.lexsort((-score, above))[:k]
        return pl.DataFrame(
            {
                "user_id": self.dataset.users[order],
                "score": score[order].astype(np.float64),
                "rank": above[order] + 1,
            }
        )

    def _user_vectors(self, histories: Histories) -> Float[torch.Tensor, "user dim"]:
        """Return the vectors of all known users, whose histories these are, from the run's table if it is of today."""
        if self._grown:  # the run lacks the items
            return self.scorer.users(histories)
        everyone = np.arange(self.dataset.num_users)
        try:
            embed_users(
                self.scorer, self.dataset, everyone, self.run.user_table_path,
                checkpoint=self._checkpoint, dtype="fp32", share=Share(),
            )  # fmt: skip
        except StorageError as error:
            warnings.warn(f"{error}. The users' vectors are not kept for the next call", HllmWarning, stacklevel=3)
            return self.scorer.users(histories)
        return UserEmbeddingTable.load(self.run.user_table_path, checkpoint=self._checkpoint).vectors.to(self.device)

    def add_items(self, items: Table) -> None:
        """Add new items, known only by their text, to the catalogue in memory; they can be recommended at once.

        The table needs the item id column and the text columns that the model was trained with. Raises DataError
        for ids that are known already and items without text; the catalogue is then unchanged.
        """
        reader = self.reader()
        extended = self.dataset.extended(items)
        known, index = self.dataset.num_items, self.index
        vectors = reader.read_rendered(render(extended.items[known:], extended.text_cols, reader.prompt))
        self.dataset = extended
        self._use_vectors(torch.cat([self.scorer.table, vectors]))
        self._grown = True
        if index is not None:
            index.add(extended.item_ids[known:], self.scorer.first(index.config.dim).comparable(vectors))

    def encode(self, texts: Sequence[ItemText]) -> Float[np.ndarray, "text dim"]:
        """Return the item embeddings of texts, in fp32, not normalised."""
        vectors: Float[np.ndarray, "text dim"] = self.reader().read(texts).cpu().numpy()
        return vectors

    def title_of(self, item_ids: Sequence[Any] | pl.Series) -> list[str]:
        """Return what to show a person for each item id."""
        titles: list[str] = self.dataset.titles[self.dataset.item_rows(item_ids)].to_list()
        return titles

    def ablate(self, switches: Sequence[str] | None = None, *, part: Part = "test", name: str = "model") -> Ablations:
        """Measure what is lost without the order of the histories, without the items' texts, without training.

        `switches` are names such as "shuffled-order" and "shuffled-text" (None: all); see `evaluation.ablations`.
        """
        prompt = self.recipe.model.item.text_prompt
        texts = TextReader(prompt, self._with_texts) if prompt is not None else None
        check_switches(switches, self.dataset, texts)  # before the work
        return ablate(
            self.evaluate(part=part, name=name), self.retriever, self.dataset, self.split,
            switches=switches, max_history=self.recipe.model.max_history, texts=texts,
        )  # fmt: skip

    def evaluate(self, *, part: Part = "test", name: str = "model") -> Result:
        """Rank the full catalogue for every target of `part`; return metrics with intervals and the protocol.

        Each evaluation of the test part is counted in the run's directory, and the count is among the result's facts.
        """
        return self.evaluate_with_ranks(part=part, name=name).result

    def evaluate_with_ranks(self, *, part: Part = "test", name: str = "model") -> Evaluated:
        """Evaluate, and return where each target stands too."""
        split = self.split
        log_evaluation(self.run, part, split)
        facts = run_facts(self.run, self.recipe, self.model, split)
        return self._evaluated(name, self.retriever, split, part, facts)

    def evaluate_baseline(self, name: str, *, part: Part = "test") -> Result:
        """Evaluate one of `hllm.evaluation.baselines`, such as "popularity", under the same protocol."""
        return self.evaluate_baseline_with_ranks(name, part=part).result

    def evaluate_baseline_with_ranks(self, name: str, *, part: Part = "test") -> Evaluated:
        """Evaluate a baseline, and return where each target stands too."""
        split = self.split
        scorer = build_baseline(name, self.dataset, split)
        return self._evaluated(name, ExactRetriever(scorer), split, part, RunFacts(machine=device_name()))

    def _evaluated(self, name: str, retriever: Retriever, split: Split, part: Part, facts: RunFacts) -> Evaluated:
        return evaluate_with_ranks(
            name, retriever, self.dataset, split, part, self.recipe.evaluation,
            data_policy=data_policy(self.recipe), facts=facts,
            split_options=options_of(self.recipe.split),
        )  # fmt: skip

    def _use_vectors(self, vectors: torch.Tensor) -> None:
        self.scorer = self._scorer_over(vectors)
        self.retriever = ExactRetriever(self.scorer)
        self._unit = F.normalize(self.scorer.table.float()[:, : self.dim], dim=-1, eps=1e-6)
        self._popular = None

    def _scorer_over(self, vectors: torch.Tensor) -> ModelScorer:
        return ModelScorer(
            self.model.to(self.device).eval(), vectors, dim=self.dim,
            max_history=self.recipe.model.max_history, device=self.device, precision=self.recipe.precision,
        )  # fmt: skip

    def reader(self) -> ItemReader:
        """Return what reads texts as the model read the catalogue's; ConfigError if it knows items by id only."""
        prompt = self.recipe.model.item.text_prompt
        if prompt is None:
            raise ConfigError("this model knows items by id only and cannot read text; train one with an Item LLM")
        tokenizer, fields = self.run.best_path / ITEM_BACKBONE, self.dataset.text_cols
        return ItemReader(self.model, tokenizer, prompt, fields, self.device, self.recipe.precision)

    def _with_texts(self, texts: Sequence[str]) -> ExactRetriever:
        """Return this recommender with other texts, one for each item; only texts that no item had are encoded."""
        reader = self.reader()
        had = render(self.dataset.items, self.dataset.text_cols, reader.prompt)
        vectors = dict(zip(had, self.scorer.table, strict=True))
        new = sorted(set(texts) - set(had))
        if new:
            vectors |= dict(zip(new, reader.read_many(new), strict=True))
        return ExactRetriever(self._scorer_over(torch.stack([vectors[text] for text in texts])))


def fit_recipe(recipe: Path, out: Path, overrides: Sequence[str] = (), *, resume: Resume = "auto") -> Recommender:
    """Train a recipe on the data that it names, and open the run."""
    chosen, base = recipe_from(recipe, overrides)
    interactions, items = locate(chosen.data, base)
    return Recommender.load(fit(interactions, items, chosen, out, base=base, resume=resume).folder)


_ROUNDING = 1e-6  # of fp32: the same text encoded alone and among others, or a product of another shape


def _require_k(k: int) -> None:
    if k < 1:
        raise ConfigError(f"k is {k}; it must be at least 1")
