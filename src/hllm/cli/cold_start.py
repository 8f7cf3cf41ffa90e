"""`hllm cold-start`."""

from pathlib import Path

import typer

from hllm.cli.run import AGAINST, RUN, names_of, open_runs, part_of
from hllm.errors import ConfigError


def cold_start(
    run: Path = RUN,
    against: list[Path] = AGAINST,
    baselines: str = typer.Option(
        "random,popularity",
        "--baselines",
        help='Comma-separated recommenders without training, such as "embedding" and "bm25", which read text.',
    ),
    lengths: str = typer.Option("0,1,2,5", "--lengths", help="How many items of each history are read."),
    part: str = typer.Option("test", "--part", help='"test" or "validation".'),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for programs."),
) -> None:
    """Show how runs and baselines do on items that nobody has in training, and on users with few interactions.

    Cold targets (at most evaluation.cold_at_most training interactions) are ranked among the full catalogue, and among
    cold items alone. For items held out altogether train with split.kind = "items" and evaluation.cold_at_most = 0, as
    recipes/small/ml-1m/cold-hllm.toml does. Then all targets are asked for with only the latest 0, 1, 2 and 5 items of
    their histories; 0 stands for what is popular. The numbers are also kept in cold-start.json
    (cold-start-validation.json) of the run's directory.
    """
    from hllm import artifacts
    from hllm.jobs.cold_start import cold_start as evaluate_cold_start
    from hllm.reports.cold_start import cold_start_table

    try:
        numbers = [int(number) for number in names_of(lengths)]
    except ValueError:
        raise ConfigError(f"--lengths is {lengths!r}; expected numbers of items, such as 0,1,2,5") from None
    chosen = part_of(part)
    report = evaluate_cold_start(open_runs([run, *against]), names_of(baselines), part=chosen, lengths=numbers)
    content = report.model_dump_json(indent=1)
    artifacts.write_text(run / ("cold-start.json" if part == "test" else f"cold-start-{part}.json"), content)
    typer.echo(content if as_json else cold_start_table(report))
