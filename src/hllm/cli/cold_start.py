"""`hllm cold-start` evaluates runs on new items and on users with few interactions."""

from pathlib import Path

import typer

from hllm.cli.options import AGAINST, JSON, PART, RUN, comma_list, number_list, part_of
from hllm.cli.show import echo


def cold_start(
    run: Path = RUN,
    against: list[Path] = AGAINST,
    baselines: str = typer.Option(
        "random,popularity",
        "--baselines",
        help='Comma-separated recommenders without training, such as "embedding" and "bm25", which read text.',
    ),
    lengths: str = typer.Option("0,1,2,5", "--lengths", help="How many items of each history are read."),
    part: str = PART,
    as_json: bool = JSON,
) -> None:
    """Show how runs and baselines do on items that nobody has in training, and on users with few interactions.

    Cold targets (at most evaluation.cold_at_most training interactions) are ranked among the full catalogue, and among
    cold items alone. For items held out altogether train with split.kind = "items" and evaluation.cold_at_most = 0, as
    recipes/small/ml-1m/cold-hllm.toml does. Then all targets are ranked with only the latest 0, 1, 2 and 5 items of
    their histories; with 0 everyone gets the popular items. The numbers are also kept in cold-start.json
    (cold-start-validation.json) of the run's directory.
    """
    from hllm.jobs.cold_start import cold_start as evaluate_cold_start
    from hllm.jobs.evaluate import open_runs
    from hllm.reports.cold_start import cold_start_table
    from hllm.runs.results import write_result
    from hllm.runs.run import Run

    numbers = number_list("--lengths", lengths, expected="numbers of items, such as 0,1,2,5")
    chosen = part_of(part)
    report = evaluate_cold_start(open_runs([run, *against]), comma_list(baselines), part=chosen, lengths=numbers)
    content = write_result(Run(run), "cold-start", chosen, report)
    echo(content if as_json else cold_start_table(report))
