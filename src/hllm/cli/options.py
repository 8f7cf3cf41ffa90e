"""Several verbs share these options; their values are read here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import typer

from hllm.errors import ConfigError, nearest

if TYPE_CHECKING:
    from hllm.embedding.rows import Dtype

Choice = TypeVar("Choice", bound=str)

RECIPE = typer.Argument(help="A recipe, such as recipes/demo.toml.")
RUN = typer.Option(..., "--run", help="The directory that `hllm train --out` made.")
AGAINST = typer.Option([], "--against", help="Another run on the same data and split; may be repeated.")
BASELINES = typer.Option(
    "popularity,co-occurrence,markov", "--baselines", help='Comma-separated recommenders without training; "" for none.'
)
PART = typer.Option("test", "--part", help='"test" or "validation".')
USER = typer.Option(None, "--user", help="A user id of the training data.")
HISTORY = typer.Option(None, "--history", help='Item ids, oldest first: "id,id,…".')
TABLE = typer.Option(..., "--out", help="The table's directory; a table that stands there is brought up to date.")
DTYPE = typer.Option("fp32", "--dtype", help='How vectors are stored: "fp32", "bf16" or "int8".')
SHARD = typer.Option(
    "1/1", "--shard", metavar="I/N", help="Be the I-th of N processes on one --out; then call once without, to end."
)
JSON = typer.Option(False, "--json", help="Print JSON for programs.")


SEPARATOR = typer.Option(None, "--separator", help='Text between fields, such as ";" or "tab"; default: found.')
ENCODING = typer.Option(None, "--encoding", help='Of text that is not UTF-8: "cp1252", "shift_jis", ….')
NO_HEADER = typer.Option(False, "--no-header", help="The first line of text tables is data: see --columns.")
COLUMNS = typer.Option(
    None, "--columns", metavar="NAME,…", help="Names of the interactions' columns, for a text table without a header."
)
ITEMS_COLUMNS = typer.Option(
    None,
    "--items-columns",
    metavar="NAME,…",
    help="The same for the items; without them: column_1, column_2, ….",
)


def form_keys(
    separator: str | None, encoding: str | None, no_header: bool, columns: str | None, items_columns: str | None
) -> dict[str, Any]:
    """Return the keys of `[data]` that these options set: how text tables are written."""
    keys = {
        "separator": separator,
        "encoding": encoding,
        "header": False if no_header else None,
        "columns": column_list(columns),
        "items_columns": column_list(items_columns),
    }
    return {name: value for name, value in keys.items() if value is not None}


def overrides_option(help: str, *, metavar: str = "A.B=VALUE") -> Any:
    """Return the option --set, which changes keys of a recipe or of other settings."""
    return typer.Option((), "--set", metavar=metavar, help=help)


def comma_list(listed: str) -> list[str]:
    """Return the parts between commas, without empty ones."""
    return [part.strip() for part in listed.split(",") if part.strip()]


def column_list(listed: str | None) -> list[str] | None:
    """Return the column names between commas; None if the option is missing.

    An empty name stays: no table has such a column, so it is refused later.
    """
    return None if listed is None else [name.strip() for name in listed.split(",")]


def number_list(option: str, listed: str, *, expected: str) -> list[int]:
    """Return the whole numbers between commas; ConfigError, with what is `expected`, for anything else."""
    try:
        return [int(part) for part in comma_list(listed)]
    except ValueError:
        raise ConfigError(f"{option} is {listed!r}; expected {expected}") from None


def dimension_list(listed: str) -> list[int]:
    """Return the sizes of --dims in ascending order; "full" may be among them, as whole vectors always are."""
    sizes = comma_list(listed)
    wrong = [size for size in sizes if size != "full" and not (size.isdecimal() and int(size))]
    if wrong:
        raise ConfigError(f'--dims has {wrong[0]!r}; expected sizes such as 32,64,128, and "full"')
    return sorted({int(size) for size in sizes if size != "full"})


def one_of(option: str, value: str, known: Sequence[Choice]) -> Choice:
    """Return the value of an option if it is a known one; ConfigError for another."""
    for each in known:
        if value == each:
            return each
    raise ConfigError(f"{option} is {value!r}{nearest(value, known)}; expected one of {', '.join(known)}")


def part_of(part: str) -> Literal["validation", "test"]:
    """Return the part of a split; ConfigError if it is neither "test" nor "validation"."""
    match part:
        case "validation" | "test":
            return part
    raise ConfigError(f'--part is {part!r}; expected "test" or "validation"')


def dtype_of(dtype: str) -> "Dtype":
    """Return how vectors are to be stored; ConfigError for an unknown way."""
    from hllm.embedding.rows import DTYPES

    return one_of("--dtype", dtype, DTYPES)
