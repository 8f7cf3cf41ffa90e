"""Charts show results: bars with intervals, what ablations cost, and where the targets stand."""

# Proved by tests/reports/test_run.py.

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hllm.evaluation.statistics import Estimate
from hllm.extras import require
from hllm.metrics import TargetRanks

_PRINCIPAL = ("ndcg@10", "recall@10")
_WIDTH = 4.8  # inches: with dpi 150, the width of a phone
_POINTS = 120  # of a curve over ranks
_LONGEST_NAME = 26  # characters on an axis; tables hold the whole name


@dataclass(frozen=True)
class Picture:
    """A picture, with a text that says the same to those who cannot see it."""

    title: str
    alt: str
    png: bytes


def principal_metrics(metrics: Sequence[str]) -> list[str]:
    """Return the one or two metrics to look at first: ndcg@10 and recall@10, else the first of each kind there is."""
    chosen: list[str] = []
    for principal in _PRINCIPAL:
        kind = principal.partition("@")[0]
        same_kind = [name for name in metrics if name.partition("@")[0] == kind]
        chosen += [principal] if principal in same_kind else same_kind[:1]
    return chosen or list(metrics[:1])


def metric_bars(rows: Sequence[tuple[str, Mapping[str, Estimate]]]) -> list[Picture]:
    """Draw one picture for each principal metric: a bar for each recommender, with its interval.

    Raises MissingExtraError without matplotlib.
    """
    pictures = []
    for metric in principal_metrics(list(rows[0][1])):
        values = {name: estimates[metric] for name, estimates in rows}
        pictures.append(_bars(f"{metric}, with 95 % intervals", values))
    return pictures


def drop_bars(metric: str, drops: Mapping[str, Estimate]) -> Picture:
    """Draw what each ablation switch costs in `metric`; MissingExtraError without matplotlib."""
    return _bars(f"Drop in {metric}, with 95 % intervals", drops)


def rank_distribution(ranks: Mapping[str, TargetRanks], num_items: int) -> Picture:
    """Draw, for each recommender, the share of targets among its first k, for every k; dotted: a random order.

    A target with the same score as others counts with the chance that it stands among the first k. A target that cannot
    be recommended is never found, so a curve may end below 1. Raises MissingExtraError without matplotlib.
    """
    require("matplotlib", extra="report", purpose="The report")
    cutoffs = np.unique(np.geomspace(1, num_items, _POINTS).round().astype(np.int64))
    shares = {name: found_among_first(each, cutoffs) for name, each in ranks.items()}
    figure, axes = _figure(3.4)
    for number, (name, share) in enumerate(shares.items()):
        axes.plot(cutoffs, share, color=f"C{number}", linewidth=1.6, label=_label(name))
    axes.plot(cutoffs, cutoffs / num_items, color="#555555", linestyle=":", linewidth=1.2, label="random order")
    title = "Share of targets among the first k"
    axes.set(title=title, xlabel="k", xscale="log", xlim=(1, num_items), ylim=(0, 1))
    axes.grid(alpha=0.25)
    axes.legend(fontsize="small", frameon=False, loc="upper left")
    marks = [k for k in (10, 100, 1000) if k <= num_items]
    said = [
        f"{name} {', '.join(f'{found_among_first(each, np.array([k]))[0]:.3f} at {k}' for k in marks)}"
        for name, each in ranks.items()
    ]
    return Picture(title, f"{title}: {'; '.join(said)}.", _png(figure))


def found_among_first(ranks: TargetRanks, cutoffs: np.ndarray) -> np.ndarray:
    """Return the expected share of targets with a rank of at most each cut-off, ties shared out."""
    first, width = ranks.better.astype(np.int64), ranks.tied.astype(np.int64) + 1
    shares = [((np.minimum(first + width, k) - np.minimum(first, k)) / width).mean() for k in cutoffs]
    return np.array(shares)


def _bars(title: str, values: Mapping[str, Estimate]) -> Picture:
    """Draw horizontal bars, the first on top, each with its interval and its number."""
    require("matplotlib", extra="report", purpose="The report")
    figure, axes = _figure(0.9 + 0.42 * len(values))
    places = np.arange(len(values))
    means, lows, highs = (np.array([getattr(e, part) for e in values.values()]) for part in ("mean", "low", "high"))
    # A skewed resample may leave the mean outside its own percentiles: no arm is shorter than nothing.
    arms = np.maximum(0.0, np.stack([means - lows, highs - means]))
    axes.barh(places, means, xerr=arms, color="#9ebcda", edgecolor="#4d6d8f", ecolor="#1c1c1c", capsize=3, height=0.62)
    axes.set_yticks(places, [_label(name) for name in values])
    axes.invert_yaxis()
    axes.axvline(0, color="#1c1c1c", linewidth=0.8)
    left, right = min(0.0, float(lows.min())), max(0.0, float(highs.max()))
    axes.set_xlim(left * 1.05, (right + 0.2 * (right - left)) or 1.0)  # room for the numbers
    for place, mean, high in zip(places, means, highs, strict=True):
        axes.annotate(f"{mean:.3f}", (max(high, 0.0), place), (4, 0), textcoords="offset points", va="center", size=9)
    axes.set_title(title, fontsize="medium")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    said = "; ".join(f"{name} {e.mean:.3f} ({e.low:.3f} to {e.high:.3f})" for name, e in values.items())
    return Picture(title, f"{title}: {said}.", _png(figure))


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _label(name: str) -> str:
    """Return a name for matplotlib, which reads $ as mathematics."""
    short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    return short.replace("$", r"\$")
