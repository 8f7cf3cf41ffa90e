"""`hllm report` writes one HTML page."""

from pathlib import Path

import typer

from hllm.cli.options import AGAINST, BASELINES, RUN, comma_list
from hllm.cli.show import echo


def report(
    run: Path = RUN,
    against: list[Path] = AGAINST,
    baselines: str = BASELINES,
    out: Path | None = typer.Option(None, "--out", help="The HTML file; default: report.html in the run's directory."),
) -> None:
    """Write one self-contained HTML page: metrics with intervals, learning curves, example users, cold items.

    What `hllm ablate` has stored in the runs' directories is shown too.
    """
    from hllm.jobs.evaluate import evaluate_all, open_runs
    from hllm.jobs.report import write_report
    from hllm.runs.run import Run

    runs = open_runs([run, *against])
    evaluated = evaluate_all(runs, comma_list(baselines))
    echo(str(write_report(runs, evaluated, out or Run(run).report_path)))
