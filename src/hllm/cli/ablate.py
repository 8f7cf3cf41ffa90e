"""`hllm ablate` shows what a run loses without the order of histories, without texts, without training."""

from pathlib import Path

import typer

from hllm.cli.options import JSON, PART, RUN, comma_list, part_of
from hllm.cli.show import echo


def ablate(
    run: Path = RUN,
    only: str | None = typer.Option(
        None, "--only", help='Comma-separated switches, such as "shuffled-order,shuffled-text". Default: all.'
    ),
    part: str = PART,
    as_json: bool = JSON,
) -> None:
    """Show what is lost without the order of histories, without the items' texts, without training.

    Nothing is trained. Switches: shuffled-order, reversed-order, last-item, shuffled-text, title-only, no-text,
    popularity. The results are kept in ablations.json (ablations-validation.json) of the run's directory, beside those
    of earlier calls with other switches.
    """
    from hllm.jobs.ablate import ablate_run
    from hllm.reports.run import ablation_table
    from hllm.runs.results import json_of
    from hllm.runs.run import Run

    ablations = ablate_run(Run(run), None if only is None else comma_list(only), part=part_of(part))
    echo(json_of(ablations) if as_json else ablation_table(ablations))
