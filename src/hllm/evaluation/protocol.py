"""A protocol holds everything that must be equal before two numbers may stand in one table."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from hllm.config import Config
from hllm.errors import ConfigError
from hllm.metrics import CUTOFFS, DEFINITIONS, DEFINITIONS_OF_SEVERAL

COLD_AT_MOST = 5
SliceFamily = Literal["cold items", "popularity", "history length", "item age"]


class EvaluationConfig(Config):
    """Settings of an evaluation."""

    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=CUTOFFS, min_length=1)
    """The k of recall@k, ndcg@k and mrr@k."""
    query_per: Literal["target", "user"] = "target"
    """Unit that is asked for. "target": each target by itself, with everything before it as history. "user": all of a
    user's targets in one list, each item once, with what the user did before the first of them; metrics are then means
    over users."""
    seen: Literal["removed", "kept"] = "removed"
    """Items of the history: "removed" from what is ranked, as the service does, or "kept", for data in which people
    choose the same item again, such as songs or groceries. The baselines and the validations do the same."""
    cold_at_most: int = COLD_AT_MOST
    """An item with at most this many training interactions is cold."""
    slices: tuple[SliceFamily, ...] = ("cold items", "popularity", "history length")
    """Groups of targets that have a table of their own, besides all targets. "popularity": the fifth of the catalogue
    with the most training interactions, and the others. "item age", since an item's first training interaction, needs
    the times of a clock."""
    beyond_accuracy: bool = False
    """Also report what the recommended lists are like: coverage, popularity, novelty, diversity, serendipity."""
    category_col: str | None = None
    """Column of the items with their categories, such as genres: for the diversity of categories in a list, and how
    far it is from those of the history."""
    category_separator: str = Field(default=",", min_length=1)
    """Separator between two categories of one item."""
    sampled_candidates: int | None = Field(default=None, ge=1)
    """Also rank each target among so many random items, as some papers do, and report that as sampled_recall@10/100
    and the like. Such numbers may order models differently from the full ranking. None: the full ranking only."""
    ranking_negatives: int = Field(default=100, ge=1)
    """For models that rank, without model.ranking.targets: items that each target is scored against, drawn evenly from
    those that the user never met. Validations use them too."""
    bootstrap_samples: int = Field(default=1000, ge=1)
    """Resamples of the users behind each interval."""
    seed: int = 0
    """Seed of the resampling."""

    effective_with = {  # noqa: RUF012
        "sampled_candidates": ("query_per", ("target",)),
        "category_col": ("beyond_accuracy", (True,)),
        "category_separator": ("category_col", ()),
    }


class Protocol(Config):
    """Facts of how numbers were made; printed and stored with them."""

    dataset: str
    """Fingerprint of ids, texts, order and times."""
    data_policy: dict[str, Any]
    """Policies for the tables: filters, duplicates, unknown items; empty if they are not known."""
    num_users: int
    num_items: int
    num_interactions: int
    split: str
    split_options: dict[str, Any]
    """Empty if they are not known; the fingerprint tells splits apart in any case."""
    split_fingerprint: str
    part: Literal["validation", "test"]
    num_targets: int
    """Rows behind each mean, unless a query is a user's."""
    num_users_with_target: int
    """Unit that intervals and tests resample: a user with all targets."""
    num_targets_seen: int
    """Targets that the history holds: with seen items removed they are misses for every model."""
    num_cold_targets: int
    num_withheld_items: int = 0
    """Items that the split hides from training altogether: neither targets nor negatives nor part of whitening."""
    categories: str | None = None
    """Fingerprint of the items' categories, which the data's leaves out; None if no metric reads them."""
    leak_share: float | None
    """Share of training interactions later than the median test target; None where the times are no clock."""
    query: str = "one for each target"
    ranked: str = "the full catalogue"
    seen_items: str = "removed (the user's whole history before the target)"
    ties: str = "shared: the expectation over random orders of equal scores"
    cold_targets: str = "counted among all items, and shown apart"
    history: str = "everything before the target; a trained model reads the latest model.max_history items of it"
    evaluation: EvaluationConfig
    metrics: dict[str, str] = DEFINITIONS
    interval: str = "95 %, percentile bootstrap over users"

    @property
    def unit(self) -> str:
        """Return what the means are over, with its number."""
        if self.evaluation.query_per == "target":
            return f"{self.num_targets:,} targets"
        return f"{self.num_users_with_target:,} users, who have {self.num_targets:,} targets,"

    def differences(self, other: "Protocol") -> list[tuple[str, Any, Any]]:
        """Return every field that differs, dotted where it is inside another, with our value and theirs.

        Options that led to the same data, or to the same split, are no difference.
        """
        ours, theirs = (dict(_flat(protocol.model_dump(mode="json"))) for protocol in (self, other))
        same = [f"{options}." for options, result in _MADE_BY.items() if ours[result] == theirs[result]]
        return [
            (field, ours.get(field), theirs.get(field))
            for field in {**ours, **theirs}
            if ours.get(field) != theirs.get(field) and not any(field.startswith(prefix) for prefix in same)
        ]

    def lines(self) -> list[str]:
        """Return the protocol as short lines for people."""
        policy, options = _listed(self.data_policy), _listed(self.split_options)
        withheld = self.num_withheld_items
        return [
            f"data {self.dataset[:12]}: {self.num_users:,} users, {self.num_items:,} items, "
            f"{self.num_interactions:,} interactions" + (f"; {policy}" if policy else ""),
            f"split {self.split}{f' ({options})' if options else ''} {self.split_fingerprint[:12]}, {self.part} part: "
            f"{self.num_targets:,} targets of {self.num_users_with_target:,} users; {self.num_targets_seen} of them "
            f"seen before; cold: {self.num_cold_targets} with <= {self.evaluation.cold_at_most} training interactions, "
            f"{self.cold_targets}",
            f"leak: {self._leak()}" + (f"; training does not see {withheld:,} items at all" if withheld else ""),
            f"ranked: {self.ranked} ({self.num_items:,} items); seen items: {self.seen_items}; ties: {self.ties}",
            *([] if self.evaluation.query_per == "target" else [f"query: {self.query}"]),
            f"history: {self.history}",
            f"intervals: {self.interval}, {self.evaluation.bootstrap_samples} samples, seed {self.evaluation.seed}",
            "metrics: " + "; ".join(f"{name}@k: {meaning}" for name, meaning in self.metrics.items()),
        ]

    def _leak(self) -> str:
        if self.leak_share is None:
            return "unknown, because the interactions' times only order them"
        advice = "" if self.leak_share == 0 or self.split != "leave-one-out" else (
            '; models learn from the future, and their order may change under split.kind = "temporal"'
        )  # fmt: skip
        return f"{self.leak_share:.1%} of training interactions are later than the median test target{advice}"


