"""`hllm ablate`."""

from pathlib import Path

import typer

from hllm.cli.run import RUN, label, part_of
from hllm.cli.stored import ABLATIONS, read_ablations


def ablate(
    run: Path = RUN,
    only: str | None = typer.Option(
        None, "--only", help='Comma-separated switches, such as "shuffled-order,shuffled-text". Default: all.'
    ),
    part: str = typer.Option("test", "--part", help='"test" or "validation".'),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for programs."),
) -> None:
    """Show what is lost without the order of histories, without the items' texts, without training.

    Nothing is trained. Switches: shuffled-order, reversed-order, last-item, shuffled-text, title-only, no-text,
    popularity. The results are kept in ablations.json (ablations-validation.json) of the run's directory, beside those
    of earlier calls with other switches.
    """
    from hllm import artifacts
    from hllm.api import Recommender
    from hllm.reports.run import ablation_table

    chosen = part_of(part)
    switches = None if only is None else [name.strip() for name in only.split(",") if name.strip()]
    found = Recommender.load(run).ablate(switches, part=chosen, name=label(run))
    stored = run / (ABLATIONS if chosen == "test" else f"ablations-{chosen}.json")
    earlier = read_ablations(stored)
    kept = found if earlier is None else found.joined_to(earlier)
    artifacts.write_text(stored, kept.model_dump_json(indent=1))
    typer.echo(found.model_dump_json(indent=1) if as_json else ablation_table(found))
