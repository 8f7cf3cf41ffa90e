"""A comparison becomes text for a terminal, CSV, Markdown or LaTeX."""

# Proved by tests/evaluation/test_compare.py.

import csv
import io
from collections.abc import Callable, Sequence

from hllm.evaluation.compare import LEVEL, ComparedRun, Comparison, MetricTable
from hllm.evaluation.statistics import FLIPS, Estimate
from hllm.reports.text import markdown_table, text_table

_HEADINGS = ("difference", "p randomisation", "p t-test", "")


def notes(comparison: Comparison) -> list[str]:
    """Return what the table's numbers are, in sentences."""
    where = f"slice {comparison.group}; " if comparison.group else ""
    mixed = [
        f"MIXED PROTOCOLS, forced: {name} differs in {difference}" for name, difference in comparison.mixed.items()
    ]
    return [
        *mixed,
        f"{where}means over {comparison.protocol.evaluation.query_per}s with 95 % intervals, users resampled; "
        "difference: less the one named after it",
        f"p: paired randomisation test ({FLIPS:,} random signs) and paired t-test over users, both corrected for the "
        f"number of tests (Holm); as good: not below the best at {LEVEL}",
    ]


def _text(comparison: Comparison) -> str:
    lines = [*comparison.protocol.lines(), *notes(comparison), ""]
    for table in comparison.tables:
        lines += [*text_table(("", table.metric, *_HEADINGS), map(_cells, table.rows)), ""]
    lines += [f"{name}: {facts.line()}" for name, facts in comparison.facts.items()]
    return "\n".join(lines)


def _cells(row: ComparedRun) -> tuple[str, ...]:
    if row.test is None:
        return (row.name, _interval(row.value), "", "", "", row.mark)
    return (
        row.name,
        _interval(row.value),
        f"{_interval(row.test.difference, sign='+')} {row.test.against}",
        _p(row.test.p_randomisation),
        _p(row.test.p_t),
        row.mark,
    )


def _interval(value: Estimate, sign: str = "") -> str:
    return f"{value.mean:{sign}.4f} [{value.low:{sign}.4f} {value.high:{sign}.4f}]"


def _p(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _csv(comparison: Comparison) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    tests = ("against", "difference", "difference_low", "difference_high", "num_users", "p_randomisation", "p_t",
             "raw_p_randomisation", "raw_p_t")  # fmt: skip
    writer.writerow(("name", "metric", "slice", "mean", "low", "high", "num_targets", *tests, "mark"))
    for table in comparison.tables:
        for row in table.rows:
            value, test = row.value, row.test
            made: Sequence[object] = [""] * len(tests) if test is None else [
                test.against, test.difference.mean, test.difference.low, test.difference.high, test.num_users,
                test.p_randomisation, test.p_t, test.raw_p_randomisation, test.raw_p_t,
            ]  # fmt: skip
            writer.writerow((row.name, table.metric, comparison.group or "all items", value.mean, value.low,
                             value.high, row.num_targets, *made, row.mark))  # fmt: skip
    return buffer.getvalue().rstrip("\n")


def _markdown(comparison: Comparison) -> str:
    lines: list[str] = []
    for table in comparison.tables:
        lines += [*markdown_table(("recommender", table.metric, *_HEADINGS), map(_markdown_cells, table.rows)), ""]
    return "\n".join([*lines, *(f"- {line}" for line in [*notes(comparison), *comparison.protocol.lines()])])


def _markdown_cells(row: ComparedRun) -> list[str]:
    name, value, *rest = _cells(row)
    return [name, f"**{value}**" if row.mark == "best" else value, *rest]


def _latex(comparison: Comparison) -> str:
    """Return tabulars for the booktabs package; the best is bold, those as good are underlined."""
    lines = [f"% {line}" for line in [*notes(comparison), *comparison.protocol.lines()]]
    for table in comparison.tables:
        lines += [r"\begin{tabular}{lllll}", r"\toprule", _latex_row(_latex_head(table)), r"\midrule"]
        lines += [_latex_row(_latex_cells(row)) for row in table.rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines)


def _latex_head(table: MetricTable) -> list[str]:
    return [_escaped(cell) for cell in ("recommender", table.metric, *_HEADINGS[:3])]


def _latex_cells(row: ComparedRun) -> list[str]:
    cells = [_escaped(cell) for cell in _cells(row)[:5]]
    command = {"best": "textbf", "as good": "underline", "": ""}[row.mark]
    if command:
        cells[1] = rf"\{command}{{{cells[1]}}}"
    return [cell.replace("<", "$<$") for cell in cells]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "text": _text,
    "csv": _csv,
    "markdown": _markdown,
    "latex": _latex,
}
"""CSV has every number in full, the others are for people."""
