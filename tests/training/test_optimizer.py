import copy

import pytest
import torch

from hllm.errors import CheckpointError, ConfigError
from hllm.models.item.ids import IdItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.user.gru4rec import GRU4Rec
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig
from hllm.training.muon import Muon, orthogonal
from hllm.training.optimizer import build_optimizer
from tests.conftest import recipe_values


def tiny() -> SequentialRecommender:
    """A table of ids, a recurrent net with 4 parameters, its map with 2, and the temperature: 8 in all."""
    user = GRU4Rec(dim=2, hidden=2, num_layers=1, dropout=0.0)
    return SequentialRecommender(IdItemEncoder(3, 2), user)


def test_each_tier_has_its_rate_and_only_matrices_decay(trained):
    stage = StageConfig(learning_rate=1e-3, item_learning_rate=1e-4, user_learning_rate=1e-2, weight_decay=0.1)
    optimizer = build_optimizer(trained.model, stage)
    names = {id(p): n for n, p in trained.model.named_parameters()}
    expected = {"item_encoder.backbone": 1e-4, "item_encoder.projector": 1e-3, "user_encoder": 1e-2, "log_scale": 1e-3}
    seen = set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.1 if parameter.ndim >= 2 else 0.0)
            (part,) = [part for part in expected if names[id(parameter)].startswith(part)]
            assert group["peak"] == expected[part]
            seen.add(part)
    assert seen == set(expected)
    listed = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in trained.model.parameters() if p.requires_grad)


def test_decay_on_everything_spares_nothing(trained):
    optimizer = build_optimizer(trained.model, StageConfig(weight_decay=0.1, decay="all"))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}


