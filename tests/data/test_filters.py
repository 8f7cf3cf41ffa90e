import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hllm.data.build import build_dataset
from hllm.data.filters import filter_interactions
from hllm.data.schema import DataConfig
from hllm.errors import DataError

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40)


def slow_core(pairs: list, min_user: int, min_item: int) -> list:
    """Take away one row at a time until none has to go."""
    left = list(enumerate(pairs))
    while True:
        users, items = [u for _, (u, _) in left], [i for _, (_, i) in left]
        bad = next((e for e in left if users.count(e[1][0]) < min_user or items.count(e[1][1]) < min_item), None)
        if bad is None:
            return [row for row, _ in left]
        left.remove(bad)


def kept_rows(pairs: list, kind: str, min_user: int, min_item: int) -> list:
    user, item = np.array(pairs).T
    kept, _, _ = filter_interactions(user, item, kind=kind, min_user=min_user, min_item=min_item, num_items=6)
    return np.flatnonzero(kept).tolist()


@given(PAIRS, st.integers(0, 4), st.integers(0, 4))
def test_k_core_against_taking_away_one_row_at_a_time(pairs, min_user, min_item):
    assert kept_rows(pairs, "k-core", min_user, min_item) == slow_core(pairs, min_user, min_item)


@given(PAIRS, st.integers(0, 4))
def test_one_pass_is_what_the_reference_does_for_books(pairs, least):
    """Both counts on the raw rows, then users with too few rows left."""
    users, items = [u for u, _ in pairs], [i for _, i in pairs]
    left = [(n, u) for n, (u, i) in enumerate(pairs) if users.count(u) >= least and items.count(i) >= least]
    rest = [u for _, u in left]
    assert kept_rows(pairs, "one-pass", least, least) == [n for n, u in left if rest.count(u) >= least]


LOG = pl.DataFrame(
    # "c" has one interaction; without it "v" has one; without that "b" has one.
    [("u", "a", 1), ("u", "a", 2), ("v", "b", 3), ("v", "c", 4), ("u", "b", 5)],
    schema=["user_id", "item_id", "timestamp"], orient="row",
)  # fmt: skip
ITEMS = pl.DataFrame({"item_id": ["c", "b", "never", "a"], "title": ["C", "B", "N", "A"]})


@pytest.mark.parametrize(("kind", "items", "rows", "rounds"), [("k-core", ["a"], 2, 3), ("one-pass", ["b", "a"], 3, 1)])
def test_bounds_apply_to_the_catalogue_too(kind, items, rows, rounds):
    config = DataConfig(filter=kind, min_user_interactions=2, min_item_interactions=2)
    dataset = build_dataset(LOG, ITEMS, config)
    assert dataset.item_ids.to_list() == items
    assert dataset.users.to_list() == ["u"]
    assert dataset.preparation["steps"][-1] == {
        "step": kind, "rows": rows, "users": 1, "items": len(items), "min_user": 2, "min_item": 2, "rounds": rounds,
    }  # fmt: skip
    assert [dataset.item_ids[int(row)] for row in dataset.history(0)] == ["a", "a", "b"][:rows]


def test_a_bound_on_users_alone_leaves_the_catalogue():
    dataset = build_dataset(LOG, ITEMS, DataConfig(min_user_interactions=3))
    assert dataset.item_ids.to_list() == ["c", "b", "never", "a"]


def test_bounds_that_leave_nothing_are_an_error():
    with pytest.raises(
        DataError,
        match=r'none of the 5 interactions of 2 users with 3 items is left by data.filter = "k-core"; lower '
        r"data.min_user_interactions, now 4, or data.min_item_interactions, now 2",
    ):
        build_dataset(LOG, ITEMS, DataConfig(min_user_interactions=4, min_item_interactions=2))
