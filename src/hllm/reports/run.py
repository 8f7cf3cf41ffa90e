"""Results become tables for the terminal, and one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hllm.evaluation.ablations import AblationResult, Ablations
from hllm.evaluation.evaluate import Result
from hllm.evaluation.statistics import Estimate
from hllm.metrics import TargetRanks
from hllm.reports.charts import Picture, drop_bars, metric_bars, principal_metrics, rank_distribution
from hllm.reports.curves import Events, learning_curves
from hllm.reports.page import Section, image, page, table, text
from hllm.reports.text import text_table

_TERMINAL_METRICS = ("recall@10", "ndcg@10", "mrr@10", "recall@50")


@dataclass(frozen=True)
class Example:
    """An example for the page: a user's history and recommendations, or the users for a new item."""

    heading: str
    history: Sequence[str]
    recommended: Sequence[tuple[str, float]]
    """Title or user, and score."""


def results_table(results: Sequence[Result]) -> str:
    """Return the protocol, a table of the main metrics with their intervals for each group, and each run's facts."""
    first = results[0]
    lines = [*first.protocol.lines(), ""]
    tables = [("all items", first.protocol.num_targets, [result.all_items for result in results])]
    tables += [
        (group, count, [result.slices[group] for result in results]) for group, count in first.slice_targets.items()
    ]
    for heading, count, values in tables:
        names = [name for name in _terminal_metrics(first) if all(name in each for each in values)]
        lines.append(f"{heading} ({count:,} targets)")
        if not names:
            lines += ["  no metrics: no targets, or other cut-offs", ""]
            continue
        rows = [
            [result.name, *(_cell(each[name]) for name in names)] for result, each in zip(results, values, strict=True)
        ]
        lines += [*text_table(["", *names], rows, align="lr", indent=2), ""]
    for result in results:
        lists = "".join(f"; {name} {value:.4g}" for name, value in result.beyond_accuracy.items())
        lines.append(f"{result.name}: {result.facts.line()}{lists}")
    return "\n".join(lines)


def ablation_table(ablations: Ablations) -> str:
    """Return the protocol and, for each principal metric, what is left of it and what is lost with each switch."""
    lines = [*ablations.protocol.lines(), ""]
    for metric in principal_metrics(list(ablations.intact)):
        rows = [
            (
                result.switch,
                f"{result.values[metric].mean:.3f}",
                _cell(result.drop[metric]),
                _share_lost(ablations, result, metric),
                _verdict(result.drop[metric]),
            )
            for result in _applied(ablations)
        ]
        lines += [
            f"{metric} of {ablations.name}: {_cell(ablations.intact[metric])}",
            *text_table(("", metric, "drop", "share lost", ""), rows, align="lrrrl", indent=2),
            "",
        ]
    lines += [f"{result.switch}: {result.what}" for result in _applied(ablations)]
    lines += [f"{r.switch}: not applied, {r.not_applied}" for r in ablations.results if r.not_applied]
    return "\n".join(lines)


def _terminal_metrics(result: Result) -> list[str]:
    return [*_TERMINAL_METRICS, *(name for name in result.all_items if name.startswith("sampled_ndcg"))]


def html_report(
    results: Sequence[Result],
    examples: Sequence[Example],
    events: Events,
    *,
    ablations: Sequence[Ablations] = (),
    slices: Sequence[tuple[str, Mapping[str, Mapping[str, Estimate]]]] = (),
    ranks: Mapping[str, TargetRanks] | None = None,
    sections: Sequence[Section] = (),
) -> str:
    """Return one HTML page without links to anything outside it.

    `events` are the logged events of each trained run, by name; `slices` the metrics of each recommender in each
    slice (without them, cold items have a section); `ranks` where each recommender's targets stand; `sections` more
    of the page, such as the data's: a heading and its HTML. A part without content has no section. Raises
    MissingExtraError without matplotlib.
    """
    protocol = results[0].protocol
    ranked = rank_distribution(ranks, protocol.num_items) if ranks else None
    parts: list[Section] = [
        ("All items", _all_items(results)),
        ("Slices", slices_section(slices)) if slices else ("Cold items", _cold_items(results)),
        *([("Where the targets stand", f'<div class="pictures">{_image(ranked)}</div>')] if ranked else []),
        *([("Ablations", "".join(map(ablation_section, ablations)))] if ablations else []),
        *sections,
        *([("Training", _training(events))] if any(events.values()) else []),
        *([("Examples", "".join(map(_example, examples)))] if examples else []),
        ("Protocol", _protocol(results[0])),
    ]
    title = results[-1].name if len(results) == 1 else "Recommenders compared"
    lead = "<p>Each number is a mean over users with its 95 % interval; the highest mean of a column is bold.</p>"
    return page(title, lead, parts)


def slices_section(rows: Sequence[tuple[str, Mapping[str, Mapping[str, Estimate]]]]) -> str:
    """Return a table for each slice, such as "cold items", with the principal metrics of each recommender in it.

    `rows` hold a recommender's name and its metrics by slice. A slice without targets has no metrics, and no table.
    """
    names = list(dict.fromkeys(name for _, slices in rows for name, metrics in slices.items() if metrics))
    tables = []
    for name in names:
        inside = [(label, slices[name]) for label, slices in rows if slices.get(name)]
        tables.append(f"<h3>{text(name)}</h3>{_metrics_table(inside, principal_metrics(list(inside[0][1])))}")
    return "".join(tables)


