"""Describe two tables as the caller has them: faults that would stop the building of a dataset are counted here."""

# Proved by tests/data/describing/test_measure.py.

from hllm.data import checks
from hllm.data.build import prepare, refusals
from hllm.data.describing.description import Description, FaultCount
from hllm.data.describing.measure import TokenCounter, columns, describe, item_roles
from hllm.data.describing.notes import notes, percent
from hllm.data.prompt import PromptConfig
from hllm.data.reading.tables import Table, read_table
from hllm.data.schema import DataConfig
from hllm.data.split import SplitConfig, split_dataset
from hllm.data.texts import html_share
from hllm.errors import DataError

_DESCRIBED = ("repeated_texts", "duplicate_interactions")  # by numbers of their own


def describe_tables(
    interactions: Table,
    items: Table | None,
    config: DataConfig,
    *,
    split: SplitConfig | None = None,
    prompt: PromptConfig | None = None,
    counter: TokenCounter | None = None,
) -> Description:
    """Describe the tables; rows that cannot be used are counted and left out of all other numbers.

    Items without text stay, and interactions with unknown items go, unless the config says otherwise. A split that
    the data do not allow is left out, and a note says why. Raises DataError where no dataset can be made at all:
    missing columns, unreadable files, no usable interaction.
    """
    log = read_table(interactions, config.interactions_form, name="interactions")
    catalogue = None if items is None else read_table(items, config.items_form, name="items")
    preparation, dataset = prepare(log, catalogue, _forgiving(config))
    if not dataset.num_interactions:
        checks.refuse(refusals(preparation))
    parts, more_notes = None, []
    if split is not None:
        try:
            parts = split_dataset(dataset, split)
        except DataError as error:
            more_notes.append(f"{str(error)[0].upper()}{str(error)[1:]}.")
    roles = {config.user_col: "user", config.item_col: "item"}
    for role, column in (("time", config.time_col), ("action", config.action_col), ("split", config.split_col)):
        if column:
            roles[column] = role
    description = describe(dataset, parts, prompt=prompt, counter=counter).model_copy(
        update={
            "interaction_columns": columns(log, roles),
            "item_columns": columns(dataset.items if catalogue is None else catalogue, item_roles(dataset)),
            "faults": tuple(_described(fault) for fault in preparation.faults if fault.name not in _DESCRIBED),
        }
    )
    marked = html_share(dataset.items.lazy(), dataset.text_cols)
    more_notes += [
        f'{percent(share)} of {name!r} hold HTML, such as <br> or &amp;: data.html = "clean" takes it out.'
        for name, share in marked.items()
    ]
    return description.model_copy(update={"notes": (*notes(description), *more_notes)})


def _forgiving(config: DataConfig) -> DataConfig:
    """Return the config with policies that never stop; those that somebody has chosen stay."""
    changes: dict[str, str | None] = {"quarantine": None}
    if config.items_without_text == "error":
        changes["items_without_text"] = "keep"
    if config.duplicate_interactions == "error":
        changes["duplicate_interactions"] = "keep"
    return config.model_copy(update=changes)


def _described(fault: checks.Fault) -> FaultCount:
    return FaultCount(
        rows=fault.table,
        what=fault.what,
        count=len(fault.rows),
        total=fault.total,
        examples=tuple(dict.fromkeys(str(value) for value in fault.values if value is not None)),
        advice=fault.advice[0].lower() + fault.advice[1:],
    )
