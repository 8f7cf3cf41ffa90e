from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import TypeAdapter

from hllm.batches.batch import pad, text_batch
from hllm.batches.loader import BatchContents, TrainingLoader
from hllm.batches.negatives import ItemWindows, NegativeSampler, NegativesConfig
from hllm.batches.windows import WindowConfig
from hllm.data.build import build_dataset
from hllm.data.cuts.column import ColumnSplit
from hllm.data.cuts.held_out_items import ItemSplit
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.cuts.temporal import TemporalSplit
from hllm.data.schema import DataConfig
from hllm.data.split import SplitConfig, split_dataset
from tests.conftest import batch_of


def loader(dataset, **changed) -> TrainingLoader:
    order = {name: changed.pop(name, default) for name, default in (("seed", 1), ("stage", 0))}
    given = {"windows": WindowConfig(max_history=4), "batch_size": 5, "negatives": NegativesConfig(num_sampled=3)}
    contents = BatchContents(**(given | changed))
    return TrainingLoader(dataset, split_dataset(dataset, LeaveOneOutSplit()), None, contents, **order)


def test_a_batch_holds_each_item_once_and_its_rows_point_to_the_right_items(dataset):
    windows = [np.array([5, 3, 5, 9]), np.array([3, 7])]
    batch = batch_of(windows, shared=[0, 7, 20])
    index = batch.items.index
    assert index.tolist() == [0, 3, 5, 7, 9, 20]
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]
    assert index[batch.history][batch.mask].tolist() == [5, 3, 5, 3]
    assert index[batch.targets][batch.mask].tolist() == [3, 5, 9, 7]
    assert index[batch.negatives].tolist() == [0, 7, 20]


def test_the_order_is_a_function_of_seed_stage_epoch_and_step(dataset):
    def fingerprints(batches):
        return [(b.items.index.tolist(), b.history.tolist()) for (b,) in batches]

    first = fingerprints(loader(dataset).steps(epoch=1))
    assert fingerprints(loader(dataset).steps(epoch=1)) == first
    for other in (
        loader(dataset).steps(epoch=2),
        loader(dataset, seed=2).steps(1),
        loader(dataset, stage=1).steps(1),
    ):
        assert fingerprints(other) != first


def test_a_batch_knows_whose_windows_it_holds(dataset):
    seen = set()
    for (batch,) in loader(dataset).steps(0):
        index = batch.items.index
        for user, history, length in zip(batch.users.tolist(), batch.history, batch.lengths.tolist(), strict=True):
            whole = dataset.history(user).tolist()
            window = index[history[:length]].tolist()
            assert window in [whole[start : start + length] for start in range(len(whole))]
            seen.add(user)
    assert seen == set(range(dataset.num_users))
    (batch,) = next(loader(dataset).steps(0))
    assert torch.equal(batch[1:3].users, batch.users[1:3])


def test_an_epoch_visits_every_window_once(dataset):
    batches = list(loader(dataset).steps(0))
    assert len(batches) == loader(dataset).steps_per_epoch
    assert sum(len(b.history) for (b,) in batches) == loader(dataset).num_windows


SPLITS = [
    {},
    *({"kind": "temporal", "targets": targets} for targets in ("last", "first", "all", "random")),
    *({"kind": "temporal", "validation": validation} for validation in ("last-training-item", "users")),
    *({"kind": "ratio", "targets": targets} for targets in ("last", "all")),
    {"kind": "users", "validation_share": 0.2},
    *({"kind": "items", "targets": targets} for targets in ("last", "all")),
    {"kind": "column"},
]


