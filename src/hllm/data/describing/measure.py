"""Describe a data set before it is trained on: counts, distributions, faults, times, texts, token lengths, leaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from hllm.data.checks import without_text
from hllm.data.dataset import Dataset
from hllm.data.describing.description import (
    Column,
    Description,
    Distribution,
    Histogram,
    Ids,
    ItemExample,
    PopularityFacts,
    Repeats,
    SharedText,
    SplitFacts,
    Texts,
    Times,
    TokenLengths,
)
from hllm.data.describing.notes import notes
from hllm.data.leak import leak_share, times_kind
from hllm.data.prompt import PromptConfig, render
from hllm.data.reading.times import better_clock
from hllm.data.split import Split
from hllm.data.tokens import Tokenize

EXAMPLES = 3
MAX_CHARACTERS = 300  # of an example
MAX_TOKENISED = 50_000  # items; more are sampled, so that a large catalogue takes seconds too
MAX_BINS = 10
LEAST_IDS = 10  # items; in fewer, a column of years may differ in every row by chance
TIME_BINS = 24


@dataclass(frozen=True)
class TokenCounter:
    """A tokenizer to count with."""

    name: str
    tokenize: Tokenize
    """Must not cut the texts."""
    max_length: int
    """Number of tokens at which the model would cut them."""


def describe(
    dataset: Dataset,
    split: Split | None = None,
    *,
    prompt: PromptConfig | None = None,
    counter: TokenCounter | None = None,
) -> Description:
    """Describe a dataset; with a split and a tokenizer also what they make of it.

    The order of the rows changes nothing but which items are the first ones, and a split's fingerprint. Takes a few
    sorts of the interactions, and renders every item's text once.
    """
    texts = [""] * dataset.num_items
    if dataset.text_cols:
        texts = render(dataset.items, dataset.text_cols, prompt or PromptConfig())
    counts = np.bincount(dataset.item_index, minlength=dataset.num_items)
    pairs = _num_distinct(_users(dataset), dataset.item_index)
    description = Description(
        num_users=dataset.num_users,
        num_items=dataset.num_items,
        num_interactions=dataset.num_interactions,
        density=pairs / (dataset.num_users * dataset.num_items),
        user_ids=_ids(dataset.users),
        item_ids=_ids(dataset.item_ids),
        item_columns=columns(dataset.items, item_roles(dataset)),
        history_length=_distribution(np.diff(dataset.offsets)),
        popularity=_popularity(counts),
        repeats=_repeats(dataset, pairs),
        times=_times(dataset),
        texts=_texts(dataset, texts, counts),
        tokens=None if counter is None else _token_lengths(texts, counter),
        split=None if split is None else _split_facts(dataset, split),
    )
    return description.model_copy(update={"notes": notes(description)})


def item_roles(dataset: Dataset) -> dict[str, str]:
    """Return what each column of the items that is read is for."""
    roles = dict.fromkeys(dataset.text_cols, "text")
    roles[dataset.title_col] = "title, text" if dataset.title_col in roles else "title"
    return roles | {dataset.item_col: "item"}


def columns(frame: pl.DataFrame, roles: dict[str, str]) -> tuple[Column, ...]:
    """Describe the columns of a table; `roles` holds what those that are read are for."""
    kinds = frame.schema
    is_filled = [
        (pl.col(name).str.strip_chars() != "").fill_null(False) if kind == pl.String else pl.col(name).is_not_null()
        for name, kind in kinds.items()
    ]
    shares = frame.select(column.mean() for column in is_filled).row(0)
    return tuple(
        Column(name=name, type=str(kind), role=roles.get(name, ""), filled=share)
        for (name, kind), share in zip(kinds.items(), shares, strict=True)
    )


def _ids(ids: pl.Series) -> Ids:
    numeric = ids.cast(pl.String).str.contains(r"^-?\d+$").mean()
    return Ids(type=str(ids.dtype), numeric=float(numeric) if isinstance(numeric, float) else 0.0)


def _users(dataset: Dataset) -> Int[np.ndarray, " interaction"]:
    return np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))


def _num_distinct(*values: Int[np.ndarray, " interaction"]) -> int:
    return pl.DataFrame({str(n): column for n, column in enumerate(values)}).n_unique()


def _distribution(values: Int[np.ndarray, " value"], *, doubling: bool = False) -> Distribution:
    """Describe whole numbers, of which there is at least one; `doubling` bins suit a long tail."""
    p25, median, p75, p90, p99 = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75, 0.9, 0.99]))
    edges = _doubling_edges(values) if doubling else _even_edges(values, p99)
    return Distribution(
        min=float(values.min()), p25=p25, median=median, mean=float(values.mean()), p75=p75, p90=p90, p99=p99,
        max=float(values.max()), histogram=_histogram(values, edges),
    )  # fmt: skip


def _histogram(values: Int[np.ndarray, " value"], edges: Sequence[int]) -> Histogram:
    # The largest value is below the last edge, so that numpy's closed last bin makes no difference.
    return Histogram(edges=tuple(edges), counts=tuple(np.histogram(values, np.array(edges))[0].tolist()))


def _even_edges(values: Int[np.ndarray, " value"], p99: float) -> list[int]:
    """Return edges of even bins up to the 99th percentile and of one for the rest, of widths like 1, 2, 5, 10, 20."""
    low, high = int(values.min()), int(values.max())
    widths = (step * 10**power for power in range(19) for step in (1, 2, 5))
    width = next(w for w in widths if p99 - low < MAX_BINS * w)
    edges = list(range(low // width * width, int(p99) + width + 1, width))
    return edges if high < edges[-1] else [*edges, high + 1]


def _doubling_edges(values: Int[np.ndarray, " value"]) -> list[int]:
    """Return the edges 0, 1, 2, 4, 8, …, from the last one that is not above the smallest value."""
    low, high = int(values.min()), int(values.max())
    edges = [0, *(2**power for power in range(high.bit_length() + 1))]
    return [edge for edge, next_edge in zip(edges, [*edges[1:], high + 1], strict=True) if next_edge > low]


def _popularity(counts: Int[np.ndarray, " item"]) -> PopularityFacts:
    sorted_counts = np.sort(counts)
    total, size = int(counts.sum()), len(counts)
    # Gini's index is the mean difference of two items over twice the mean; sorted, that is this sum.
    ranks = 2.0 * np.arange(1, size + 1) - size - 1
    return PopularityFacts(
        per_item=_distribution(counts, doubling=True),
        gini=float((ranks * sorted_counts).sum() / (size * total)),
        top_1_percent=float(sorted_counts[-ceil(size / 100) :].sum() / total),
        top_10_percent=float(sorted_counts[-ceil(size / 10) :].sum() / total),
        never=int((counts == 0).sum()),
    )


def _repeats(dataset: Dataset, pairs: int) -> Repeats:
    moments = _num_distinct(_users(dataset), dataset.item_index, dataset.timestamps)
    timeless = times_kind(dataset) == "none"
    return Repeats(
        duplicates=0 if timeless else dataset.num_interactions - moments,
        pairs=dataset.num_interactions - pairs,
    )


def _times(dataset: Dataset) -> Times:
    times, users = dataset.timestamps, _users(dataset)
    same_user = users[1:] == users[:-1]
    as_before = same_user & (times[1:] == times[:-1])
    ties = np.append(as_before, False) | np.insert(as_before, 0, False)
    _, counts = np.unique(times, return_counts=True)
    within, overall = float(ties.mean()), float(counts[counts > 1].sum() / len(times))
    kind = times_kind(dataset)
    unit = dataset.seconds_per_unit
    if kind != "clock" or unit is None:
        return Times(kind=kind, tied_within_user=within, tied_overall=overall)
    gaps = np.diff(times)[same_user]
    seconds = dataset.seconds
    oldest, latest = int(seconds.min()), int(seconds.max())
    edges = np.unique(np.linspace(oldest, latest + 1, TIME_BINS + 1).round().astype(np.int64))
    return Times(
        kind="clock",
        first=_moment(oldest),
        last=_moment(latest),
        resolution_s=float(np.gcd.reduce(times - times.min()) * unit),
        median_gap_s=float(np.median(gaps) * unit) if len(gaps) else None,
        by_time=_histogram(seconds, edges.tolist()),
        tied_within_user=within,
        tied_overall=overall,
        better_clock=better_clock(dataset.timestamps, unit),
    )


def _moment(seconds: int) -> str:
    """Return seconds since 1970 as a date and time; years beyond 9999, as a wrong unit gives, can be told too."""
    return str(np.datetime64(seconds, "s")).replace("T", " ") + " UTC"


def _texts(dataset: Dataset, texts: Sequence[str], counts: Int[np.ndarray, " item"]) -> Texts:
    table = pl.DataFrame({"id": dataset.item_ids.cast(pl.String), "text": pl.Series(texts, dtype=pl.String)})
    lengths = table["text"].str.len_chars().to_numpy().astype(np.int64)
    empty = without_text(dataset.items, dataset.text_cols)
    shared_texts = (
        table.filter(~empty & (table["text"] != ""))
        .group_by("text")
        .agg(pl.len().alias("count"), pl.col("id").sort().head(EXAMPLES))
        .filter(pl.col("count") > 1)
        .sort("count", "text", descending=[True, False])
    )
    popular_items = pl.DataFrame({"row": np.arange(len(counts)), "count": counts, "id": table["id"]})
    popular_items = (
        popular_items.filter(pl.col("count") > 0).sort("count", "id", descending=[True, False]).head(EXAMPLES)
    )

    def examples(rows: Sequence[int]) -> tuple[ItemExample, ...]:
        return tuple(
            ItemExample(item_id=table["id"][row], interactions=int(counts[row]), text=_cut(texts[row])) for row in rows
        )

    return Texts(
        columns=dataset.text_cols,
        id_like=tuple(name for name in dataset.text_cols if _looks_like_ids(dataset.items[name])),
        characters=_distribution(lengths),
        empty=int(empty.sum()),
        sharing=int(shared_texts["count"].sum()),
        shared=tuple(
            SharedText(text=_cut(text), count=count, item_ids=tuple(ids))
            for text, count, ids in shared_texts.head(EXAMPLES).iter_rows()
        ),
        first=examples(range(min(EXAMPLES, dataset.num_items))),
        most_popular=examples(popular_items["row"].to_list()),
    )


def _looks_like_ids(column: pl.Series) -> bool:
    """Tell whether every row has a word, all of them differ, and they hold digits: a code, not a name."""
    if len(column) < LEAST_IDS or column.null_count() or column.cast(pl.String).n_unique() < len(column):
        return False
    return bool(column.cast(pl.String).str.contains(r"^\S*\d\S*$").all())


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"


def _token_lengths(texts: Sequence[str], counter: TokenCounter) -> TokenLengths:
    rows = np.arange(len(texts))
    if len(rows) > MAX_TOKENISED:
        rows = np.linspace(0, len(texts) - 1, MAX_TOKENISED).astype(np.int64)
    lengths = np.array([len(ids) for ids in counter.tokenize([texts[row] for row in rows.tolist()])], dtype=np.int64)
    excess: Float[np.ndarray, " item"] = np.maximum(lengths - counter.max_length, 0)
    return TokenLengths(
        tokenizer=counter.name,
        max_length=counter.max_length,
        num_items=len(rows),
        lengths=_distribution(lengths),
        cut_items=float((excess > 0).mean()),
        cut_tokens=float(excess.sum() / lengths.sum()),
    )


def _split_facts(dataset: Dataset, split: Split) -> SplitFacts:
    return SplitFacts(
        kind=split.kind,
        fingerprint=split.fingerprint,
        num_training=int(split.training.sum()),
        num_validation=len(split.validation),
        num_test=len(split.test),
        leak_share=leak_share(dataset, split),
    )
