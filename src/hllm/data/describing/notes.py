"""Turn the numbers of a Description into sentences that a person should read before training."""

# Proved by tests/data/describing/test_measure.py.

from collections.abc import Iterator

from hllm.data.describing.description import Description, TokenLengths

TIES_WORTH_A_NOTE = 0.05
CUT_WORTH_A_NOTE = 0.05
LEAK_WORTH_A_NOTE = 0.01
_DAY_S = 86_400.0
# From 1990 to 2100, in seconds since 1970: times beyond are hardly those of interactions.
_PLAUSIBLE_S = (631_152_000, 4_102_444_800)


def notes(described: Description) -> tuple[str, ...]:
    """Return the notes, the gravest kinds first; none where nothing stands out."""
    return (
        *_faults(described),
        *_times(described),
        *_repeats(described),
        *_items(described),
        *(_tokens(described.tokens) if described.tokens else ()),
        *_split(described),
    )


def percent(share: float) -> str:
    """Return a share as a percentage; what is not 0 or 100 % does not read as such."""
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    if not 1e-6 <= share <= 0.9995:
        return "< 0.0001 %" if share < 0.5 else "> 99.9 %"
    return f"{100 * share:.{1 if share >= 0.0995 else 2 if share >= 0.00995 else 4}f} %"


def _faults(description: Description) -> Iterator[str]:
    for fault in description.faults:
        if fault.count:
            first = f" (first: {', '.join(map(repr, fault.examples))})" if fault.examples else ""
            yield f"{fault.count:,} of {fault.total:,} {fault.rows} {fault.what}{first}: {fault.advice}."


def _times(description: Description) -> Iterator[str]:
    times = description.times
    if times.kind == "positions":
        yield (
            "The times are only positions: they count each user's interactions, and are no clock. Set "
            'data.time_unit = "none". Splits by time, models that read times and the leak share need real times.'
        )
    elif times.kind == "order":
        yield "The times only order the interactions (data.time_unit is none): nothing can be split or read by time."
    elif times.kind == "none":
        yield "There are no times that differ: the order of the file is the order of the histories."
    elif times.by_time and not (
        _PLAUSIBLE_S[0] <= times.by_time.edges[0] and times.by_time.edges[-1] <= _PLAUSIBLE_S[1]
    ):
        question = (
            f"is it {times.better_clock}?"
            if times.better_clock
            else "is data.time_unit right (s, ms, us), or are they no clock (none)?"
        )
        yield f"The times, read as dates, go from {times.first} to {times.last}: {question}"
    if times.tied_within_user >= TIES_WORTH_A_NOTE and times.kind != "none":
        days = " Only days are kept." if times.resolution_s and times.resolution_s % _DAY_S == 0 else ""
        yield (
            f"{percent(times.tied_within_user)} of the interactions have the same time as another one of their user: "
            f"their order is that of the file.{days}"
        )


def _repeats(description: Description) -> Iterator[str]:
    repeats, total = description.repeats, description.num_interactions
    if repeats.duplicates:
        yield f"{repeats.duplicates:,} interactions are there twice: same user, item and time."
    if repeats.pairs:
        yield (
            f"{percent(repeats.pairs / total)} of the interactions repeat an item that the user had before: where seen "
            "items are left out of the ranking, such a target cannot be hit."
        )


def _items(description: Description) -> Iterator[str]:
    never, texts = description.popularity.never, description.texts
    if never:
        yield (
            f"{never:,} of {description.num_items:,} items have no interaction. They are ranked like all others; "
            'data.items_without_interactions = "drop" leaves them out.'
        )
    if texts.empty and not description.faults:  # faults would have named them
        yield f"{texts.empty:,} items have no text: an Item LLM knows nothing about them."
    if texts.id_like:
        yield (
            f"The text columns {', '.join(map(repr, texts.id_like))} look like ids, which cost tokens and say nothing. "
            "Name the columns to read with data.text_cols."
        )
    if texts.sharing:
        yield (
            f"{texts.sharing:,} items share their text with another item: an Item LLM cannot tell them apart. "
            "More columns in data.text_cols may help."
        )


def _tokens(tokens: TokenLengths) -> Iterator[str]:
    if tokens.cut_items >= CUT_WORTH_A_NOTE:
        yield (
            f"{percent(tokens.cut_items)} of the texts are cut at {tokens.max_length} tokens, which loses "
            f"{percent(tokens.cut_tokens)} of all tokens; 99 % of them have at most {tokens.lengths.p99:.0f} "
            "(model.item.prompt.max_tokens)."
        )


def _split(description: Description) -> Iterator[str]:
    split = description.split
    if split and split.leak_share and split.leak_share >= LEAK_WORTH_A_NOTE:
        yield (
            f"{percent(split.leak_share)} of the training interactions are later than the median test target: under "
            f'the {split.kind} split a model learns from the future. split.kind = "temporal" has none of this.'
        )
