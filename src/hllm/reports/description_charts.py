"""Charts show a data set's histograms, each at most as wide as a phone."""

# Proved by tests/cli/test_describe.py.

import io
from dataclasses import dataclass

from hllm.extras import require
from hllm.reports.page import image

_MAX_LABELS = 12


@dataclass(frozen=True)
class Bars:
    """A histogram with its bins named."""

    title: str
    labels: tuple[str, ...]
    counts: tuple[int, ...]


def draw(bars: Bars) -> str:
    """Return the histogram as an <img> whose description has the numbers; MissingExtraError without matplotlib."""
    require("matplotlib", extra="report", purpose="The report")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(bars.counts))
    axes.bar(places, bars.counts, color="#9ebcda", edgecolor="#4d6d8f", width=0.9)
    step = -(-len(places) // _MAX_LABELS)
    axes.set_xticks(list(places)[::step], bars.labels[::step], rotation=45, ha="right", fontsize="small")
    axes.set_title(bars.title, fontsize="medium")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    numbers = "; ".join(f"{label}: {count:,}" for label, count in zip(bars.labels, bars.counts, strict=True))
    return image(f"{bars.title}. {numbers}.", buffer.getvalue())
