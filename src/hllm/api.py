"""The api is the public face: Recommender goes from tables to recommendations in the caller's own ids."""

import os
import shutil
import tempfile
import threading
import warnings
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from hllm import artifacts
from hllm.data.arguments import as_count, as_flag
from hllm.data.dataset import Dataset
from hllm.data.reading.tables import Table
from hllm.data.split import Split
from hllm.embedding.texts import ItemText
from hllm.errors import ConfigError, HllmWarning, Stopped
from hllm.evaluation.evaluate import Part, Result
from hllm.models.recommender import SequentialRecommender
from hllm.ranking.frame import CandidateIds, rank_frame
from hllm.ranking.ranker import ModelRanker
from hllm.recipe.recipe import Recipe, default_recipe
from hllm.retrieval.audience import audience
from hllm.retrieval.fallback import recommend_or_fall_back
from hllm.retrieval.frame import recommended
from hllm.retrieval.query import Named, Query, query_of
from hllm.retrieval.retriever import Retriever
from hllm.retrieval.scorer import ModelScorer
from hllm.retrieval.similar import similar_to_items, similar_to_texts
from hllm.runs.bundle import Bundle, open_run
from hllm.runs.measure import evaluate_run
from hllm.runs.run import Run
from hllm.runs.users import vectors_of_all_users
from hllm.sources.data_sets import locate
from hllm.training.fit import Resume, fit, recipe_from

_first_process: int | None = None
"""The process in which a recommender was first opened; its forks have none of the threads that answer."""


