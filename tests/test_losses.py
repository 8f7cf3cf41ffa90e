import math

import pytest
import torch

from hllm.losses import info_nce, mean_cosine


def unit(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def test_info_nce_against_a_hand_worked_value():
    """One query at 0°, its positive at 60°, negatives at 90° and 180°; scale 2.

    Logits are 2 · (cos 60°, cos 90°, cos 180°) = (1, 0, -2), so the loss is ln(e¹ + e⁰ + e⁻²) - 1.
    """
    result = info_nce(
        torch.tensor([unit(0)]) * 5,  # lengths do not matter
        torch.tensor([unit(60)]) * 0.1,
        torch.tensor([unit(90), unit(180)]),
        positive_ids=torch.tensor([0]),
        negative_ids=torch.tensor([1, 2]),
        scale=2.0,
    )
    assert result.loss.item() == pytest.approx(math.log(math.e + 1 + math.exp(-2)) - 1, abs=1e-6)
    assert result.masked.item() == 0
    assert result.top1.item() == 1


def test_a_negative_that_is_the_positive_item_leaves_the_softmax():
    """Two queries share the negatives 0, 1, 2; each query's own positive among them is left out by id.

    Query A (0°, positive 0 at 0°) keeps 1 (90°) and 2 (180°): ln(e + 1 + e⁻¹) - 1.
    Query B (90°, positive 1 at 90°) keeps 0 (0°) and 2 (180°): ln(e + 1 + 1) - 1.
    """
    items = torch.tensor([unit(0), unit(90), unit(180)])
    result = info_nce(
        items[:2], items[:2], items, positive_ids=torch.tensor([0, 1]), negative_ids=torch.arange(3), scale=1.0
    )
    a = math.log(math.e + 1 + math.exp(-1)) - 1
    b = math.log(math.e + 1 + 1) - 1
    assert result.loss.item() == pytest.approx((a + b) / 2, abs=1e-6)
    assert result.masked.item() == pytest.approx(1 / 3)


def test_items_that_look_alike_but_have_other_ids_stay_negatives():
    """The reference drops negatives whose cosine with the target is above 0.99; we drop by id only."""
    same = torch.tensor([unit(30)])
    result = info_nce(
        same, same, same.repeat(3, 1), positive_ids=torch.tensor([0]), negative_ids=torch.tensor([1, 2, 3]), scale=9.0
    )
    assert result.loss.item() == pytest.approx(math.log(4), abs=1e-5)


def test_without_any_negative_left_the_loss_is_zero_and_so_is_its_gradient():
    user = torch.tensor([unit(10)], requires_grad=True)
    result = info_nce(
        user, torch.tensor([unit(0)]), torch.tensor([unit(0)]),
        positive_ids=torch.tensor([7]), negative_ids=torch.tensor([7]), scale=3.0,
    )  # fmt: skip
    result.loss.backward()
    assert result.loss.item() == 0
    assert torch.equal(user.grad, torch.zeros_like(user))


def test_logits_are_fp32_even_under_autocast():
    """In bf16 the cosines 1 and 0.999 are one number, and the loss would be ln 2 = .693.

    Autocast casts the inputs of a product whatever their type, so the loss has to switch it off: it once did not.
    """
    close = torch.tensor([[0.999, math.sqrt(1 - 0.999**2)]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = info_nce(
            torch.tensor([unit(0)]), torch.tensor([unit(0)]), close,
            positive_ids=torch.tensor([0]), negative_ids=torch.tensor([1]), scale=100.0,
        )  # fmt: skip
    assert result.loss.dtype == torch.float32
    assert result.loss.item() == pytest.approx(math.log(1 + math.exp(-0.1)), abs=1e-4)


def test_mean_cosine_against_all_pairs(rng):
    vectors = torch.from_numpy(rng.normal(size=(7, 5))).float()
    pairs = [torch.cosine_similarity(vectors[i], vectors[j], dim=0) for i in range(7) for j in range(7) if i != j]
    assert mean_cosine(vectors).item() == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-6)
    assert mean_cosine(torch.ones(4, 3)).item() == pytest.approx(1.0)
    assert mean_cosine(torch.ones(1, 3)).item() == 0
