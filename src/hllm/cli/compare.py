"""`hllm compare` puts evaluated runs side by side."""

import typer

from hllm.cli.options import JSON, PART, comma_list, part_of
from hllm.cli.show import echo
from hllm.errors import ConfigError


def compare(
    runs: list[str] = typer.Argument(
        metavar="RUN…",
        help="Two or more evaluated runs; RUN:popularity is what was evaluated beside RUN, a baseline or another run.",
    ),
    metric: str = typer.Option("ndcg@10", "--metric", help="One or more, comma-separated; any cut-off."),
    part: str = PART,
    reference: str = typer.Option(
        "best", "--reference", help='What the others are tested against: "best", "first", or one of the names.'
    ),
    group: str | None = typer.Option(None, "--slice", help='Only some targets, such as "cold items".'),
    force: bool = typer.Option(False, "--force", help="Allow runs of different protocols; the tests mean less."),
    as_json: bool = JSON,
    as_csv: bool = typer.Option(False, "--csv", help="Print CSV, with every number in full."),
    as_markdown: bool = typer.Option(False, "--markdown", help="Print Markdown."),
    as_latex: bool = typer.Option(False, "--latex", help="Print LaTeX for booktabs."),
) -> None:
    """Compare evaluated runs by their stored ranks: intervals, paired tests, the best; no model is loaded.

    Runs of different protocols are refused, with what differs.
    """
    chosen = [name for name, on in (("csv", as_csv), ("markdown", as_markdown), ("latex", as_latex)) if on]
    if len(chosen) + as_json > 1:
        raise ConfigError("give at most one of --json, --csv, --markdown and --latex")
    from hllm.evaluation.compare import compare_ranks
    from hllm.reports.results import FORMATS
    from hllm.runs.results import json_of, stored_ranks

    contenders = [stored_ranks(run, part_of(part)) for run in runs]
    comparison = compare_ranks(
        contenders,
        comma_list(metric),
        reference=contenders[0].name if reference == "first" else reference,
        group=group,
        force=force,
    )
    echo(json_of(comparison) if as_json else FORMATS[chosen[0] if chosen else "text"](comparison))
