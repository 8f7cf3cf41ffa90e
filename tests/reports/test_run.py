from html.parser import HTMLParser

import numpy as np
import pytest

from hllm.errors import MissingExtraError
from hllm.evaluation.ablations import AblationResult, Ablations
from hllm.evaluation.evaluate import Result
from hllm.evaluation.statistics import Estimate
from hllm.metrics import UNREACHABLE, TargetRanks
from hllm.reports.charts import found_among_first, metric_bars, principal_metrics, rank_distribution
from hllm.reports.run import Example, ablation_table, html_report, slices_section

VOID = {"img", "meta", "br"}
NASTY = '<script>alert("1")</script> & $x_1$'


class Page(HTMLParser):
    """Checks that every tag is closed in order; keeps the text of headings, the links and the pictures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.links: list[str] = []
        self.pictures: list[dict] = []
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "poster", "srcset")]
        self.ids |= {found["id"]} if "id" in found else set()
        if tag == "img":
            self.pictures.append(found)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def estimate(mean: float) -> Estimate:
    return Estimate(mean=mean, low=mean - 0.125, high=mean + 0.125)


@pytest.fixture
def result(trained) -> Result:
    return trained.evaluate(name=NASTY)


@pytest.fixture
def ablations(result) -> Ablations:
    """ndcg@10 and recall@10 are .5 and fall by .25 without order; titles alone cost nothing; the third was not."""
    half = {"ndcg@10": estimate(0.5), "recall@10": estimate(0.5)}
    quarter = {"ndcg@10": estimate(0.25), "recall@10": estimate(0.25)}
    nothing = {"ndcg@10": estimate(0.0), "recall@10": estimate(-0.25)}
    return Ablations(
        name=NASTY,
        protocol=result.protocol,
        intact=half,
        results=(
            AblationResult(switch="shuffled-order", what="no order", not_applied="", values=quarter, drop=quarter),
            AblationResult(switch="title-only", what="titles", not_applied="", values=half, drop=nothing),
            AblationResult(switch="no-text", what="nothing", not_applied="it reads no text", values={}, drop={}),
        ),
    )


def test_a_page_with_everything_is_whole_and_asks_nothing_of_the_network(result, ablations, trained):
    ranks = {NASTY: TargetRanks(np.array([0, 5, UNREACHABLE]), np.array([1, 0, 0]))}
    text = html_report(
        [result, result.model_copy(update={"name": "other"})],
        [Example(NASTY, [NASTY], [(NASTY, 0.5)])],
        {NASTY: trained.run.events()},
        ablations=[ablations],
        slices=[(NASTY, {NASTY: {"ndcg@10": estimate(0.5)}})],
        ranks=ranks,
        sections=[(NASTY, "<p>about the data</p>")],
    )
    page = Page(text)
    assert page.headings == [
        "All items", "Slices", "Where the targets stand", "Ablations", NASTY, "Training", "Examples", "Protocol",
    ]  # fmt: skip
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} == page.ids
    assert not page.tags & {"script", "link", "iframe", "object", "embed"}
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert len(page.pictures) == 2 + 1 + 1 + 6
    assert all(picture["alt"].strip() for picture in page.pictures)
    assert len(text) < 2_000_000
    assert 'name="viewport"' in text
    assert "position: sticky" in text
    assert "@media print" in text


def test_what_is_not_given_has_no_section(result):
    assert Page(html_report([result], [], {})).headings == ["All items", "Cold items", "Protocol"]


def test_the_headline_pictures_say_their_numbers(result):
    rows = [("ours", {"recall@10": estimate(0.25), "ndcg@10": estimate(0.5)})]
    first, second = metric_bars(rows)
    assert first.alt == "ndcg@10, with 95 % intervals: ours 0.500 (0.375 to 0.625)."
    assert second.alt == "recall@10, with 95 % intervals: ours 0.250 (0.125 to 0.375)."
    assert first.png.startswith(b"\x89PNG")


def test_principal_metrics_are_there_under_any_cutoffs():
    assert principal_metrics(["recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr@5"]) == ["ndcg@10", "recall@10"]
    assert principal_metrics(["recall@3", "ndcg@3", "mrr@3"]) == ["ndcg@3", "recall@3"]
    assert principal_metrics(["mrr@3"]) == ["mrr@3"]
    assert principal_metrics([]) == []


def test_the_share_found_among_the_first_k_by_hand():
    """Targets at rank 1 or 2 (level with one other), at rank 3, and one that cannot be recommended."""
    ranks = TargetRanks(np.array([0, 2, UNREACHABLE]), np.array([1, 0, 0]))
    assert found_among_first(ranks, np.array([1, 2, 3, 100])).tolist() == pytest.approx([0.5 / 3, 1 / 3, 2 / 3, 2 / 3])
    picture = rank_distribution({"ours": ranks}, 100)
    assert picture.alt == "Share of targets among the first k: ours 0.667 at 10, 0.667 at 100."


def test_a_slice_without_targets_has_no_table():
    rows = [
        ("a", {"cold items": {"ndcg@10": estimate(0.25), "mrr@10": estimate(0.75)}, "empty": {}}),
        ("b", {"cold items": {"ndcg@10": estimate(0.5), "mrr@10": estimate(0.75)}, "empty": {}}),
    ]
    section = slices_section(rows)
    assert section.count("<table>") == 1
    assert "<h3>cold items</h3>" in section
    assert "<b>0.500</b><small>0.375 – 0.625</small>" in section
    assert "0.750" not in section, "only the principal metrics"


def test_the_terminal_shows_drops_with_what_they_mean(ablations):
    lines = ablation_table(ablations).splitlines()
    shown = [line.split() for line in lines if line.startswith("  shuffled-order")]
    assert shown[0] == ["shuffled-order", "0.250", "0.250", "[0.125", "0.375]", "50%", "worse", "without"]
    titles = [line for line in lines if line.startswith("  title-only")]
    assert titles[0].endswith("no effect shown")
    assert titles[1].endswith("better without")
    assert "no-text: not applied, it reads no text" in lines


def test_a_metric_of_zero_has_no_share_to_lose(ablations):
    zero = {"ndcg@10": estimate(0.0), "recall@10": estimate(0.0)}
    assert " – " in ablation_table(ablations.model_copy(update={"intact": zero}))


def test_without_matplotlib_the_error_says_how_to_install_it(monkeypatch, result):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'The report needs .*: pip install "hllm\[report\]"'):
        metric_bars([("x", result.all_items)])
    with pytest.raises(MissingExtraError, match="The report needs"):
        rank_distribution({"x": TargetRanks(np.array([0]), np.array([0]))}, 3)