class Recommender:
    """A trained recommender with its catalogue and its users' histories: a face over a Bundle.

    Threads may use one together, and add items meanwhile. It can be pickled as long as its run is where it is: what is
    unpickled reads the run again. A fork of the process cannot use it: ConfigError.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._process = os.getpid()
        self._growing = threading.Lock()

    @property
    def bundle(self) -> Bundle:
        """Return all that answers; a new one after `add_items`. ConfigError in a fork of the process."""
        if os.getpid() != self._process:
            raise ConfigError(
                f"this recommender was opened in process {self._process} and cannot answer in a fork of it, which has "
                'none of its threads; start processes with the method "spawn", and open the run in each of them'
            )
        return self._bundle

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to open the run again, with the items that were added."""
        bundle = self.bundle
        added = bundle.dataset.items[bundle.origin.num_items :] if bundle.grown else None
        return _reopen, (bundle.run.folder.resolve(), bundle.scorer.dim, added)

    def __copy__(self) -> "Recommender":
        """Return a recommender over the same bundle, which never changes."""
        return Recommender(self.bundle)

    def __deepcopy__(self, memo: Any) -> "Recommender":
        """Return the same: items that are added to one are not in the other."""
        return Recommender(self.bundle)

    @classmethod
    def fit(
        cls,
        interactions: Table,
        items: Table | None = None,
        *,
        recipe: Recipe | Path | str | None = None,
        out: Path | str | None = None,
    ) -> "Recommender":
        """Train on two tables (data frames or paths) as the recipe (None: `default_recipe()`) says.

        The run is kept in `out`; a run that was stopped there goes on, a finished one is loaded. Without `out`
        it lives in a temporary folder until `save`. The recipe's own data.source is not used. Without items, the
        catalogue is the ids that the interactions name: enough for models that read no text.
        """
        _require_first_process()
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
        weakref.finalize(recommender.bundle.origin, shutil.rmtree, folder, ignore_errors=True)
        return recommender

    @classmethod
    def load(cls, path: Path | str) -> "Recommender":
        """Open a finished run; CheckpointError if it is damaged or training has not finished an epoch."""
        _require_first_process()
        return cls(open_run(Run(Path(path))))

    def save(self, path: Path | str) -> None:
        """Copy the run to `path`; ConfigError if items were added in memory, which the run does not hold."""
        target = Path(path)
        if self.bundle.grown:
            raise ConfigError("items added by add_items live in memory only; save before adding, and add them again")
        if target.exists():
            raise ConfigError(f"{target} exists already; give a new directory")
        to_resume = [path.name for path in self.run.checkpoints()[:-1]]
        with artifacts.writing(target, "run", {}) as folder:
            left_behind = shutil.ignore_patterns(".*", "damaged-*", *to_resume)
            shutil.copytree(self.run.folder, folder, dirs_exist_ok=True, ignore=left_behind)

    @property
    def run(self) -> Run:
        """Return the run's directory."""
        return self.bundle.run

    @property
    def recipe(self) -> Recipe:
        """Return the recipe that the run was trained by."""
        return self.bundle.recipe

    @property
    def dataset(self) -> Dataset:
        """Return the catalogue, with the items that were added, and the log."""
        return self.bundle.dataset

    @property
    def model(self) -> SequentialRecommender:
        """Return the model."""
        return self.bundle.model

    @property
    def split(self) -> Split:
        """Return how the data was split for training."""
        return self.bundle.split

    @property
    def scorer(self) -> ModelScorer:
        """Return the user tier over the vectors of all items."""
        return self.bundle.scorer

    @property
    def retriever(self) -> Retriever:
        """Return what recommends: the run's index if it has one, else exact search."""
        return self.bundle.retriever

    def at(self, dim: int | None) -> "Recommender":
        """Return a recommender like this that scores by the first `dim` numbers of the vectors; the model is shared."""
        return Recommender(self.bundle.at(dim))

    def recommend(
        self,
        users: Iterable[Any] | None = None,
        *,
        histories: Named | None = None,
        times: Iterable[Iterable[Any]] | None = None,
        texts: Iterable[Any] | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        items: Iterable[Any] | None = None,
        unknown: str = "error",
    ) -> pl.DataFrame:
        """Return the k best items of each user as a frame user_id, item_id, score, rank (from 1), source.

        The source is "model", and the score its similarity: a cosine, unless the recipe says otherwise. A user with
        neither a history nor a text gets the popular items: source "popularity", the score training interactions.

        Ask for known `users` (None: all), or give `histories` of item ids, oldest first: a mapping from any id,
        or a list, whose positions then serve as user_id. A mapping of fields may stand in place of an item id: an item
        that is known only by its text. `times` are the seconds since 1970 of all these elements, in the same order,
        for a model that reads times. `texts` are sentences, one for each user (or None), read as one more item after
        the history; given alone, their positions serve as user_id. `items` limits what may be recommended. A user gets
        fewer than k rows when fewer items are left. `unknown` says what to do with unknown users, and with unknown
        items in histories: "error"; "skip" leaves them out, and users of whom nothing is known; "popularity" gives
        such users the popular items.
        """
        bundle = self.bundle
        k = min(as_count(k, name="k"), bundle.dataset.num_items)
        exclude_seen = as_flag(exclude_seen, name="exclude_seen")
        query = _query(bundle, users, histories=histories, times=times, texts=texts, unknown=unknown)
        num_users = len(query.ids)
        if unknown == "skip":
            query = query.only(query.histories.known)
        if not len(query.ids):
            skipped = f'nothing is known of the {num_users:,}, and unknown="skip" leaves them out'
            cause = skipped if num_users else "users is empty"
            warnings.warn(f"there are no users to recommend to: {cause}", HllmWarning, stacklevel=2)
        candidates = None
        if items is not None:
            candidates = np.zeros(bundle.dataset.num_items, dtype=bool)
            candidates[bundle.dataset.item_rows(items)] = True
        seen = query.histories if exclude_seen else None
        best, sources = recommend_or_fall_back(
            bundle.retriever, lambda: bundle.popular, query.histories, k, exclude=seen, candidates=candidates
        )
        if k and (without := np.flatnonzero(best.items[:, 0] < 0)).size:
            causes = ["what the argument items does not name"] * (items is not None)
            causes += ["what a user has seen (exclude_seen=False offers it again)"] * exclude_seen
            warnings.warn(
                f"no item is left for {without.size:,} of {len(query.ids):,} users, the first of them "
                f"{query.ids[int(without[0])]!r}; left out is {' and '.join(causes)}",
                HllmWarning, stacklevel=2,
            )  # fmt: skip
        return recommended(bundle.dataset, query.ids, best, sources)

    def rank(
        self, candidates: CandidateIds, users: Any = None, *, histories: Any = None, target: str | None = None
    ) -> pl.DataFrame:
        """Score candidates for users or histories, which are as in `recommend`; see `ranking.frame.rank_frame`."""
        bundle = self.bundle
        query, ranker = _query(bundle, users, histories=histories), ModelRanker(bundle.scorer)
        return rank_frame(ranker, bundle.dataset, query.ids, query.histories, candidates, target=target)

    def similar(
        self,
        items: Iterable[Any] | None = None,
        *,
        texts: Iterable[ItemText] | None = None,
        k: int = 10,
    ) -> pl.DataFrame:
        """Return the k items nearest to known `items` or to new `texts` as query, item_id, score (cosine), rank.

        An item is not listed as similar to itself. The query column holds the item id, or the text's position.
        """
        k = as_count(k, name="k")
        if (items is None) == (texts is None):
            raise ConfigError("give either items or texts")
        bundle = self.bundle
        if items is not None:
            return similar_to_items(bundle.scorer, bundle.dataset, items, k=k)
        return similar_to_texts(bundle.scorer, bundle.dataset, texts if texts is not None else [], bundle.reader, k=k)

    def audience(self, text: ItemText, *, k: int = 10) -> pl.DataFrame:
        """Return the k users to whom a brand-new item, known only by its text, would be offered first.

        The frame is user_id, score, rank; see `retrieval.audience`. The first call reads all histories, which takes
        long; the users' vectors are kept in the run for the next.
        """
        k = as_count(k, name="k")
        bundle = self.bundle
        item = bundle.reader.read([text])  # first: it may be wrong, and the users take long
        query = _query(bundle)
        return audience(bundle.scorer, query, vectors_of_all_users(bundle, query.histories), item, k=k)

    def add_items(self, items: Table) -> None:
        """Add new items, known only by their text, to the catalogue in memory; they can be recommended at once.

        The table needs the item id column and the text columns that the model was trained with. Raises DataError
        for ids that are known already and items without text; the catalogue is then unchanged.
        """
        with self._growing:
            self._bundle = self.bundle.with_items(items)

    def encode(self, texts: Iterable[ItemText]) -> Float[np.ndarray, "text dim"]:
        """Return the item embeddings of texts, in fp32, not normalised."""
        vectors: Float[np.ndarray, "text dim"] = self.bundle.reader.read(texts).cpu().numpy()
        return vectors

    def title_of(self, item_ids: Iterable[Any]) -> list[str]:
        """Return what to show a person for each item id."""
        dataset = self.dataset
        return list(dataset.titles[dataset.item_rows(item_ids)])

    def evaluate(self, *, part: Part = "test", name: str = "model") -> Result:
        """Rank the full catalogue for every target of `part`; return metrics with intervals and the protocol.

        Each evaluation is counted in the run's directory, and the count for the test part is among the result's facts.
        """
        return evaluate_run(self.bundle, part=part, name=name).result


def fit_recipe(recipe: Path, out: Path, overrides: Sequence[str] = (), *, resume: Resume = "auto") -> Recommender:
    """Train a recipe on the data that it names, and open the run."""
    chosen, base = recipe_from(recipe, overrides)
    interactions, items = locate(chosen.data, base)
    return Recommender.load(fit(interactions, items, chosen, out, base=base, resume=resume).folder)


def _require_first_process() -> None:
    """Raise ConfigError in a fork of a process that has opened a recommender: it would wait for threads for ever."""
    global _first_process
    _first_process = _first_process or os.getpid()
    if os.getpid() != _first_process:
        raise ConfigError(
            f"this is a fork of process {_first_process}, which has opened a recommender, and has none of its threads; "
            'start processes with the method "spawn", or open the first recommender in the fork'
        )


def _query(bundle: Bundle, users: Any = None, **named: Any) -> Query:
    return query_of(bundle.dataset, bundle.model, bundle.origin.reader, users, **named)


def _reopen(folder: Path, dim: int | None, added: pl.DataFrame | None) -> Recommender:
    """Return a recommender that was pickled."""
    recommender = Recommender.load(folder).at(dim)
    if added is not None:
        recommender.add_items(added)
    return recommender