@pytest.mark.parametrize("options", SPLITS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("kind", ["all-targets", "latest", "blocks", "strides"])
def test_no_batch_holds_an_interaction_that_is_not_for_training(options, kind):
    """Every interaction is with an item of its own, so that each item of a batch tells where it came from."""
    log = pl.DataFrame(
        [
            {
                "user_id": u,
                "item_id": f"{u} {t}",
                "timestamp": 7 * t + u,
                "part": ["train", "valid", "test"][(u + t) % 3],
            }
            for u in range(12)
            for t in range(5 + u)
        ]
    )
    dataset = build_dataset(log, log.select("item_id", title="item_id"), DataConfig(split_col="part"))
    split = split_dataset(dataset, TypeAdapter(SplitConfig).validate_python(options))
    batches = TrainingLoader(
        dataset, split, None,
        BatchContents(WindowConfig(4, kind), batch_size=5, negatives=NegativesConfig(kind="in-batch")), seed=1, stage=0,
    )  # fmt: skip
    found = {int(item) for step in batches.steps(0) for batch in step for item in batch.items.index}
    users, items = split.training_log(dataset)
    assert found <= set(items.tolist())
    if kind in ("all-targets", "strides"):
        assert found == set(items[np.bincount(users, minlength=12)[users] > 1].tolist()), "and all of those are there"


def test_what_stands_on_both_sides_of_a_held_out_item_are_neighbours():
    parts = ["", "valid", "train", "test", "test", "", "train", ""]
    log = pl.DataFrame({"user_id": ["u"] * 8, "item_id": list("abcdefgh"), "timestamp": range(8), "part": parts})
    dataset = build_dataset(log, log.select("item_id", title="item_id"), DataConfig(split_col="part"))
    split = split_dataset(dataset, ColumnSplit())
    batches = TrainingLoader(
        dataset, split, None,
        BatchContents(WindowConfig(4), batch_size=5, negatives=NegativesConfig(kind="in-batch")), seed=1, stage=0,
    )  # fmt: skip
    ((batch,),) = batches.steps(0)
    index = batch.items.index
    assert (index[batch.history].tolist(), index[batch.targets].tolist()) == ([[2]], [[6]])
    assert batch.times.tolist() == [[2]]


def test_targets_weigh_one_unless_they_have_weights(dataset):
    (batch,) = next(loader(dataset).steps(0))
    assert (batch.query_weights, batch.target_weight) == (None, batch.num_targets)
    weights = torch.arange(batch.mask.numel()).reshape(batch.mask.shape).float()
    weighted = replace(batch, weights=weights)
    assert torch.equal(weighted.query_weights, weights[batch.mask])
    parts = [weighted[:2], weighted[2:]]
    assert sum(part.target_weight for part in parts) == weighted.target_weight == float(weights[batch.mask].sum())


def test_steps_can_begin_anywhere_in_an_epoch(dataset):
    whole, tail = (list(loader(dataset).steps(1, start)) for start in (0, 2))
    assert len(tail) == len(whole) - 2
    for (ours,), (theirs,) in zip(tail, whole[2:], strict=True):
        assert torch.equal(ours.history, theirs.history)
        assert torch.equal(ours.items.index, theirs.items.index)


def test_micro_batches_share_out_a_steps_windows(dataset):
    whole, shared = (list(loader(dataset, micro_batch_size=size).steps(0)) for size in (None, 2))
    assert [len(b.history) for b in shared[0]] == [2, 2, 1]
    for (one,), parts in zip(whole, shared, strict=True):
        theirs = torch.cat([part.items.index[part.targets][part.mask] for part in parts])
        assert torch.equal(one.items.index[one.targets][one.mask], theirs)


def test_part_of_a_batch_keeps_each_sequence_its_own(dataset):
    (batch,) = next(
        loader(dataset, negatives=NegativesConfig(kind="sampled", num_sampled=3, per_position=True)).steps(0)
    )
    part = batch[2:4]
    before, inside = int(batch.mask[:2].sum()), int(batch.mask[2:4].sum())
    assert torch.equal(part.history, batch.history[2:4])
    assert torch.equal(part.own_negatives, batch.own_negatives[before : before + inside])
    assert batch.own_negatives.shape == (batch.num_targets, 3)


def draw(config, windows, rng, counts=None, batch_size=1):
    counts = np.ones(10, dtype=np.int64) if counts is None else counts
    odds = ItemWindows(np.ones(10, dtype=np.int64), 10)
    return NegativeSampler(config, counts, batch_size, item_windows=odds).draw([np.array(w) for w in windows], rng)


@pytest.mark.parametrize(("kind", "expected"), [("catalogue", set(range(10))), ("in-batch", {2, 4})])
def test_negatives_that_need_no_draw(kind, expected, rng):
    assert draw(NegativesConfig(kind=kind), [[4, 2, 4]], rng).shared.tolist() == sorted(expected)


def test_sampled_negatives_are_distinct_and_uniform(rng):
    config = NegativesConfig(kind="sampled", num_sampled=4)
    draws = [draw(config, [[0]], rng).shared for _ in range(2000)]
    assert all(len(set(d.tolist())) == 4 for d in draws)
    counts = np.bincount(np.concatenate(draws), minlength=10)
    assert np.abs(counts - 800).max() < 5 * np.sqrt(800 * 0.6), "five standard deviations"
    assert {0, 1} <= set(draw(NegativesConfig(num_sampled=4), [[0, 1]], rng).shared.tolist())
    assert len(draw(NegativesConfig(num_sampled=99), [[0]], rng).shared) == 10


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (NegativesConfig(kind="sampled", num_sampled=4), [[0]]),
        (NegativesConfig(kind="sampled", num_sampled=4, popularity_power=0.5), [[0]]),
        (NegativesConfig(kind="sampled", num_sampled=4, per_position=True, popularity_power=1.0), [[0, 1]]),
        (NegativesConfig(kind="pooled", num_sampled=6, exclude_own=False), [[0], [1]]),
        (NegativesConfig(kind="pooled", num_sampled=6), [[0, 1, 2], [2, 2, 3, 4, 5]]),
        (NegativesConfig(kind="pooled", num_sampled=6), [[0, 1, 2], list(range(10))]),
    ],
)
def test_expected_counts_are_how_often_items_are_drawn(config, windows, rng):
    counts = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 55])
    seen, expected = np.zeros(10), None
    for _ in range(3000):
        drawn = draw(config, windows, rng, counts, batch_size=2)
        seen += np.bincount(drawn.shared if drawn.per_position is None else drawn.per_position.ravel(), minlength=10)
        expected = drawn.counts
    assert np.abs(seen / 3000 - expected).max() < 0.1
    if config.popularity_power == 1.0:
        assert seen[9] / seen.sum() == pytest.approx(0.55, abs=0.03), "as often as in the data"