@pytest.mark.parametrize(
    ("schedule", "at_half", "at_end"),
    [("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1.0, 1.0)],
)
def test_rates_rise_then_follow_the_schedule(schedule, at_half, at_end):
    """20 steps of 120 are warm-up: a twentieth of the peak first, all of it at the end; then 100 steps of schedule."""
    stage = StageConfig(learning_rate=2.0, warmup=20 / 120, schedule=schedule)
    optimizer = build_optimizer(tiny(), stage)

    def rate(step: int) -> float:
        optimizer.set_rates(stage, step, 120)
        return optimizer.param_groups[0]["lr"]

    assert rate(0) == pytest.approx(2.0 / 20)
    assert rate(19) == rate(20) == pytest.approx(2.0)
    assert rate(70) == pytest.approx(2.0 * at_half)
    assert rate(120) == pytest.approx(2.0 * at_end)


def test_muon_moves_the_matrices_of_the_item_llms_layers_and_adamw_all_else(trained):
    names = {id(p): n for n, p in trained.model.named_parameters()}
    adamw, muon = build_optimizer(trained.model, StageConfig(item_optimizer="muon", betas=(0.8, 0.9))).parts
    moved = [{names[id(p)] for group in part.param_groups for p in group["params"]} for part in (adamw, muon)]
    learning = {name for name, p in trained.model.named_parameters() if p.requires_grad}
    of_layers = {name for name in learning if name.startswith("item_encoder.backbone.network.encoder.layer.")}
    assert moved[1] == {name for name in of_layers if name.endswith(".weight") and "LayerNorm" not in name}
    assert len(moved[1]) == 2 * 6, "in each layer queries, keys, values, what joins them, and a feed-forward net's two"
    assert moved[0] == learning - moved[1]
    assert (type(adamw), type(muon)) == (torch.optim.AdamW, Muon)
    assert muon.momentum == 0.8


def test_a_stage_may_be_muons_alone(trained):
    model = copy.deepcopy(trained.model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("layer.0.output.dense.weight"))
    (muon,) = build_optimizer(model, StageConfig(item_optimizer="muon")).parts
    assert type(muon) is Muon


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
def test_muon_is_torchs_but_in_fp32(shape):
    """torch.optim.Muon multiplies in bf16, so a step differs by a hundredth."""
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    muon = Muon([{"params": [ours], "lr": 0.01, "weight_decay": 0.1}], momentum=0.9)
    of_torch = torch.optim.Muon(
        [theirs], lr=0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw", ns_steps=3
    )
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        muon.step()
        of_torch.step()
    moved = (theirs - start).abs().max()
    assert moved > 0.01
    assert (ours - theirs).abs().max() < 0.02 * moved


def test_muon_in_bf16_keeps_its_weights_and_its_mean_in_fp32():
    torch.manual_seed(0)
    start = torch.randn(24, 40)
    exact, rounded = (torch.nn.Parameter(start.clone()) for _ in range(2))
    for matrix, enabled in ((exact, False), (rounded, True)):
        muon = Muon([{"params": [matrix], "lr": 0.01, "weight_decay": 0.1}], momentum=0.9)
        matrix.grad = start.flip(0).clone()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            muon.step()
        assert {matrix.dtype, muon.state[matrix]["momentum"].dtype} == {torch.float32}
    moved = (exact - start).abs().max()
    assert 0 < (exact - rounded).abs().max() < 0.02 * moved


def test_a_muon_step_has_no_favourite_direction():
    """A gradient that is nearly the same for all inputs, as that of a network's common shift, moves no more by it."""
    torch.manual_seed(0)
    gradient = 10 * torch.outer(torch.randn(32), torch.randn(48)) + torch.randn(32, 48)
    before, after = torch.linalg.svdvals(gradient), torch.linalg.svdvals(orthogonal(gradient))
    assert before[0] / before[16] > 40
    assert after[0] / after[16] < 2
    assert not orthogonal(torch.zeros(4, 6)).any()


@pytest.mark.parametrize("shape", [(16, 16), (16, 24), (12, 64), (64, 12)])
def test_muons_polynomial_acts_on_singular_values_alone(shape):
    """Every way of making the products applies the polynomial three times, to each singular value by itself."""
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / matrix.norm()
    for _ in range(3):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    torch.testing.assert_close(orthogonal(matrix), left @ values.diag() @ right, rtol=0, atol=1e-12)


def test_muon_needs_an_item_llm_that_learns(tiny_llama):
    with pytest.raises(ConfigError, match='item_optimizer = "muon" has no effect beside item_tier = "frozen"'):
        StageConfig.from_dict({"item_tier": "frozen", "item_optimizer": "muon"}, where="test")
    values = recipe_values(tiny_llama, tiny_llama)
    values["model"]["item"] = {"kind": "id"}
    values["stages"] = [{"item_optimizer": "muon"}]
    with pytest.raises(ConfigError, match=r'item_optimizer = "muon" needs model.item.kind = "llm"'):
        Recipe.from_dict(values, where="test")


@pytest.mark.parametrize("item_optimizer", ["adamw", "muon"])
def test_a_state_comes_back(trained, item_optimizer):
    stage = StageConfig(item_optimizer=item_optimizer)
    model = copy.deepcopy(trained.model)
    optimizer = build_optimizer(model, stage)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = copy.deepcopy(optimizer.state())
    again = build_optimizer(model, stage)
    again.load(state)
    kinds = set()
    for ours, theirs in zip(again.parts, optimizer.parts, strict=True):
        assert set(ours.state) == set(theirs.state) != set()
        for parameter, kept in theirs.state.items():
            kinds |= set(kept)
            assert all(torch.equal(ours.state[parameter][name], value) for name, value in kept.items())
    assert kinds == {"exp_avg", "exp_avg_sq", "step"} | ({"momentum"} if item_optimizer == "muon" else set())


def test_a_state_does_not_go_into_a_smaller_model():
    model, smaller_model = tiny(), tiny()
    optimizer = build_optimizer(model, StageConfig())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    smaller_model.item_encoder.requires_grad_(False)
    smaller = build_optimizer(smaller_model, StageConfig())
    with pytest.raises(CheckpointError, match="holds the state of parameter 7, the model trains 7"):
        smaller.load(optimizer.state())
