"""Learning curves are small pictures, one for each number that training logs, each with all runs."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from hllm.extras import require

Events = Mapping[str, Sequence[Mapping[str, Any]]]
"""The logged events of each run, by the run's name, oldest first."""

MAX_POINTS = 200  # of a line: more are averaged, or noise hides the curve and the page grows


@dataclass(frozen=True)
class Curve:
    """A picture of one number over the steps."""

    title: str
    png: bytes


@dataclass(frozen=True)
class _Panel:
    title: str
    event: str
    key: str
    from_zero: bool = False


_PANELS = (
    _Panel("Training loss, nats", "step", "loss"),
    _Panel("Validation ndcg@10", "validation", "ndcg@10", from_zero=True),
    _Panel("Validation recall@10", "validation", "recall@10", from_zero=True),
    _Panel("Mean cosine of item embeddings", "step", "mean_cosine"),
    _Panel("Share of negatives masked", "step", "masked_negatives", from_zero=True),
    _Panel("Learning rate", "step", "learning_rate"),
)


def learning_curves(events: Events) -> list[Curve]:
    """Draw each number over the optimizer's steps, with a dotted line where a run's next stage begins.

    A number that no run logged has no picture. Lines of more than 200 points show means of neighbouring ones.
    Raises MissingExtraError without matplotlib.
    """
    require("matplotlib", extra="report", purpose="The report")
    return [_draw(panel, events) for panel in _PANELS if any(_points(panel, logged)[0] for logged in events.values())]


def _draw(panel: _Panel, events: Events) -> Curve:
    from matplotlib.figure import Figure

    # One picture a number, at most as wide as a phone: the text stays legible without zooming.
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, logged) in enumerate(events.items()):
        steps, values = _thinned(*_points(panel, logged))
        marker = "o" if panel.event == "validation" or len(steps) == 1 else ""
        axes.plot(
            steps,
            values,
            color=f"C{number}",
            marker=marker,
            markersize=4,
            linewidth=1.2,
            label=name.replace("$", r"\$"),
        )
        for begin in _stage_starts(logged):
            axes.axvline(begin, color=f"C{number}", linestyle=":", linewidth=1)
    axes.set(title=panel.title, xlabel="step")
    if panel.from_zero:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    if len(events) > 1:
        figure.legend(
            loc="outside lower center", ncols=2 if max(map(len, events)) < 25 else 1, fontsize="small", frameon=False
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return Curve(panel.title, buffer.getvalue())


def _points(panel: _Panel, logged: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    chosen = [event for event in logged if event["event"] == panel.event and panel.key in event]
    return [float(event["step"]) for event in chosen], [float(event[panel.key]) for event in chosen]


def _thinned(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """Average neighbours until at most 200 points are left."""
    if len(steps) <= MAX_POINTS:
        return steps, values
    groups = [np.array_split(np.asarray(line, dtype=np.float64), MAX_POINTS) for line in (steps, values)]
    means = [[float(group.mean()) for group in line] for line in groups]
    return means[0], means[1]


def _stage_starts(logged: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the places between the last step of a stage and the first of the next."""
    steps = [(event["stage"], event["step"]) for event in logged if event["event"] == "step"]
    return [after - 0.5 for (stage, _), (next_stage, after) in pairwise(steps) if stage != next_stage]