def ablation_section(ablations: Ablations) -> str:
    """Return what one recommender loses with each switch: a picture, and a table of the principal metrics."""
    applied = _applied(ablations)
    metrics = principal_metrics(list(ablations.intact))
    rows = [("as it is", [cell for m in metrics for cell in (_estimate(ablations.intact[m]), "", "")])]
    for result in applied:
        cells: list[str] = []
        for metric in metrics:
            drop = result.drop[metric]
            lost = f"{_share_lost(ablations, result, metric)}<small>{text(_verdict(drop))}</small>"
            cells += [_estimate(result.values[metric]), _estimate(drop), lost]
        rows.append((result.switch, cells))
    picture = _image(drop_bars(metrics[0], {r.switch: r.drop[metrics[0]] for r in applied})) if applied else ""
    meanings = "".join(
        f"<li>{text(r.switch)}: {text(f'not applied, {r.not_applied}' if r.not_applied else r.what)}</li>"
        for r in ablations.results
    )
    return (
        f"<h3>{text(ablations.name)}</h3><p>The finished model is evaluated again, without new training, with part of "
        "its input taken away. A drop is paired: each user's metric as it was less what it is then. An interval that "
        f'holds 0 shows no effect.</p><div class="pictures">{picture}</div>'
        f"{table([name for m in metrics for name in (m, 'drop', 'share lost')], rows)}<ul>{meanings}</ul>"
    )


def _all_items(results: Sequence[Result]) -> str:
    pictures = "".join(map(_image, metric_bars([(r.name, r.all_items) for r in results])))
    return (
        f"<p>{results[0].protocol.unit.removesuffix(',')}, the full catalogue ranked for each.</p>"
        f'<div class="pictures">{pictures}</div>{_metrics_table([(r.name, r.all_items) for r in results])}'
    )


def _cold_items(results: Sequence[Result]) -> str:
    protocol = results[0].protocol
    return (
        f"<p>{protocol.num_cold_targets} targets with at most {protocol.evaluation.cold_at_most} training "
        "interactions. Of few targets the intervals are wide.</p>"
        f"{_metrics_table([(r.name, r.cold_items) for r in results])}"
    )


def _metrics_table(rows: Sequence[tuple[str, Mapping[str, Estimate]]], names: Sequence[str] | None = None) -> str:
    names = list(rows[0][1]) if names is None else names
    if not names:
        return "<p>No targets.</p>"
    best = {name: max(values[name].mean for _, values in rows) for name in names}
    cells = [
        (label, [_estimate(values[n], bold=len(rows) > 1 and values[n].mean == best[n] > 0) for n in names])
        for label, values in rows
    ]
    return table(names, cells)


def _training(events: Events) -> str:
    """Return each run's length, then its curves beside those of the others."""
    lengths = "".join(
        f"<li>{text(name)}: {logged[-1]['step']:,} steps in {logged[-1]['elapsed_s']:,.0f} s</li>"
        for name, logged in events.items()
        if logged
    )
    pictures = "".join(image(f"{curve.title} by step", curve.png) for curve in learning_curves(events))
    return (
        f"<ul>{lengths}</ul><p>Dotted lines: the next stage begins. Losses of runs or stages with other negatives "
        f'cannot be compared; the validation metrics can.</p><div class="pictures">{pictures}</div>'
    )


def _example(example: Example) -> str:
    history = "".join(f"<li>{text(title)}</li>" for title in example.history)
    offered = "".join(f"<li>{text(what)} <small>{score:.3f}</small></li>" for what, score in example.recommended)
    columns = f"<div><h4>Latest history</h4><ol>{history}</ol></div>" if history else ""
    return (
        f"<h3>{text(example.heading)}</h3>"
        f'<div class="columns">{columns}<div><h4>Recommended</h4><ol>{offered}</ol></div></div>'
    )


def _protocol(result: Result) -> str:
    lines = "".join(f"<li>{text(line)}</li>" for line in result.protocol.lines())
    metrics = "".join(f"<dt>{text(k)}@k</dt><dd>{text(v)}</dd>" for k, v in result.protocol.metrics.items())
    return f"<ul>{lines}</ul><dl>{metrics}</dl>"


def _applied(ablations: Ablations) -> list[AblationResult]:
    return [result for result in ablations.results if not result.not_applied]


def _share_lost(ablations: Ablations, result: AblationResult, metric: str) -> str:
    intact = ablations.intact[metric].mean
    return f"{result.drop[metric].mean / intact:.0%}" if intact > 0 else "–"


def _verdict(drop: Estimate) -> str:
    if drop.low > 0:
        return "worse without"
    return "better without" if drop.high < 0 else "no effect shown"


def _cell(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} [{estimate.low:.3f} {estimate.high:.3f}]"


def _estimate(estimate: Estimate, *, bold: bool = False) -> str:
    mean = f"<b>{estimate.mean:.3f}</b>" if bold else f"{estimate.mean:.3f}"
    return f"{mean}<small>{estimate.low:.3f} – {estimate.high:.3f}</small>"


def _image(picture: Picture) -> str:
    return image(picture.alt, picture.png)