def rules_of(config: EvaluationConfig) -> dict[str, Any]:
    """Return the fields of a protocol that follow from how queries are made and what is ranked for them."""
    rules: dict[str, Any] = {}
    if config.query_per == "user":
        rules |= {
            "query": "one for each user, with all the user's targets of the part, each item once; means are over users",
            "history": "everything before the user's first target; a trained model reads the latest model.max_history "
            "items of it",
            "metrics": DEFINITIONS_OF_SEVERAL,
        }
    if config.seen == "kept":
        rules["seen_items"] = "kept (an item of the history may be recommended again)"
    elif config.query_per == "user":
        rules["seen_items"] = "removed (the user's whole history before the first target)"
    return rules


def require_query_per_target(config: EvaluationConfig, *, purpose: str) -> None:
    """Raise ConfigError if a query is a user's: `purpose` is what cannot be made of it."""
    if config.query_per != "target":
        raise ConfigError(
            f'{purpose} looks at each target by itself, and the run has evaluation.query_per = "{config.query_per}"; '
            'train or evaluate it with evaluation.query_per = "target"'
        )


_MADE_BY = {"data_policy": "dataset", "split_options": "split_fingerprint"}


def describe_differences(differences: list[tuple[str, Any, Any]]) -> str:
    """Return "field (ours and theirs), …" for a message; fingerprints are shortened."""
    return ", ".join(f"{field} ({_short(ours)} and {_short(theirs)})" for field, ours, theirs in differences)


def different_protocols(first: str, other: str, differences: str, *, advice: str = "") -> ConfigError:
    """Return the error that results of two names cannot be compared; `differences` are as described above."""
    return ConfigError(
        f"{first} and {other} were made under different protocols: {differences}; their numbers cannot stand in one "
        f"table{advice}"
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in _flat(options) if value is not None and value != [])


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)
