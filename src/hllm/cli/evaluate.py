"""`hllm evaluate` measures runs next to baselines."""

from pathlib import Path

import typer

from hllm.cli.options import AGAINST, BASELINES, JSON, PART, RUN, comma_list, dimension_list, part_of
from hllm.cli.show import echo
from hllm.errors import ConfigError


def evaluate(
    run: Path = RUN,
    against: list[Path] = AGAINST,
    baselines: str = BASELINES,
    part: str = PART,
    dims: str = typer.Option(
        "", "--dims", "--dim", help="Score by the first numbers of the vectors too: 32,64; named RUN@32, RUN@64."
    ),
    with_report: bool = typer.Option(
        False, "--report", help="Also write what hllm report writes, without evaluating twice."
    ),
    as_json: bool = JSON,
) -> None:
    """Rank the full catalogue for every test user; print metrics with 95 % intervals and the protocol.

    With --dims the table is the curve of what shorter vectors lose; hllm compare RUN RUN:RUN@64 tests the difference.

    The numbers are also kept in evaluation.json (evaluation-validation.json) of the run's directory, and where each
    target stands in ranks-test.parquet (ranks-validation.parquet), for hllm compare.
    """
    from hllm.jobs.evaluate import evaluate_all, open_runs
    from hllm.jobs.report import write_report
    from hllm.reports.run import results_table
    from hllm.runs.results import write_evaluation
    from hllm.runs.run import Run

    sizes, chosen, own = dimension_list(dims), part_of(part), Run(run)
    if with_report and chosen != "test":
        raise ConfigError("--report is of the test part: leave --part out")
    runs = open_runs([run, *against])
    shorter = {f"{own.name}@{dim}": runs[own.name].at(dim) for dim in sizes}
    evaluated = evaluate_all(shorter | runs, comma_list(baselines), part=chosen)
    content = write_evaluation(own, chosen, evaluated)
    echo(content if as_json else results_table([each.result for each in evaluated]))
    if with_report:
        echo(f"the report: {write_report(runs, evaluated, own.report_path)}", err=as_json)