def test_pooled_negatives_are_each_windows_share_without_its_own_items(rng):
    config = NegativesConfig(kind="pooled", num_sampled=400)
    pool = draw(config, [[0, 1, 2], [3, 4]], rng, batch_size=2).shared
    assert len(pool) == 400
    assert set(pool[:200]) == set(range(3, 10))
    assert set(pool[200:]) == {0, 1, 2, 5, 6, 7, 8, 9}


def test_negatives_that_contradict_each_other_are_refused():
    with pytest.raises(
        ValueError, match='per_position = true has no effect beside kind = "mixed"; it is for kind = "sampled"'
    ):
        NegativesConfig(kind="mixed", per_position=True)
    with pytest.raises(ValueError, match=r'popularity_power = 0\.5 has no effect beside kind = "pooled"'):
        NegativesConfig(kind="pooled", popularity_power=0.5)


def test_padding_is_on_the_right():
    padded, mask = pad([np.array([1, 2]), np.array([], dtype=np.int64), np.array([3])])
    assert padded.tolist() == [[1, 2], [0, 0], [3, 0]]
    assert mask.tolist() == [[True, True], [False, False], [True, False]]


def test_items_known_only_by_text_have_no_index():
    batch = text_batch([[5, 6], [7]])
    assert torch.equal(batch.index, torch.tensor([-1, -1]))
    assert batch.tokens.tolist() == [5, 6, 7]
    assert batch.lengths.tolist() == [2, 1]


@pytest.mark.parametrize(
    "negatives",
    [
        {"kind": "catalogue"},
        {"kind": "sampled", "num_sampled": 99},
        {"kind": "sampled", "num_sampled": 40, "per_position": True},
        {"kind": "mixed", "num_sampled": 99},
        {"kind": "mixed", "num_sampled": 20, "popularity_power": 0.5},
        {"kind": "pooled", "num_sampled": 60},
    ],
    ids=lambda values: "-".join(map(str, values.values())),
)
def test_a_held_out_item_is_in_no_batch_not_even_as_a_negative(dataset, negatives):
    """Items that nobody has used are no secret: they stay among the negatives."""
    split = split_dataset(dataset, ItemSplit(validation_share=0.2, test_share=0.2))
    used = set(dataset.item_index.tolist())
    hidden = used - set(dataset.item_index[split.training].tolist())
    assert len(hidden) == 10, "0.4 of 25 items"
    batches = TrainingLoader(
        dataset, split, None,
        BatchContents(WindowConfig(4), batch_size=5, negatives=NegativesConfig(**negatives)), seed=1, stage=0,
    )  # fmt: skip
    found = {int(item) for step in batches.steps(0) for batch in step for item in batch.items.index}
    assert not found & hidden
    if negatives["kind"] == "catalogue":
        assert found == set(range(30)) - hidden


@pytest.mark.parametrize("kind", ["catalogue", "sampled", "mixed", "pooled"])
def test_an_item_from_after_the_cut_is_in_no_batch_unless_it_is_kept(kind):
    """Item t is met at time t alone, by three users; 10 and 11 are never met. Training ends before 6."""
    log = pl.DataFrame([(f"u{u}", t, t) for u in range(3) for t in range(10)], orient="row",
                       schema=["user_id", "item_id", "timestamp"])  # fmt: skip
    dataset = build_dataset(log, pl.DataFrame({"item_id": range(12), "title": map(str, range(12))}), DataConfig())
    for later_items, expected in (("withheld", {*range(6), 10, 11}), ("kept", set(range(12)))):
        split = split_dataset(dataset, TemporalSplit(validation_from=6, test_from=8, later_items=later_items))
        batches = TrainingLoader(
            dataset, split, None,
            BatchContents(WindowConfig(4), batch_size=5, negatives=NegativesConfig(kind=kind)), seed=1,
            stage=0,
        )  # fmt: skip
        found = {int(item) for step in batches.steps(0) for batch in step for item in batch.items.index}
        assert found == expected


def test_expected_counts_without_withheld_items_are_how_often_items_are_drawn(rng):
    withheld = np.arange(10) % 3 == 0
    for config in (
        NegativesConfig(kind="sampled", num_sampled=4),
        NegativesConfig(kind="sampled", num_sampled=4, popularity_power=0.5),
        NegativesConfig(kind="pooled", num_sampled=6, exclude_own=False),
    ):
        seen = np.zeros(10)
        sampler = NegativeSampler(config, np.arange(1, 11), 2, withheld=withheld)
        for _ in range(2000):
            drawn = sampler.draw([np.array([1]), np.array([2])], rng)
            seen += np.bincount(drawn.shared, minlength=10)
        assert not seen[withheld].any()
        assert np.abs(seen / 2000 - drawn.counts).max() < 0.1
