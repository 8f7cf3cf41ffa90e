import math

import pytest
import torch

from hllm.training.spread import effective_rank, mean_cosine


def test_mean_cosine_against_all_pairs(rng):
    vectors = torch.from_numpy(rng.normal(size=(7, 5))).float()
    pairs = [torch.cosine_similarity(vectors[i], vectors[j], dim=0) for i in range(7) for j in range(7) if i != j]
    assert mean_cosine(vectors).item() == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-6)
    assert mean_cosine(torch.ones(4, 3)).item() == pytest.approx(1.0)
    assert mean_cosine(torch.ones(1, 3)).item() == 0


@pytest.mark.parametrize(("rows", "dim"), [(4, 9), (4, 4)])
def test_the_effective_rank_of_orthogonal_rows_is_their_number(rows, dim):
    lengths = torch.arange(1.0, rows + 1)[:, None]  # must not matter
    assert effective_rank(lengths * torch.eye(rows, dim)).item() == pytest.approx(rows, rel=1e-6)


@pytest.mark.parametrize("rows", [1, 5, 500])
def test_the_effective_rank_of_parallel_rows_is_one(rows):
    assert effective_rank(torch.randn(16).expand(rows, -1) * -3).item() == pytest.approx(1, rel=1e-5)


def test_the_effective_rank_against_a_hand_worked_value():
    """Unit rows at 0°, 0°, 90°: singular values √2 and 1, shares √2/(1 + √2) and 1/(1 + √2)."""
    shares = [math.sqrt(2) / (1 + math.sqrt(2)), 1 / (1 + math.sqrt(2))]
    rank = math.exp(-sum(share * math.log(share) for share in shares))
    assert effective_rank(torch.tensor([[2.0, 0, 0], [1, 0, 0], [0, 5, 0]])).item() == pytest.approx(rank, rel=1e-6)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
def test_the_effective_rank_against_a_singular_value_decomposition(shape, rng):
    vectors = torch.from_numpy(rng.normal(size=shape))
    values = torch.linalg.svdvals(vectors / vectors.norm(dim=-1, keepdim=True))
    shares = values / values.sum()
    assert effective_rank(vectors.float()).item() == pytest.approx(
        (-shares * shares.log()).sum().exp().item(), rel=1e-5
    )


def test_the_effective_rank_of_nothing_is_zero():
    assert effective_rank(torch.zeros(3, 4)).item() == 0
    assert effective_rank(torch.zeros(0, 4)).item() == 0
