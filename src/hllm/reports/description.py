"""A Description becomes tables and histograms for the terminal, and a section of an HTML page."""

# Proved by tests/cli/test_describe.py.

import html
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from hllm.data.describing.description import Description, Distribution, Histogram, Times
from hllm.data.describing.notes import percent
from hllm.reports.description_charts import Bars, draw
from hllm.reports.page import page, table, text
from hllm.reports.text import text_table

WIDTH = 110
_BAR = 40
_QUANTILES = ("min", "p25", "median", "mean", "p75", "p90", "p99", "max")
_COLUMN_HEADINGS = ("table", "column", "type", "read as", "filled")
_KINDS = {
    "positions": "only positions in each user's history: no clock",
    "order": "only order the interactions: no clock",
    "none": "all equal: the order of the file counts",
}


def description_text(described: Description) -> str:
    """Return what a terminal of 110 columns shows."""
    lines: list[str] = []
    for heading, rows in _facts(described):
        lines += ["", heading, *text_table((), rows, indent=2)]
    lines += ["", "Columns", *text_table(_COLUMN_HEADINGS, _column_rows(described), indent=2)]
    spreads = [(name, *_quantiles(spread)) for name, spread in _distributions(described)]
    lines += ["", "Distributions", *text_table(("", *_QUANTILES), spreads, align="lr", indent=2)]
    for bars in _all_bars(described):
        histogram = [
            (label, f"{count:,}", "█" * _length(count, bars.counts))
            for label, count in zip(bars.labels, bars.counts, strict=True)
        ]
        lines += ["", bars.title, *text_table((), histogram, align="rrl", indent=2)]
    for heading, items in _examples(described):
        lines += ["", heading]
        lines += ["  " + textwrap.shorten(f"{label}: {words}", WIDTH - 2, placeholder=" …") for label, words in items]
    if described.faults:
        lines += ["", "Looked for in the tables"]
        lines += [f"  {fault.count:>12,} of {fault.total:,} {fault.rows} {fault.what}" for fault in described.faults]
    lines += ["", "To know before training"]
    wrapped = textwrap.TextWrapper(WIDTH, initial_indent="  - ", subsequent_indent="    ")
    lines += [line for note in described.notes for line in wrapped.wrap(note)] or ["  nothing stands out"]
    return "\n".join(lines).lstrip("\n")


def describe_section(described: Description) -> str:
    """Return the same as HTML with pictures, for a section of a page; headings inside are <h3>.

    Raises MissingExtraError without matplotlib.
    """
    pictures = "".join(draw(bars) for bars in _all_bars(described))
    parts = [
        "<h3>To know before training</h3>",
        _list(described.notes or ["Nothing stands out."]),
        *(
            f"<h3>{text(heading)}</h3>" + table(("", ""), [(label, [text(value)]) for label, value in rows])
            for heading, rows in _facts(described)
        ),
        f'<h3>Distributions</h3><div class="pictures">{pictures}</div>',
        table(
            ("", *_QUANTILES),
            [(name, list(_quantiles(spread))) for name, spread in _distributions(described)],
        ),
        *(
            f"<h3>{text(heading)}</h3>" + _list([f"{label}: {words}" for label, words in items])
            for heading, items in _examples(described)
        ),
        "<h3>Columns</h3>",
        table(
            ("", *_COLUMN_HEADINGS[1:]),
            [(row[0], [text(cell) for cell in row[1:]]) for row in _column_rows(described)],
        ),
    ]
    if described.faults:
        rows = [(f"{f.rows} that {f.what}", [f"{f.count:,}", f"{f.total:,}"]) for f in described.faults]
        parts += ["<h3>Looked for in the tables</h3>", table(("", "found", "of"), rows)]
    return "\n".join(parts)


def description_page(described: Description, *, title: str) -> str:
    """Return one HTML page without links to anything outside it; MissingExtraError without matplotlib."""
    lead = (
        f"<p>{described.num_users:,} users, {described.num_items:,} items, "
        f"{described.num_interactions:,} interactions.</p>"
    )
    return page(title, lead, [("Data", describe_section(described))])


Rows = list[tuple[str, str]]


def _facts(described: Description) -> Iterator[tuple[str, Rows]]:
    """Yield each heading with its labels and values, as plain text."""
    popularity, repeats, texts = described.popularity, described.repeats, described.texts
    total = described.num_interactions
    yield (
        "Counts",
        [
            ("users", f"{described.num_users:,}, ids: {_ids(described.user_ids.type, described.user_ids.numeric)}"),
            ("items", f"{described.num_items:,}, ids: {_ids(described.item_ids.type, described.item_ids.numeric)}"),
            ("interactions", f"{total:,}"),
            ("density", f"{percent(described.density)} of all pairs of a user and an item"),
        ],
    )
    yield (
        "Popularity",
        [
            ("Gini index", f"{popularity.gini:.3f}"),
            ("on the top 1 % of items", f"{percent(popularity.top_1_percent)} of the interactions"),
            ("on the top 10 % of items", f"{percent(popularity.top_10_percent)} of the interactions"),
            ("never interacted with", _share(popularity.never, described.num_items, "items")),
        ],
    )
    yield "Times", _time_rows(described.times)
    yield (
        "Repeats",
        [
            ("same user, item and time", _share(repeats.duplicates, total, "interactions")),
            ("same user and item", _share(repeats.pairs, total, "interactions")),
        ],
    )
    yield (
        "Item texts",
        [
            ("columns", ", ".join(texts.columns)),
            ("without text", _share(texts.empty, described.num_items, "items")),
            ("with another item's text", _share(texts.sharing, described.num_items, "items")),
            *_token_rows(described),
        ],
    )
    if split := described.split:
        leak = "unknown: times are no clock" if split.leak_share is None else percent(split.leak_share)
        yield (
            f"Split ({split.kind}, {split.fingerprint[:12]})",
            [
                ("training interactions", f"{split.num_training:,}"),
                ("validation targets", f"{split.num_validation:,}"),
                ("test targets", f"{split.num_test:,}"),
                ("training later than the median test target", leak),
            ],
        )


