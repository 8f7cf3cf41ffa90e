import sys

import pytest
from matplotlib.figure import Figure

from hllm.errors import MissingExtraError
from hllm.reports.curves import learning_curves
from hllm.runs.run import Run

TITLES = [
    "Training loss, nats",
    "Validation ndcg@10",
    "Validation recall@10",
    "Mean cosine of item embeddings",
    "Share of negatives masked",
    "Learning rate",
]


@pytest.fixture
def drawn(monkeypatch):
    """The figures as matplotlib has them when they are written."""
    figures = []
    save = Figure.savefig

    def keep_and_save(self, *arguments, **options):
        figures.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep_and_save)
    return figures


def step(number, stage=0, **numbers):
    return {"event": "step", "stage": stage, "epoch": 0, "step": number, **numbers}


def lines(figure):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].lines}


def test_a_trained_run_has_every_curve_and_its_points_are_the_logged_ones(drawn, trained_folder):
    events = Run(trained_folder).events()
    curves = learning_curves({"tiny": events})
    assert [curve.title for curve in curves] == TITLES
    assert all(curve.png.startswith(b"\x89PNG") for curve in curves)
    steps = [e for e in events if e["event"] == "step"]
    assert lines(drawn[0])["tiny"] == ([e["step"] for e in steps], [e["loss"] for e in steps])
    checks = [e for e in events if e["event"] == "validation"]
    assert lines(drawn[1])["tiny"] == ([e["step"] for e in checks], [e["ndcg@10"] for e in checks])


def test_runs_share_a_picture_with_a_legend_and_stages_are_marked(drawn):
    two_stages = [step(1, 0, loss=3.0), step(2, 0, loss=2.0), step(3, 1, loss=5.0)]
    learning_curves({"one": two_stages, "costs $5_a$": [step(1, loss=4.0)]})
    (figure,) = drawn
    assert [text.get_text() for text in figure.legends[0].texts] == ["one", r"costs \$5_a\$"]
    boundary = next(line for line in figure.axes[0].lines if line.get_linestyle() == ":")
    assert list(boundary.get_xdata()) == [2.5, 2.5]
    assert boundary.get_color() == figure.axes[0].lines[0].get_color(), "a stage's mark has its run's colour"


def test_many_steps_are_averaged_over_neighbours(drawn):
    learning_curves({"long": [step(n, loss=float(n % 2)) for n in range(1, 401)]})
    steps, values = lines(drawn[0])["long"]
    assert steps == [n + 0.5 for n in range(1, 401, 2)]
    assert values == [0.5] * 200


def test_a_number_that_no_run_logged_has_no_picture():
    assert [curve.title for curve in learning_curves({"a": [step(1, loss=1.0)], "b": []})] == ["Training loss, nats"]
    assert learning_curves({}) == []


def test_without_matplotlib_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'The report needs .*: pip install "hllm\[report\]"'):
        learning_curves({})
