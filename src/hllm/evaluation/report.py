"""The results for people: a table for the terminal, and one self-contained HTML page."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hllm.evaluation.curves import Events, learning_curves
from hllm.evaluation.evaluate import Result
from hllm.evaluation.statistics import Estimate

_TERMINAL_METRICS = ("recall@10", "ndcg@10", "mrr@10", "recall@50")


@dataclass(frozen=True)
class Example:
    """What one user did and is offered, or whom a new item would be offered to: rows of text under a heading."""

    heading: str
    history: Sequence[str]
    recommended: Sequence[tuple[str, float]]
    """Title or user, and score."""


def text_table(results: Sequence[Result]) -> str:
    """Return the protocol, a table of the main metrics with their intervals for each group, and each run's facts."""
    first = results[0]
    lines = [*first.protocol.lines(), ""]
    tables = [("all items", first.protocol.num_targets, [result.all_items for result in results])]
    tables += [
        (group, count, [result.slices[group] for result in results]) for group, count in first.slice_targets.items()
    ]
    width = max(len(result.name) for result in results)
    for heading, count, values in tables:
        names = [name for name in _terminal_metrics(first) if all(name in each for each in values)]
        lines.append(f"{heading} ({count:,} targets)")
        if not names:
            lines += ["  no metrics: no targets, or other cut-offs", ""]
            continue
        lines.append("  " + " " * width + "".join(f"  {name:>20}" for name in names))
        lines += [
            f"  {result.name:<{width}}" + "".join(f"  {_cell(each[name]):>20}" for name in names)
            for result, each in zip(results, values, strict=True)
        ]
        lines.append("")
    for result in results:
        lists = "".join(f"; {name} {value:.4g}" for name, value in result.beyond_accuracy.items())
        lines.append(f"{result.name}: {result.facts.line()}{lists}")
    return "\n".join(lines)


def _terminal_metrics(result: Result) -> list[str]:
    return [*_TERMINAL_METRICS, *(name for name in result.all_items if name.startswith("sampled_ndcg"))]


def html_report(
    results: Sequence[Result],
    examples: Sequence[Example],
    events: Events,
) -> str:
    """Return one HTML page without links to anything outside it: metrics, curves, examples, protocol.

    `events` are the logged events of each trained run, by name. Raises MissingExtraError without matplotlib.
    """
    protocol = results[0].protocol
    body = [
        f"<h1>{_text(results[-1].name)}</h1>" if len(results) == 1 else "<h1>Recommenders compared</h1>",
        "<p>Each number is a mean over users with its 95 % interval; the highest mean of a column is bold.</p>",
        f"<h2>All items</h2><p>{protocol.num_targets:,} users, one target each.</p>",
        _metrics_table([(r.name, r.all_items) for r in results]),
        f"<h2>Cold items</h2><p>{protocol.num_cold_targets} users whose target has at most "
        f"{protocol.evaluation.cold_at_most} training interactions. With so few targets the intervals are wide.</p>",
        _metrics_table([(r.name, r.cold_items) for r in results]),
        "<h2>Training</h2>",
        _training(events),
        "<h2>Examples</h2>",
        *(_example(example) for example in examples),
        "<h2>Protocol</h2><ul>" + "".join(f"<li>{_text(line)}</li>" for line in protocol.lines()) + "</ul>",
        "<dl>" + "".join(f"<dt>{_text(k)}@k</dt><dd>{_text(v)}</dd>" for k, v in protocol.metrics.items()) + "</dl>",
    ]
    return _PAGE.replace("{body}", "\n".join(body))


def _cell(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} [{estimate.low:.3f} {estimate.high:.3f}]"


def _metrics_table(rows: Sequence[tuple[str, Mapping[str, Estimate]]]) -> str:
    names = list(rows[0][1])
    if not names:
        return "<p>No targets.</p>"
    best = {name: max(values[name].mean for _, values in rows) for name in names}
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    lines = []
    for label, values in rows:
        cells = []
        for name in names:
            value = values[name]
            mean = f"<b>{value.mean:.3f}</b>" if value.mean == best[name] > 0 else f"{value.mean:.3f}"
            cells.append(f"<td>{mean}<small>{value.low:.3f} – {value.high:.3f}</small></td>")
        lines.append(f"<tr><th>{_text(label)}</th>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{"".join(lines)}</table></div>'


def _training(events: Events) -> str:
    """Return each run's length, then its curves beside those of the others."""
    lengths = "".join(
        f"<li>{_text(name)}: {logged[-1]['step']:,} steps in {logged[-1]['elapsed_s']:,.0f} s</li>"
        for name, logged in events.items()
        if logged
    )
    pictures = "".join(
        f'<img alt="{_text(curve.title)} by step" src="data:image/png;base64,{base64.b64encode(curve.png).decode()}">'
        for curve in learning_curves(events)
    )
    return (
        f"<ul>{lengths}</ul><p>Dotted lines: the next stage begins. Losses of runs or stages with other negatives "
        f'cannot be compared; the validation metrics can.</p><div class="curves">{pictures}</div>'
    )


def _example(example: Example) -> str:
    history = "".join(f"<li>{_text(title)}</li>" for title in example.history)
    offered = "".join(f"<li>{_text(what)} <small>{score:.3f}</small></li>" for what, score in example.recommended)
    columns = f"<div><h4>Latest history</h4><ol>{history}</ol></div>" if history else ""
    return (
        f"<h3>{_text(example.heading)}</h3>"
        f'<div class="columns">{columns}<div><h4>Recommended</h4><ol>{offered}</ol></div></div>'
    )


def _text(value: str) -> str:
    return html.escape(value)


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>hllm report</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
td small { display: block; color: #666; white-space: nowrap; }
.wide { overflow-x: auto; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 0 2rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
img { max-width: 100%; }
h4 { margin: .5rem 0 0; } ol { margin: .2rem 0 1rem; padding-left: 1.6rem; } dt { font-weight: 600; }
</style></head><body>
{body}
</body></html>
"""