def _token_rows(described: Description) -> Rows:
    if described.tokens is None:
        return []
    tokens = described.tokens
    sample = "" if tokens.num_items == described.num_items else f", of a sample of {tokens.num_items:,} items"
    return [
        ("tokenizer", f"{tokens.tokenizer}, cut at {tokens.max_length} tokens{sample}"),
        ("texts that are cut", f"{percent(tokens.cut_items)}, which loses {percent(tokens.cut_tokens)} of all tokens"),
    ]


def _time_rows(times: Times) -> Rows:
    tied = ("tied within a user", f"{percent(times.tied_within_user)} of the interactions")
    if times.kind != "clock":
        return [("times are", _KINDS[times.kind]), tied]
    gap = "no user has two interactions" if times.median_gap_s is None else _duration(times.median_gap_s)
    assert times.resolution_s is not None, "a clock has a resolution"
    return [
        ("first", times.first or ""),
        ("last", times.last or ""),
        ("whole multiples of", _duration(times.resolution_s)),
        ("median gap within a user", gap),
        tied,
        ("tied with anyone's", f"{percent(times.tied_overall)} of the interactions"),
    ]


def _column_rows(described: Description) -> list[tuple[str, ...]]:
    tables = (("interactions", described.interaction_columns), ("items", described.item_columns))
    return [(name, c.name, c.type, c.role or "–", percent(c.filled)) for name, columns in tables for c in columns]


def _distributions(described: Description) -> Iterator[tuple[str, Distribution]]:
    yield "interactions of a user", described.history_length
    yield "interactions of an item", described.popularity.per_item
    yield "characters of a text", described.texts.characters
    if described.tokens:
        yield "tokens of a text", described.tokens.lengths


def _quantiles(spread: Distribution) -> tuple[str, ...]:
    return tuple(_number(getattr(spread, name)) for name in _QUANTILES)


def _all_bars(described: Description) -> Iterator[Bars]:
    yield Bars("Users by their number of interactions", *_ranges(described.history_length.histogram))
    yield Bars("Items by their number of interactions", *_ranges(described.popularity.per_item.histogram))
    if tokens := described.tokens:
        title = f"Item texts by their number of tokens ({tokens.max_length} are read)"
        yield Bars(title, *_ranges(tokens.lengths.histogram))
    if by_time := described.times.by_time:
        dates = tuple(str(np.datetime64(edge, "s"))[:10] for edge in by_time.edges[:-1])
        yield Bars("Interactions over time, by the first day of each period", dates, by_time.counts)


def _ranges(histogram: Histogram) -> tuple[tuple[str, ...], tuple[int, ...]]:
    bins = pairwise(histogram.edges)
    return tuple(f"{a:,}" if b == a + 1 else f"{a:,}–{b - 1:,}" for a, b in bins), histogram.counts


def _examples(described: Description) -> Iterator[tuple[str, Rows]]:
    texts = described.texts
    yield "The first items", [(f"{e.item_id} ({e.interactions:,} interactions)", e.text) for e in texts.first]
    yield "The most popular items", [(f"{e.item_id} ({e.interactions:,})", e.text) for e in texts.most_popular]
    if texts.shared:
        shared = [(s, ", ".join(s.item_ids) + (", …" if s.count > len(s.item_ids) else "")) for s in texts.shared]
        yield "Texts that several items have", [(f"{s.count:,} items ({ids})", s.text) for s, ids in shared]


def _length(count: int, counts: Sequence[int]) -> int:
    """Return the length of a bar; what is there at all has at least one block."""
    return max(round(_BAR * count / max(counts)), int(count > 0))


def _share(count: int, total: int, noun: str) -> str:
    return f"{count:,} {noun}" + (f" ({percent(count / total)})" if count else "")


def _ids(kind: str, numeric: float) -> str:
    look = "whole numbers" if numeric == 1 else "words" if numeric == 0 else f"{percent(numeric)} read as whole numbers"
    return f"{look} (type {kind})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= size:
            return f"{seconds / size:,.3g} {unit if seconds != size else unit[:-1]}"
    return f"{seconds:.6g} {'second' if seconds == 1 else 'seconds'}"


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
