import dataclasses

from hllm.api import Recommender
from hllm.jobs.report import examples
from hllm.reports.run import html_report


def test_a_title_cannot_inject_markup(trained):
    nasty = trained.dataset.items.with_columns(title=trained.dataset.items["title"] + "<script>alert(1)</script>")
    dataset = dataclasses.replace(trained.dataset, items=nasty)
    trained = Recommender(dataclasses.replace(trained.bundle, dataset=dataset))
    page = html_report([trained.evaluate()], examples(trained), {})
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in page
