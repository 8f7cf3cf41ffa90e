import numpy as np
import pytest

from hllm.batches.item_plan import chunks, plan_items, unpadded_chunks


def test_a_plan_worked_by_hand():
    plan = plan_items(np.array([3, 9, 1, 5, 2]), num_shards=2)
    assert plan.order.tolist() == [1, 3, 0, 4, 2]
    assert plan.lengths.tolist() == [9, 5, 3, 2, 1]
    # 20 tokens: 9 | 5 + 3 + 2 + 1.
    assert [plan.shard(0).tolist(), plan.shard(1).tolist()] == [[1], [3, 0, 4, 2]]
    assert plan.shard_sizes == [1, 4]
    assert plan.order[plan.inverse].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("num_shards", [1, 2, 3, 8])
def test_every_item_is_in_one_shard(rng, num_shards):
    lengths = rng.integers(0, 50, size=101)
    plan = plan_items(lengths, num_shards=num_shards)
    assert sorted(np.concatenate([plan.shard(number) for number in range(num_shards)])) == list(range(101))
    tokens = [lengths[plan.shard(number)].sum() for number in range(num_shards)]
    assert max(tokens) - sum(tokens) / num_shards <= 50


def test_eight_ranks_share_the_tokens_of_books_like_batches_within_2_percent(rng):
    """Without the plan the busiest rank has 1.32 to 2.49 times the mean (docs/performance.md)."""
    for _ in range(20):
        lengths = np.clip(rng.lognormal(4.7, 0.6, size=9_000), 8, 257).astype(np.int64)
        plan = plan_items(lengths, num_shards=8)
        tokens = [lengths[plan.shard(number)].sum() for number in range(8)]
        assert max(tokens) / np.mean(tokens) <= 1.02


def test_items_without_tokens_are_shared_by_number_and_few_items_leave_shards_empty():
    assert plan_items(np.zeros(10, dtype=np.int64), num_shards=5).shard_sizes == [2] * 5
    assert sum(plan_items(np.array([4, 4]), num_shards=5).shard_sizes) == 2
    assert plan_items(np.zeros(0, dtype=np.int64), num_shards=3).shard_sizes == [0, 0, 0]


def test_a_chunk_padded_to_its_longest_stays_within_the_budget_or_is_one_item():
    lengths = np.array([40, 10, 10, 5, 5, 5, 5, 5])
    assert chunks(lengths, max_tokens=30) == [slice(0, 1), slice(1, 4), slice(4, 8)]
    assert chunks(lengths[:0], max_tokens=30) == []


def test_chunks_without_padding_are_cut_by_the_sum():
    """40 is too long for any; 9 + 8 + 3 is exactly 20; a chunk's end need not be full."""
    lengths = np.array([40, 9, 8, 3, 3, 2])
    assert unpadded_chunks(lengths, max_tokens=20) == [slice(0, 1), slice(1, 4), slice(4, 6)]
    assert unpadded_chunks(lengths[:0], max_tokens=20) == []
