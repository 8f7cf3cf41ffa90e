"""A cold-start evaluation becomes the text that `hllm cold-start` prints."""

# Proved by tests/evaluation/test_cold_start.py.

from collections.abc import Mapping, Sequence

from hllm.evaluation.cold_start import ColdItems, ColdStart, ShortHistories
from hllm.evaluation.statistics import Estimate
from hllm.reports.text import text_table

_METRICS = ("recall@10", "ndcg@10", "recall@50")


def cold_start_table(report: ColdStart) -> str:
    """Return both parts with their protocols: a line for each recommender, means with 95 % intervals."""
    lines = ["no target is a cold item", ""] if report.cold_items is None else _cold_items(report.cold_items)
    return "\n".join([*lines, *_short_histories(report.short_histories)])


def _cold_items(cold_items: ColdItems) -> list[str]:
    protocol = cold_items.protocol
    cold = f"at most {protocol.evaluation.cold_at_most} training interactions"
    lines = [f"COLD ITEMS: {protocol.num_targets:,} targets with {cold}", *protocol.lines(), ""]
    for heading, rows in (
        ("among the full catalogue", cold_items.full_catalogue),
        (f"among the {cold_items.num_items:,} cold items alone", cold_items.among_cold),
    ):
        lines += [heading, *_table(_shown(rows), [("", values) for values in rows.values()], list(rows)), ""]
    if cold_items.by_id:
        lines += [f"{', '.join(cold_items.by_id)}: items by id only; without training interactions that is chance", ""]
    return lines


def _short_histories(short: ShortHistories) -> list[str]:
    protocol = short.protocol
    lines = [f"SHORT HISTORIES: {protocol.num_targets:,} targets, {short.num_left_out:,} left out", *protocol.lines()]
    for name, points in short.curves.items():
        read = ["all" if length is None else f"{length:,}" for length in short.lengths]
        rows = [("popular" if length == "0" else "", values) for length, values in zip(read, points, strict=True)]
        lines += ["", f"{name}, by the number of items read", *_table(_shown({name: points[0]}), rows, read)]
    return lines


def _shown(rows: Mapping[str, Mapping[str, Estimate]]) -> list[str]:
    first = next(iter(rows.values()))
    return [metric for metric in _METRICS if metric in first] or list(first)[:3]


def _table(
    metrics: Sequence[str], rows: Sequence[tuple[str, Mapping[str, Estimate]]], names: Sequence[str]
) -> list[str]:
    """Return a line for each name: the means with their intervals, and a note."""
    lines = [
        (name, *(_cell(values[metric]) for metric in metrics), note)
        for name, (note, values) in zip(names, rows, strict=True)
    ]
    return text_table(("", *metrics, ""), lines, align="l" + "r" * len(metrics) + "l", indent=2)


def _cell(estimate: Estimate) -> str:
    return f"{estimate.mean:.4f} [{estimate.low:.4f} {estimate.high:.4f}]"
