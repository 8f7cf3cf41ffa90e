"""The `hllm` command lists its verbs and gives exit codes their meaning. It imports torch only inside a verb."""

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TextIO

import typer

from hllm.cli import (
    ablate,
    card,
    check,
    cold_start,
    compare,
    describe,
    embed,
    embed_users,
    evaluate,
    evaluate_ranking,
    export_model,
    export_vectors,
    fetch,
    fine_tune,
    import_checkpoint,
    import_data,
    index,
    rank,
    recommend,
    report,
    similar,
    split,
    train,
    tune,
)
from hllm.cli.exits import EXIT_FAILURE, EXIT_SIGNAL, EXIT_WRONG_INPUT, stopped_by_signals
from hllm.errors import BusyError, CheckpointError, ConfigError, DataError, HllmError, HllmWarning, Stopped
from hllm.visible import visible

app = typer.Typer(
    help="Recommend with language models: one reads the items' text, another the users' histories.\n\n"
    "First results: hllm data fetch movielens-100k; hllm model fetch minilm-l6; hllm model fetch smollm2-135m; "
    "hllm train recipes/demo.toml --out demo; hllm recommend --run demo --user 42\n\n"
    "Exit codes: 0 done, 1 failure, 2 wrong input, 128 + n stopped by signal n.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Data sets.", no_args_is_help=True, rich_markup_mode=None)
model_app = typer.Typer(help="Pre-trained language models.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")

data_app.command("fetch", short_help="Download a data set once.")(fetch.data)
data_app.command("describe", short_help="What is in a data set, before training.")(describe.describe)
data_app.command("import", short_help="Any common layout, or two tables.", help=import_data.HELP)(
    import_data.import_data
)
data_app.command("split", short_help="How a recipe divides its data.")(split.split)
data_app.command("check", short_help="Faults in two tables, before training.")(check.check)
model_app.command("fetch", short_help="Download a model once.")(fetch.model)
app.command("train", short_help="Train the model of a recipe; a stopped run goes on.")(train.train)
app.command("fine-tune", short_help="Train a run on with new data; report the drift.")(fine_tune.fine_tune)
app.command("tune", short_help="Try other values of a recipe's keys.")(tune.tune)
app.command("evaluate", short_help="Metrics with intervals, next to baselines.")(evaluate.evaluate)
app.command("evaluate-ranking", short_help="AUC and calibration of a run that ranks.")(
    evaluate_ranking.evaluate_ranking
)
app.command("cold-start", short_help="New items, and users with few interactions.")(cold_start.cold_start)
app.command("ablate", short_help="What is lost without order, text or training.")(ablate.ablate)
app.command("compare", short_help="Evaluated runs side by side, with paired tests.")(compare.compare)
app.command("report", short_help="One HTML page: metrics, curves, examples.")(report.report)
app.command("card", short_help="A model card, from the run's own numbers.")(card.card)
app.command("recommend", short_help="Items for a user, or users for a new item.")(recommend.recommend)
app.command("rank", short_help="Scores for given candidates.")(rank.rank)
app.command("index", short_help="An index over a run's items, with its recall.")(index.index)
app.command("similar", short_help="Items like an item or a text.")(similar.similar)
app.command("embed", short_help="The items' vectors, kept up to date.")(embed.embed)
app.command("embed-users", short_help="The users' vectors.")(embed_users.embed_users)
app.command("export-vectors", short_help="Vectors as Parquet, npy or safetensors.")(export_vectors.export_vectors)
app.command("export-model", short_help="A smaller copy in bf16 or int8, its loss measured.")(export_model.export_model)
app.command("import-checkpoint", short_help="A checkpoint from the published HLLM weights.")(
    import_checkpoint.import_checkpoint
)


@app.callback(invoke_without_command=True)
def _top(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from hllm import __version__

        typer.echo(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, or `arguments` instead of it; errors meant for people end in one line on stderr."""
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a letter that the output cannot hold is shown as an escape
            stream.reconfigure(errors="backslashreplace")
    try:
        with stopped_by_signals():
            app(_given() if arguments is None else arguments, prog_name="hllm")
        sys.stdout.flush()
    except SystemExit as end:  # typer has shown its own messages about the use of verbs and options
        return end.code if isinstance(end.code, int) else 0
    except (DataError, ConfigError, CheckpointError, BusyError) as error:
        return _fail(error, EXIT_WRONG_INPUT)
    except HllmError as error:
        return _fail(error, EXIT_FAILURE)
    except Stopped as stop:
        sys.stderr.write(f"\nhllm: {stop}\n")
        return EXIT_SIGNAL + stop.signal_number
    except (OSError, MemoryError, RecursionError, UnicodeEncodeError) as error:
        return _fail_at_the_system(error)
    return 0


def _given() -> list[str]:
    """Return the arguments of the command line, as UTF-8 also where the locale says nothing of letters."""
    return [os.fsencode(argument).decode("utf-8", "surrogateescape") for argument in sys.argv[1:]]


def _fail_at_the_system(error: OSError | MemoryError | RecursionError | UnicodeEncodeError) -> int:
    """Say in a sentence what the system refused; what a verb writes is whole or not there in any case."""
    code = EXIT_WRONG_INPUT if isinstance(error, RecursionError | UnicodeEncodeError) else EXIT_FAILURE
    if isinstance(error, RecursionError):
        message = "a file or an option is nested too deeply to be read; look for brackets in brackets"
    elif isinstance(error, UnicodeEncodeError):
        message = f"{error.object!r} is no text in UTF-8; give it in that encoding"
    elif isinstance(error, MemoryError):
        message = "there is not enough memory" + (f" ({error})" if str(error) else "")
    elif error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        message = f"the output cannot be written: {error.strerror}"
        # What is left in the stream is dropped, or Python would try to write it at the end, and fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        place = f"{error.filename}: " if error.filename is not None else ""
        message = f"{place}{error.strerror or error}"
    sys.stderr.write(visible(f"hllm: {message}") + "\n")
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, HllmWarning):
        sys.stderr.write(visible(f"hllm: warning: {message}") + "\n")
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


def _fail(error: HllmError, code: int) -> int:
    sys.stderr.write(visible(f"hllm: {type(error).__name__}: {error}") + "\n")
    return code
