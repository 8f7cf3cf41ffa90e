import pytest
import torch

from hllm.errors import CheckpointError
from hllm.training.optimizer import build_optimizer, load_optimizer, save_optimizer, set_rates
from hllm.training.recipe import StageConfig


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
    optimizer = build_optimizer(torch.nn.Linear(2, 2), stage)

    def rate(step: int) -> float:
        set_rates(optimizer, stage, step, 120)
        return optimizer.param_groups[0]["lr"]

    assert rate(0) == pytest.approx(2.0 / 20)
    assert rate(19) == rate(20) == pytest.approx(2.0)
    assert rate(70) == pytest.approx(2.0 * at_half)
    assert rate(120) == pytest.approx(2.0 * at_end)


def test_a_state_comes_back_and_not_into_a_smaller_model(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(model, StageConfig())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_optimizer(optimizer, tmp_path / "o.safetensors")
    again = build_optimizer(model, StageConfig())
    load_optimizer(again, tmp_path / "o.safetensors")
    for ours, theirs in zip(again.state.values(), optimizer.state.values(), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ("exp_avg", "exp_avg_sq", "step"))
    smaller = build_optimizer(torch.nn.Linear(2, 2, bias=False), StageConfig())
    with pytest.raises(CheckpointError, match="holds the state of parameter 1, the model trains 1"):
        load_optimizer(smaller, tmp_path / "o.safetensors")
