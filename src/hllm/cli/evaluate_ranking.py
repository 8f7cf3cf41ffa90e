"""`hllm evaluate-ranking` measures runs that rank given candidates."""

# Proved by tests/cli/test_rank.py.

from pathlib import Path

from hllm.cli.options import AGAINST, JSON, PART, RUN, part_of
from hllm.cli.show import echo


def evaluate_ranking(
    run: Path = RUN,
    against: list[Path] = AGAINST,
    part: str = PART,
    as_json: bool = JSON,
) -> None:
    """Score labelled candidates of one part of the split: AUC, GAUC, log loss, calibration with 95 % intervals.

    The numbers are also kept in ranking.json (ranking-validation.json) of the run's directory.
    """
    from hllm.jobs.evaluate import open_runs
    from hllm.jobs.evaluate_ranking import evaluate_rankers
    from hllm.reports.ranking import ranking_table
    from hllm.runs.results import write_result
    from hllm.runs.run import Run

    chosen = part_of(part)
    results = evaluate_rankers(open_runs([run, *against]), part=chosen)
    content = write_result(Run(run), "ranking", chosen, results)
    echo(content if as_json else ranking_table(results))
