import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hllm.errors import ConfigError
from hllm.losses.contrastive import Contrast, LossConfig, Odds, contrast, gbce_exponent, info_nce

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
NUM_ITEMS = 40
SHARED, OWN = "negatives shared by all queries", "negatives of each query's own"
KINDS = ("info-nce", "bce", "gbce")


def unit(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def world(layout, queries=7, items=12, k=5, dim=6, dtype=torch.float32, seed=0):
    """Random embeddings with leaves for gradients; items 0 and 1 look alike, and targets recur as negatives."""
    draw = torch.Generator().manual_seed(seed)
    vectors = torch.randn(items, dim, generator=draw, dtype=torch.float64)
    vectors[1] = 2 * vectors[0] + 0.01 * vectors[2]
    user = torch.randn(queries, dim, generator=draw, dtype=torch.float64)
    targets = torch.randint(items, (queries,), generator=draw)
    targets[: queries // 2] = torch.arange(queries // 2) % 2
    negatives = torch.randint(items, (queries, k) if layout == OWN else (k,), generator=draw)
    negatives[..., 0] = 0
    log_q = torch.randn(items, generator=draw, dtype=torch.float64)
    leaves = [x.to(dtype).requires_grad_() for x in (user, vectors, torch.tensor(math.log(5.0)))]
    return leaves, targets, negatives, log_q.to(dtype)


def plain(config, user, positive, items, negatives, *, positive_ids, scale, similarity, log_q):
    """Every logit at once, in the inputs' precision, with autograd; returns each query's loss, mask and ranks."""
    if negatives.ndim == 1:
        negatives = negatives.expand(len(user), -1)
    candidates = items[negatives]
    cosine = torch.cosine_similarity(positive[:, None], candidates, dim=-1)
    masked = positive_ids[:, None] == negatives if config.mask == "id" else cosine > config.cosine_threshold
    if similarity == "cosine":
        user, positive, candidates = (x / x.norm(dim=-1, keepdim=True) for x in (user, positive, candidates))
    positive_logit = scale * (user * positive).sum(-1, keepdim=True)
    logits = scale * torch.einsum("qd,qkd->qk", user, candidates)
    top1 = (positive_logit >= logits.masked_fill(masked, -torch.inf)).all(-1)
    if config.kind == "info-nce":
        logits = logits - log_q[negatives] if config.log_q else logits
        both = torch.cat([positive_logit, logits.masked_fill(masked, -1e30)], dim=-1)
        return F.cross_entropy(both, torch.zeros(len(user), dtype=torch.long), reduction="none"), masked, top1
    rate = negatives.shape[1] / (NUM_ITEMS - 1)
    beta = 1.0 if config.kind == "bce" else rate * (config.calibration * (1 - 1 / rate) + 1 / rate)
    terms = -F.logsigmoid(-logits).masked_fill(masked, 0)
    total = -beta * F.logsigmoid(positive_logit[:, 0]) + terms.sum(-1)
    return total / (1 + (~masked).sum(-1)), masked, top1


def gradients(loss, leaves):
    return torch.autograd.grad(loss, leaves)


CONFIGS = [LossConfig(kind=kind, mask=mask) for kind in KINDS for mask in ("id", "cosine")] + [LossConfig(log_q=True)]


@pytest.mark.parametrize("chunk_size", [1, 3, None])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("layout", [SHARED, OWN])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.kind}-{c.mask}{'-log_q' * c.log_q}")
def test_every_loss_equals_its_plain_version(config, layout, similarity, chunk_size):
    leaves, targets, negatives, log_q = world(layout)
    ids = {"positive_ids": targets, "similarity": similarity, "log_q": log_q}
    user, items, log_scale = leaves
    result = contrast(
        config, user, items[targets], items, negatives, scale=log_scale.exp(), num_items=NUM_ITEMS,
        chunk_size=chunk_size, **ids,
    )  # fmt: skip
    double = [x.detach().double().requires_grad_() for x in leaves]
    losses, masked, top1 = plain(
        config, double[0], double[1][targets], double[1], negatives, scale=double[2].exp(), **ids
    )
    assert masked.any(), "nothing is masked: the premise of the comparison"
    torch.testing.assert_close(result.loss.double(), losses.mean(), rtol=1e-6, atol=1e-6)
    assert result.masked.item() == pytest.approx(masked.double().mean().item())
    assert result.top1.item() == pytest.approx(top1.double().mean().item())
    expected = gradients(losses.mean(), double)
    for ours, theirs in zip(gradients(result.loss, leaves), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", [SHARED, OWN])
@pytest.mark.parametrize("config", [LossConfig(), LossConfig(kind="bce"), LossConfig(mask="cosine")])
def test_weights_multiply_the_queries_losses_and_the_mean_is_by_their_sum(config, layout):
    leaves, targets, negatives, log_q = world(layout)
    user, items, log_scale = leaves
    weights = torch.arange(len(targets)) / 4  # the first query counts nothing

    def weighted(weights, **options):
        scale = log_scale.exp()
        return contrast(
            config,
            user,
            items[targets],
            items,
            negatives,
            positive_ids=targets,
            scale=scale,
            weights=weights,
            **options,
        )

    result = weighted(weights, chunk_size=3)
    double = [x.detach().double().requires_grad_() for x in leaves]
    losses, _, _ = plain(
        config, double[0], double[1][targets], double[1], negatives, positive_ids=targets, scale=double[2].exp(),
        similarity="cosine", log_q=log_q,
    )  # fmt: skip
    mean = (weights * losses).sum() / weights.sum()
    assert result.loss.item() == pytest.approx(mean.item(), rel=1e-5)
    for ours, theirs in zip(gradients(result.loss, leaves), gradients(mean, double), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    ones, none = weighted(torch.ones(len(targets))), weighted(None)
    assert torch.equal(ones.loss, none.loss)
    for ours, theirs in zip(gradients(ones.loss, leaves), gradients(none.loss, leaves), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("layout", [SHARED, OWN])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_against_finite_differences_in_fp64(kind, layout):
    leaves, targets, negatives, _ = world(layout, dtype=torch.float64)

    def loss(user, items, log_scale):
        return contrast(
            LossConfig(kind=kind), user, items[targets], items, negatives, positive_ids=targets,
            scale=log_scale.exp(), num_items=NUM_ITEMS, chunk_size=3,
        ).loss  # fmt: skip

    assert loss(*leaves).dtype == torch.float64
    assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.parametrize("layout", [SHARED, OWN])
def test_no_more_than_a_chunk_of_logits_exists_at_any_time(layout):
    """The largest tensor made is counted. 64 queries, 2,048 items, 64 negatives of 16 numbers each for OWN."""
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.untyped_storage().nbytes() // 4)
            return out

    (user, items, log_scale), targets, negatives, _ = world(layout, queries=64, items=2048, k=64, dim=16)
    if layout == SHARED:
        negatives = torch.arange(2048)
    with Largest():
        result = contrast(
            LossConfig(),
            user,
            items[targets],
            items,
            negatives,
            positive_ids=targets,
            scale=log_scale.exp(),
            chunk_size=4,
        )
        result.loss.backward()
    inputs = 2048 * 16
    chunk = 4 * 2048 if layout == SHARED else 4 * 64 * 16
    assert largest <= max(inputs, chunk) < 64 * (2048 if layout == SHARED else 64 * 16)


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


def test_a_dot_product_is_scaled_but_not_normalised():
    """User (2, 0), positive (1, 0), negative (0.5, 9), scale 3: logits 6 and 3, so the loss is ln(1 + e⁻³)."""
    result = info_nce(
        torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 9.0]]),
        positive_ids=torch.tensor([0]), negative_ids=torch.tensor([1]), scale=3.0, similarity="dot",
    )  # fmt: skip
    assert result.loss.item() == pytest.approx(math.log(1 + math.exp(-3)), abs=1e-6)


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


@pytest.mark.parametrize(("mask", "loss"), [("id", math.log(4)), ("cosine", 0.0)])
def test_items_that_look_alike_stay_negatives_unless_masked_by_cosine(mask, loss):
    same = torch.tensor([unit(30)])
    result = info_nce(
        same, same, same.repeat(3, 1), positive_ids=torch.tensor([0]), negative_ids=torch.tensor([1, 2, 3]), scale=9.0,
        mask=mask,
    )  # fmt: skip
    assert result.loss.item() == pytest.approx(loss, abs=1e-5)
    assert result.masked.item() == (mask == "cosine")


def test_the_cosine_mask_ignores_lengths_and_ids():
    """Negatives at 5° (cosine .9962) and 10° (.9848) of the target, one long, one with the target's id."""
    result = info_nce(
        torch.tensor([unit(0)]), torch.tensor([unit(0)]), torch.tensor([unit(5), unit(10)]) * 50,
        positive_ids=torch.tensor([0]), negative_ids=torch.tensor([1, 0]), scale=0.01, similarity="dot", mask="cosine",
    )  # fmt: skip
    kept = math.exp(0.01 * 50 * math.cos(math.radians(10)))
    assert result.loss.item() == pytest.approx(math.log(math.exp(0.01) + kept) - 0.01, abs=1e-6)
    assert result.masked.item() == 0.5


def test_without_any_negative_left_the_loss_is_zero_and_so_is_its_gradient():
    user = torch.tensor([unit(10)], requires_grad=True)
    result = info_nce(
        user, torch.tensor([unit(0)]), torch.tensor([unit(0)]),
        positive_ids=torch.tensor([7]), negative_ids=torch.tensor([7]), scale=3.0,
    )  # fmt: skip
    result.loss.backward()
    assert result.loss.item() == 0
    assert torch.equal(user.grad, torch.zeros_like(user))
    assert result.masked.item() == 1
    assert result.top1.item() == 1


@pytest.mark.parametrize("layout", [SHARED, OWN])
@pytest.mark.parametrize("kind", KINDS)
def test_without_queries_loss_and_gradients_are_zero(kind, layout):
    leaves, targets, negatives, _ = world(layout, queries=0)
    user, items, log_scale = leaves
    result = contrast(
        LossConfig(kind=kind), user, items[targets], items, negatives,
        positive_ids=targets, scale=log_scale.exp(), num_items=NUM_ITEMS,
    )  # fmt: skip
    assert [x.item() for x in result] == [0, 0, 0]
    for gradient in gradients(result.loss, leaves):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("layout", [SHARED, OWN])
@pytest.mark.parametrize(("kind", "loss"), [("info-nce", 0), ("bce", math.log(1 + math.exp(-2)))])
def test_without_negatives_only_the_positive_counts(kind, loss, layout):
    """Its logit is 2: a softmax over it alone is 1, and a binary cross-entropy remains."""
    vectors = torch.tensor([unit(0)], requires_grad=True)
    negatives = torch.zeros((1, 0) if layout == OWN else 0, dtype=torch.long)
    result = contrast(
        LossConfig(kind=kind), vectors, vectors, vectors, negatives, positive_ids=torch.tensor([0]), scale=2.0
    )
    result.loss.backward()
    assert result.loss.item() == pytest.approx(loss)
    assert (result.masked.item(), result.top1.item()) == (1, 1)
    assert vectors.grad.isfinite().all()


@pytest.mark.parametrize("layout", [SHARED, OWN])
@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_normalised_by_the_steps_count_add_up(kind, layout):
    leaves, targets, negatives, _ = world(layout, dtype=torch.float64)
    user, items, log_scale = leaves

    def loss(part, count):
        return contrast(
            LossConfig(kind=kind), user[part], items[targets[part]], items, negatives if layout == SHARED else negatives[part],
            positive_ids=targets[part], scale=log_scale.exp(), num_items=NUM_ITEMS, count=count,
        ).loss  # fmt: skip

    whole, parts = loss(slice(None), None), loss(slice(0, 2), 7) + loss(slice(2, 7), 7)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    for ours, theirs in zip(gradients(parts, leaves), gradients(whole, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layout", [SHARED, OWN])
def test_log_q_makes_the_sampled_denominator_unbiased(layout):
    """Two draws with replacement from four items: the estimate, averaged over all 16 outcomes by probability.

    The denominator follows from the loss: loss = ln(e^p + sum) - p. Its mean is the sum over the catalogue without
    the target, which the mask leaves out whenever it is drawn.
    """
    (user, items, _), _, _, _ = world(layout, queries=1, items=4)
    chances, target, scale = torch.tensor([0.1, 0.2, 0.3, 0.4]), 2, 3.0
    logits = scale * torch.cosine_similarity(user, items, dim=-1)
    mean = 0.0
    for draw in itertools.product(range(4), repeat=2):
        negatives = torch.tensor(draw)
        result = contrast(
            LossConfig(log_q=True), user, items[[target]], items, negatives if layout == SHARED else negatives[None],
            positive_ids=torch.tensor([target]), scale=scale, log_q=(2 * chances).log(),
        )  # fmt: skip
        probability = chances[negatives].prod().item()
        mean += probability * (math.exp(result.loss.item()) - 1) * math.exp(logits[target].item())
    others = [math.exp(logits[n].item()) for n in range(4) if n != target]
    assert mean == pytest.approx(sum(others), rel=1e-5)


@pytest.mark.parametrize("num_windows", [1, 3])
@pytest.mark.parametrize("chunk_size", [1, 3, None])
@pytest.mark.parametrize("layout", [SHARED, OWN])
@pytest.mark.parametrize("log_q", [True, "refined"])
def test_both_corrections_against_their_formulas(log_q, layout, chunk_size, num_windows):
    """In fp64 with autograd, as the formulas stand in the papers; queries of one window have the same odds."""
    leaves, targets, negatives, _ = world(layout, dtype=torch.float64)
    user, items, log_scale = leaves
    draw = torch.Generator().manual_seed(5)
    logs = torch.randn(num_windows, len(items), generator=draw, dtype=torch.float64)
    odds = Odds(logs, logs.exp().sum(1) + 2, torch.arange(len(user)) % num_windows)
    given = {"positive_ids": targets, "scale": log_scale.exp(), "similarity": "dot"}
    result = contrast(
        LossConfig(log_q=log_q), user, items[targets], items, negatives, log_q=odds, chunk_size=chunk_size, **given
    )
    each = negatives if layout == OWN else negatives.expand(len(user), -1)
    left = each != targets[:, None]
    expected = odds.log_q[odds.windows].exp()  # (query, item)
    logits = log_scale.exp() * torch.einsum("qd,qkd->qk", user, items[each])
    positive = log_scale.exp() * (user * items[targets]).sum(-1)
    of_each = expected.gather(1, each)
    if log_q == "refined":
        proposal = of_each / (odds.num_expected[odds.windows] - expected.gather(1, targets[:, None])[:, 0])[:, None]
        weights = left * torch.exp(logits - proposal.log())
        chance = positive.exp() / (positive.exp() + weights.sum(1) / left.sum(1))
        losses = -(1 - chance).detach() * torch.log(positive.exp() / weights.sum(1))
    else:
        losses = -torch.log(positive.exp() / (positive.exp() + (left * torch.exp(logits - of_each.log())).sum(1)))
    torch.testing.assert_close(result.loss, losses.mean(), rtol=1e-9, atol=0)
    for ours, theirs in zip(gradients(result.loss, leaves), gradients(losses.mean(), leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)


def test_the_refined_gradient_is_that_of_the_whole_softmax_if_every_item_is_a_negative():
    leaves, targets, _, _ = world(SHARED, dtype=torch.float64)
    user, items, log_scale = leaves
    num = len(items)
    everything = torch.arange(num)
    certain = Odds(
        torch.zeros(1, num, dtype=torch.float64), torch.tensor([float(num)]).double(), torch.zeros_like(targets)
    )
    given = {"positive_ids": targets, "scale": log_scale.exp(), "similarity": "dot"}
    refined = contrast(LossConfig(log_q="refined"), user, items[targets], items, everything, log_q=certain, **given)
    whole = F.cross_entropy(log_scale.exp() * user @ items.T, targets)
    for ours, theirs in zip(gradients(refined.loss, leaves), gradients(whole, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("layout", [SHARED, OWN])
def test_a_refined_query_without_negatives_has_no_loss_and_no_gradient(layout):
    """Its only negative is the positive itself."""
    leaves, _, _, _ = world(layout, queries=2)
    user, items, log_scale = leaves
    targets = torch.tensor([3, 4])
    negatives = torch.tensor([3]) if layout == SHARED else torch.tensor([[3], [4]])
    for log_q in (-5.0, 0.0):
        odds = Odds(torch.full((1, len(items)), log_q), torch.tensor([math.exp(log_q)]), torch.zeros_like(targets))
        result = contrast(
            LossConfig(log_q="refined"), user, items[targets], items, negatives, positive_ids=targets,
            scale=log_scale.exp(), log_q=odds, count=1,
        )  # fmt: skip
        of_user = gradients(result.loss, leaves)[0]
        assert of_user.isfinite().all()
        assert not of_user[0].any()
        assert result.loss.isfinite()
        assert result.loss == 0 or layout == SHARED


def test_log_q_of_certain_draws_changes_nothing():
    """In a softmax over the whole catalogue each item is there exactly once, so log_q is 0; ranks ignore it."""
    (user, items, _), targets, _, _ = world(SHARED)
    common = {"positive_ids": targets, "scale": 4.0}
    everything = torch.arange(len(items))
    corrected = contrast(
        LossConfig(log_q=True), user, items[targets], items, everything, log_q=torch.zeros(len(items)), **common
    )
    assert corrected == contrast(LossConfig(), user, items[targets], items, everything, **common)
    shifted = info_nce(
        user, items[targets], items, negative_ids=everything, log_q=torch.full((len(items),), -9.0), **common
    )
    assert shifted.loss > corrected.loss + 1
    assert shifted.top1 == corrected.top1


def test_bce_against_a_hand_worked_value():
    """Logits: positive 1, negatives 0 and -2: (ln(1 + e⁻¹) + ln 2 + ln(1 + e⁻²)) / 3."""
    items = torch.tensor([unit(60), unit(90), unit(180)])
    result = contrast(
        LossConfig(kind="bce"), torch.tensor([unit(0)]), items[:1], items, torch.tensor([1, 2]),
        positive_ids=torch.tensor([0]), scale=2.0,
    )  # fmt: skip
    expected = (math.log(1 + math.exp(-1)) + math.log(2) + math.log(1 + math.exp(-2))) / 3
    assert result.loss.item() == pytest.approx(expected, abs=1e-6)


def test_gbce_against_the_papers_formula():
    """As above with σ(1)^β, β = α(t(1 - 1/α) + 1/α) for 2 negatives of 11 items: α = .2, t = .75, so β = .4."""
    items = torch.tensor([unit(60), unit(90), unit(180)])
    result = contrast(
        LossConfig(kind="gbce", calibration=0.75), torch.tensor([unit(0)]), items[:1], items, torch.tensor([[1, 2]]),
        positive_ids=torch.tensor([0]), scale=2.0, num_items=11,
    )  # fmt: skip
    probability = (1 / (1 + math.exp(-1))) ** 0.4
    expected = (-math.log(probability) + math.log(2) + math.log(1 + math.exp(-2))) / 3
    assert result.loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("negatives", "items", "calibration", "exponent"),
    [(2, 11, 0.75, 0.4), (256, 1001, 0.0, 1.0), (256, 1025, 1.0, 0.25), (10, 11, 0.75, 1.0), (50, 11, 0.75, 1.0)],
)
def test_gbce_exponent_is_one_without_calibration_and_the_sampling_rate_with_all_of_it(
    negatives, items, calibration, exponent
):
    assert gbce_exponent(negatives, items, calibration) == pytest.approx(exponent)


@pytest.mark.parametrize("kind", KINDS)
def test_large_logits_lose_neither_loss_nor_gradient(kind):
    """Positive logit -300, negative +300: σ(-300)^β and exp(600) leave fp32, the loss must not."""
    user = torch.tensor([[1.0, 0.0]], requires_grad=True)
    items = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    result = contrast(
        LossConfig(kind=kind), user, items[:1], items, torch.tensor([1]), positive_ids=torch.tensor([0]),
        scale=300.0, num_items=3, similarity="dot",
    )  # fmt: skip
    expected = {"info-nce": 600, "bce": 300, "gbce": (300 * (1 - 0.75 / 2) + 300) / 2}[kind]
    assert result.loss.item() == pytest.approx(expected)
    result.loss.backward()
    assert user.grad[0, 0].item() == pytest.approx(expected)


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


def test_under_autocast_logits_are_finer_than_bf16():
    """A CPU may round the factors of products to bf16 there, but not the logits: 70.2 would become 70."""
    user, other = F.normalize(torch.randn(2, 64, 256, generator=torch.Generator().manual_seed(0)), dim=-1)
    other = F.normalize(other - (other * user).sum(-1, keepdim=True) * user, dim=-1)
    positive, negative = (cosine * user + math.sqrt(1 - cosine**2) * other for cosine in (0.7, 0.702))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = info_nce(
            user, positive, negative, positive_ids=torch.arange(64), negative_ids=torch.arange(64, 128), scale=100.0
        )
    assert result.loss.item() == pytest.approx(math.log(1 + math.exp(0.2)), abs=0.02)  # ln 2 in bf16


@pytest.mark.parametrize("layout", [SHARED, OWN])
def test_bf16_embeddings_get_bf16_gradients_of_an_fp32_loss(layout):
    (user, items, _), targets, negatives, _ = world(layout, dtype=torch.bfloat16)
    common = {"positive_ids": targets, "scale": 3.0}
    result = contrast(LossConfig(), user, items[targets], items, negatives, **common)
    same = contrast(LossConfig(), user.float(), items[targets].float(), items.float(), negatives, **common)
    assert result.loss == same.loss
    assert result.loss.dtype == torch.float32
    assert gradients(result.loss, [user])[0].dtype == torch.bfloat16


@pytest.mark.parametrize("layout", [SHARED, OWN])
def test_equal_inputs_give_equal_bits(layout):
    (user, items, log_scale), targets, negatives, _ = world(layout, queries=300, items=50, k=400, dim=32)

    positive = items[targets].detach()  # the gradient of this gather is not ours

    def run():
        result = contrast(
            LossConfig(), user, positive, items, negatives, positive_ids=targets, scale=log_scale.exp(), chunk_size=64
        )
        return [result.loss, *gradients(result.loss, [user, items, log_scale])]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_frozen_items_and_evaluation_need_no_gradients():
    (user, items, _), targets, negatives, _ = world(OWN)
    common = {"positive_ids": targets, "scale": 3.0}
    frozen = contrast(LossConfig(), user, items.detach()[targets], items.detach(), negatives, **common)
    full = contrast(LossConfig(), user, items[targets], items, negatives, **common)
    torch.testing.assert_close(gradients(frozen.loss, [user]), gradients(full.loss, [user]), rtol=0, atol=0)
    with torch.no_grad():
        assert not contrast(LossConfig(), user, items[targets], items, negatives, **common).loss.requires_grad


def test_a_loss_whose_inputs_are_missing_says_which():
    (user, items, _), targets, negatives, _ = world(OWN)
    for config, message in [
        (LossConfig(log_q=True), "log_q is None"),
        (LossConfig(log_q="refined"), "log_q is None"),
        (LossConfig(kind="gbce"), "num_items is None"),
    ]:
        with pytest.raises(ValueError, match=message):
            contrast(config, user, items[targets], items, negatives, positive_ids=targets, scale=3.0)


def test_log_q_is_refused_for_a_loss_without_a_softmax():
    with pytest.raises(
        ConfigError, match=r'log_q = true has no effect beside kind = "bce"; it is for kind = "info-nce"'
    ):
        LossConfig.from_dict({"kind": "bce", "log_q": True}, where="recipe.toml")
    with pytest.raises(ConfigError, match=r'log_q = "refined" has no effect beside kind = "gbce"'):
        LossConfig.from_dict({"kind": "gbce", "log_q": "refined"}, where="recipe.toml")
    with pytest.raises(ConfigError, match="log_q"):
        LossConfig.from_dict({"log_q": "refinde"}, where="recipe.toml")


def reference(name):
    arrays = {}
    for part in ("inputs", "outputs"):
        with np.load(FIXTURES / name / f"{part}.npz") as file:
            arrays |= {key: torch.from_numpy(file[key]) for key in file.files}
    summary = json.loads((FIXTURES / name / "summary.json").read_text())
    return arrays, arrays["attention_mask"].bool(), summary


def assert_reference(result: Contrast, arrays, negatives, *, prefix=""):
    assert result.loss.item() == pytest.approx(arrays[prefix + "loss"].item(), abs=1e-5)
    samples = 1 + negatives * (1 - result.masked.item())
    assert samples == pytest.approx(arrays[prefix + "nce_samples"].item(), abs=1e-4)
    assert result.top1.item() == pytest.approx(arrays[prefix + "nce_top1_acc"].item(), abs=1e-6)


def test_the_cosine_mask_gives_the_references_hllm_loss():
    """Two items of the fixture have the same text: the reference masks each as the other's negative, ids do not."""
    arrays, valid, summary = reference("A")
    log_scale = torch.tensor(summary["settings"]["logit_scale"], requires_grad=True)
    user, negatives = arrays["user_embedding_valid"], arrays["neg_embedding"].flatten(0, 1)
    positive_ids, negative_ids = arrays["pos_item_ids"][:, 1:][valid], arrays["neg_item_ids"].flatten()

    def loss(mask, scale):
        return info_nce(
            user, arrays["pos_embedding"][:, 1:][valid], negatives,
            positive_ids=positive_ids, negative_ids=negative_ids, scale=scale, mask=mask,
        )  # fmt: skip

    result = loss("cosine", log_scale.exp())
    assert_reference(result, arrays, len(negatives))
    assert gradients(result.loss, [log_scale])[0].item() == pytest.approx(summary["grad_logit_scale"], rel=1e-4)
    hot = loss("cosine", torch.tensor(summary["clamp_case"]["logit_scale_after"]).exp())
    assert hot.loss.item() == pytest.approx(summary["clamp_case"]["loss"], rel=1e-5)
    assert abs(loss("id", log_scale.exp()).loss.item() - arrays["loss"].item()) > 1e-3


def test_the_cosine_mask_gives_the_references_sasrec_loss():
    """Once with negatives shared by the batch and once with five of each position's own."""
    arrays, valid, _ = reference("sasrec")
    log_scale = torch.tensor(2.8, requires_grad=True)
    items, targets = arrays["item_features"], arrays["items"][:, 1:][valid]
    common = {"positive_ids": targets, "scale": log_scale.exp()}
    user = arrays["output_embeddings"][valid]
    config = LossConfig(mask="cosine")
    shared = contrast(config, user, items[targets], items, arrays["neg_items"].flatten(), **common)
    assert_reference(shared, arrays, 42)
    assert gradients(shared.loss, [log_scale])[0].item() == pytest.approx(5.401347637176514, rel=1e-4)
    own = contrast(config, user, items[targets], items, arrays["neg_items_per_position"][valid], **common)
    assert_reference(own, arrays, 5, prefix="per_position_")
