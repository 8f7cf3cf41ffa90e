"""A Description holds what `describe` measured of a data set: plain numbers that can be stored and shown."""

# Proved by tests/data/describing/test_measure.py.

from hllm.config import Config
from hllm.data.leak import TimesKind


class Histogram(Config):
    """Counts of the values between whole-numbered edges."""

    edges: tuple[int, ...]
    """One more than there are bins: a bin holds its left edge and not its right one."""
    counts: tuple[int, ...]


class Distribution(Config):
    """Distribution of one number for each user or item; quartiles and percentiles are interpolated linearly."""

    min: float
    p25: float
    median: float
    mean: float
    p75: float
    p90: float
    p99: float
    max: float
    histogram: Histogram


class Column(Config):
    """A column of one of the caller's tables."""

    name: str
    type: str
    """Type by polars' name; columns of CSV and TSV files are all text."""
    role: str = ""
    """Role in the configuration, such as "user"; "" for a column that is not read."""
    filled: float
    """Share of the rows that hold more than nothing or blanks."""


class Ids(Config):
    """Looks of the ids of users or items."""

    type: str
    numeric: float
    """Share of the distinct ids that read as whole numbers."""


class FaultCount(Config):
    """Rows that cannot be used as they are."""

    rows: str
    """Table of the rows: "interactions" or "items"."""
    what: str
    """Fault of the rows, such as "have no user id"."""
    count: int
    total: int
    """Rows looked at."""
    examples: tuple[str, ...] = ()
    """The first ids or values, at most three."""
    advice: str
    """Advice on what to do."""


class PopularityFacts(Config):
    """Spread of the interactions over the items of the catalogue."""

    per_item: Distribution
    """Interactions of an item, items without any included."""
    gini: float
    """0: all items have equally many; near 1: a few have all. Items without any included."""
    top_1_percent: float
    """Share of the interactions that the most popular 1 % of the items have; the number of items is rounded up."""
    top_10_percent: float
    """The same for 10 %."""
    never: int
    """Items without an interaction."""


class Repeats(Config):
    """Interactions that occur more than once, the first of each not counted."""

    duplicates: int
    """Same user, item and time as an earlier one; times that only count positions never agree."""
    pairs: int
    """Same user and item as an earlier one, at any time."""


class Times(Config):
    """The times of the interactions, or the fact that the data do not say them."""

    kind: TimesKind
    """"clock": moments in time. "positions": nearly every user's times are 0, 1, 2, … or 1, 2, 3, …
    "order": they order interactions, and data.time_unit says that they are no clock. "none": all are equal."""
    first: str | None = None
    """The oldest interaction in UTC; None, as all below, if the times are no clock."""
    last: str | None = None
    resolution_s: float | None = None
    """The longest time that all times are whole multiples of after the first: 86,400 s where only days are kept."""
    median_gap_s: float | None = None
    """Between two neighbouring interactions of a user; None too if no user has two."""
    by_time: Histogram | None = None
    """Interactions over time; edges in seconds since 1970."""
    better_clock: str | None = None
    """Key of `[data]` under which the times would be those of our days, where they are not."""
    tied_within_user: float
    """Share of the interactions that have the time of another one of the same user."""
    tied_overall: float
    """Share of the interactions that have the time of any other one."""


class SharedText(Config):
    """A text that several items have."""

    text: str
    count: int
    item_ids: tuple[str, ...]
    """At most three."""


class ItemExample(Config):
    """An item as the Item LLM reads it."""

    item_id: str
    interactions: int
    text: str
    """Cut after 300 characters."""


class Texts(Config):
    """The items' texts, as the prompt renders them."""

    columns: tuple[str, ...]
    id_like: tuple[str, ...]
    """Columns that look like ids: in every row another word with a digit in it."""
    characters: Distribution
    empty: int
    """Items without any text."""
    sharing: int
    """Items whose text another item has too; those without text not counted."""
    shared: tuple[SharedText, ...]
    """The texts that most items share, at most three."""
    first: tuple[ItemExample, ...]
    """The first items of the table, at most three."""
    most_popular: tuple[ItemExample, ...]
    """The items with most interactions, at most three: a wrong join of the tables shows here."""


class TokenLengths(Config):
    """The items' texts in tokens, before they are cut."""

    tokenizer: str
    max_length: int
    """Number of tokens at which a text is cut, special tokens included."""
    num_items: int
    """Number of items that were read: all, or an evenly spaced sample of a large catalogue."""
    lengths: Distribution
    cut_items: float
    """Share of the items whose text is longer than max_length."""
    cut_tokens: float
    """Share of all tokens that are cut off."""


class SplitFacts(Config):
    """Sizes of the parts that a split makes of the data."""

    kind: str
    fingerprint: str
    num_training: int
    """Training interactions."""
    num_validation: int
    """Validation targets."""
    num_test: int
    """Test targets."""
    leak_share: float | None
    """Share of the training interactions that are later than the median test target; None if times are no clock."""


class Description(Config):
    """A data set at a glance. Rows that cannot be used are counted in `faults` and left out of all else."""

    num_users: int
    num_items: int
    """Size of the catalogue."""
    num_interactions: int
    density: float
    """Share of all pairs of a user and an item that occur among the interactions."""
    user_ids: Ids
    item_ids: Ids
    interaction_columns: tuple[Column, ...] = ()
    """Empty where only the stored dataset was at hand, which keeps no other columns."""
    item_columns: tuple[Column, ...]
    faults: tuple[FaultCount, ...] = ()
    """Faults that the tables were searched for, found or not; empty for a stored dataset, which was checked before."""
    history_length: Distribution
    popularity: PopularityFacts
    repeats: Repeats
    times: Times
    texts: Texts
    tokens: TokenLengths | None = None
    """Lengths of the texts in tokens; None without a tokenizer."""
    split: SplitFacts | None = None
    """Sizes of the split's parts; None without a split."""
    notes: tuple[str, ...] = ()
    """Notes for a person to read before training, a sentence or two each."""
