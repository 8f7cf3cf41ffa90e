"""`hllm train`, `hllm evaluate` and `hllm report`."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from hllm.cli.plan import dry_run
from hllm.errors import ConfigError
from hllm.progress import is_first_process

if TYPE_CHECKING:
    from hllm.api import Recommender
    from hllm.evaluation.evaluate import Evaluated

_REPORT = "report.html"

RUN = typer.Option(..., "--run", help="The directory that `hllm train --out` made.")
AGAINST = typer.Option([], "--against", help="Another run on the same data and split; may be repeated.")
BASELINES = typer.Option(
    "popularity,co-occurrence,markov", "--baselines", help='Comma-separated recommenders without training; "" for none.'
)


def train(
    recipe: Path = typer.Argument(help="A recipe, such as recipes/demo.toml."),
    out: Path | None = typer.Option(None, "--out", help="The run's directory; a run stopped there goes on."),
    dry: bool = typer.Option(
        False, "--dry-run", help="Estimate parameters, operations, memory and time, and write nothing."
    ),
    resume: str = typer.Option(
        "auto", "--resume", help='"auto": go on from the newest checkpoint that is not damaged. "never": refuse to.'
    ),
    overrides: list[str] = typer.Option(
        (), "--set", metavar="A.B=VALUE", help="Change one key of the recipe, such as stages.0.epochs=2; repeatable."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for programs."),
) -> None:
    """Train the recipe's model on the recipe's data; what is finished already is not done again."""
    if dry:
        dry_run(recipe, overrides, as_json=as_json)
        return
    if out is None:
        raise ConfigError("give --out, the run's directory; or --dry-run, for an estimate of what training costs")
    from hllm.api import fit_recipe
    from hllm.cli.allocator import keep_freed_memory

    if resume not in ("auto", "never"):
        raise ConfigError(f'--resume is {resume!r}; expected "auto" or "never"')
    keep_freed_memory()
    recommender = fit_recipe(recipe, out, overrides, resume="auto" if resume == "auto" else "never")
    if not is_first_process():
        return
    position = recommender.run.resume_point()[0]
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "run": str(out),
                    "steps": position.step,
                    "elapsed_s": position.elapsed_s,
                    recommender.recipe.select_by: position.best,
                }
            )
        )
        return
    typer.echo(
        f"{out}: {position.step:,} steps in {position.elapsed_s:,.0f} s; best validation "
        f"{recommender.recipe.select_by} {position.best:.4f}\n"
        f"next: {next_steps(out, recommender.recipe.select_by, recommender.dataset.users[0])}"
    )


def evaluate(
    run: Path = RUN,
    against: list[Path] = AGAINST,
    baselines: str = BASELINES,
    part: str = typer.Option("test", "--part", help='"test" or "validation".'),
    dims: str = typer.Option(
        "", "--dims", "--dim", help="Score by the first numbers of the vectors too: 32,64; named RUN@32, RUN@64."
    ),
    with_report: bool = typer.Option(
        False, "--report", help="Also write what hllm report writes, without evaluating twice."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for programs."),
) -> None:
    """Rank the full catalogue for every test user; print metrics with 95 % intervals and the protocol.

    With --dims the table is the curve of what shorter vectors lose; hllm compare RUN RUN:RUN@64 tests the difference.

    The numbers are also kept in evaluation.json (evaluation-validation.json) of the run's directory, and where each
    target stands in ranks-test.parquet (ranks-validation.parquet), for hllm compare.
    """
    from hllm import artifacts
    from hllm.evaluation.ranks import write_ranks
    from hllm.jobs.evaluate import evaluate_all_with_ranks
    from hllm.reports.run import text_table
    from hllm.runs.results import ranks_file

    sizes, chosen = _sizes(dims), part_of(part)
    if with_report and chosen != "test":
        raise ConfigError("--report is of the test part: leave --part out")
    runs = open_runs([run, *against])
    runs = {f"{label(run)}@{dim}": runs[label(run)].at(dim) for dim in sizes} | runs
    evaluated = evaluate_all_with_ranks(runs, names_of(baselines), part=chosen)
    results = [each.result for each in evaluated]
    write_ranks(ranks_file(run, chosen), label(run), evaluated)
    content = json.dumps([result.model_dump(mode="json") for result in results], indent=1)
    artifacts.write_text(run / ("evaluation.json" if part == "test" else f"evaluation-{part}.json"), content)
    typer.echo(content if as_json else text_table(results))
    if with_report:
        typer.echo(f"the report: {_write_report([run, *against], runs, evaluated, run / _REPORT)}", err=as_json)


def report(
    run: Path = RUN,
    against: list[Path] = AGAINST,
    baselines: str = BASELINES,
    out: Path | None = typer.Option(None, "--out", help="The HTML file; default: report.html in the run's directory."),
) -> None:
    """Write one self-contained HTML page: metrics with intervals, learning curves, example users, cold items.

    What `hllm ablate` has stored in the runs' directories is shown too.
    """
    from hllm.jobs.evaluate import evaluate_all_with_ranks

    runs = open_runs([run, *against])
    evaluated = evaluate_all_with_ranks(runs, names_of(baselines))
    typer.echo(str(_write_report([run, *against], runs, evaluated, out or run / _REPORT)))


def _write_report(
    paths: list[Path], runs: dict[str, "Recommender"], evaluated: Sequence["Evaluated"], target: Path
) -> Path:
    """Write the page of the runs in `paths`, whose first one gives the examples and the data; return where it is."""
    from hllm import artifacts
    from hllm.cli.examples import examples
    from hllm.cli.stored import ablations_of
    from hllm.data.describing.measure import describe
    from hllm.reports.description import describe_section
    from hllm.reports.run import html_report

    results = [each.result for each in evaluated]
    trained = [(path, result) for path in paths for result in results if result.name == label(path)]
    ablations = [ablations_of(path, result) for path, result in trained]
    data = runs[label(paths[0])]
    page = html_report(
        results,
        examples(data),
        {label(path): runs[label(path)].run.events() for path in paths},
        ablations=[found for found in ablations if found is not None],
        slices=[(result.name, result.slices) for result in results],
        ranks={each.result.name: each.ranks for each in evaluated},
        sections=[("Data", describe_section(describe(data.dataset, data.split)))],
    )
    artifacts.write_text(target, page)
    return target


def next_steps(out: Path, select_by: str, user: object) -> str:
    """Return the commands that show what a run can do, for one that was selected as a ranker or as a retriever."""
    run, user = f"--run {shlex.quote(str(out))}", f"--user {shlex.quote(str(user))}"
    if "@" not in select_by:  # auc, gauc: DIN knows nothing else
        return f"hllm evaluate-ranking {run}; hllm rank {run} {user} --candidates FILE"
    return f"hllm evaluate {run}; hllm recommend {run} {user}"


def open_runs(paths: list[Path]) -> dict[str, "Recommender"]:
    """Open finished runs, by the names of their directories; ConfigError if two are alike."""
    from hllm.api import Recommender

    runs: dict[str, Recommender] = {}
    for path in paths:
        if label(path) in runs:
            raise ConfigError(
                f"two runs are named {label(path)!r}; a table needs names that differ: rename a directory"
            )
        runs[label(path)] = Recommender.load(path)
    return runs


def _sizes(dims: str) -> list[int]:
    """Read "32,64,full"; the whole vectors are always among those evaluated."""
    asked = [each.strip() for each in dims.split(",") if each.strip()]
    wrong = [each for each in asked if each != "full" and not (each.isdecimal() and int(each))]
    if wrong:
        raise ConfigError(f'--dims has {wrong[0]!r}; expected sizes such as 32,64,128, and "full"')
    return sorted({int(each) for each in asked if each != "full"})


def label(path: Path) -> str:
    """Return the name of a run in tables: its directory's."""
    return path.resolve().name


def names_of(listed: str) -> list[str]:
    """Return what stands between commas."""
    return [name.strip() for name in listed.split(",") if name.strip()]


def part_of(part: str) -> Literal["validation", "test"]:
    """Return the part of a split; ConfigError if it is neither "test" nor "validation"."""
    match part:
        case "validation" | "test":
            return part
    raise ConfigError(f'--part is {part!r}; expected "test" or "validation"')
