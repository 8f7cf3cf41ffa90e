import numpy as np
import torch

from hllm.retrieval.top_k import TopK


def kept(scores: torch.Tensor, k: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    best = TopK(len(scores), k, scores.device)
    for first in range(0, scores.shape[1], width):
        best.add(first, scores[:, first : first + width])
    return best.best()


def test_against_a_plain_sort_where_most_scores_are_equal(rng):
    scores = torch.from_numpy(rng.integers(-3, 4, size=(9, 200)).astype(np.float32)) / 3
    items, found = kept(scores, 30, 64)
    for row, own in enumerate(scores.tolist()):
        expected = sorted(range(200), key=lambda item: (-own[item], item))[:30]
        assert items[row].tolist() == expected
        assert found[row].tolist() == [own[item] for item in expected]


def test_scores_of_every_size_keep_their_order_and_their_bits(rng):
    values = np.concatenate([10.0 ** np.arange(-44, 38), -(10.0 ** np.arange(-44, 38)), [0.0, -1.5]])
    scores = torch.from_numpy(rng.permutation(values).astype(np.float32))[None]
    items, found = kept(scores, scores.shape[1], 50)
    assert found[0].tolist() == sorted(scores[0].tolist(), reverse=True)
    assert scores[0, torch.from_numpy(items[0])].tolist() == found[0].tolist()


def test_both_zeros_are_one_score():
    items, _ = kept(torch.tensor([[-0.0, 0.0, -0.0, 1.0]]), 4, 4)
    assert items.tolist() == [[3, 0, 1, 2]]


def test_what_is_left_out_and_what_is_not_there_have_no_item():
    items, scores = kept(torch.tensor([[-torch.inf, 2.0, -torch.inf], [1.0, 1.0, 3.0]]), 4, 2)
    assert items.tolist() == [[1, -1, -1, -1], [2, 0, 1, -1]]
    assert scores.tolist() == [[2.0, -np.inf, -np.inf, -np.inf], [3.0, 1.0, 1.0, -np.inf]]


def test_items_beyond_31_bits_are_told_apart():
    best = TopK(1, 2, torch.device("cpu"))
    best.add(3_000_000_000, torch.tensor([[1.0, 1.0, 1.0]]))
    assert best.best()[0].tolist() == [[3_000_000_000, 3_000_000_001]]
