import math

import pytest
import torch

from hllm.errors import TrainingError
from hllm.recipe.recipe import Recipe
from hllm.runs.run import Run
from hllm.training.alarm import MAX_SKIPPED, PATIENCE, Alarm
from hllm.training.fit import fit
from tests.conftest import recipe_values


def test_a_collapse_stops_training_but_a_slow_start_is_borne():
    alarm = Alarm()
    for step in range(PATIENCE - 1):
        alarm.check_spread(step, 0.999, None)
    alarm.check_spread(PATIENCE, 0.9, 5.0)
    for step in range(PATIENCE - 1):
        alarm.check_spread(step, 0.999, None)
    with pytest.raises(
        TrainingError, match=r"collapsed: mean cosine 0\.9990, .* for 100 steps .* Lower item_learning_rate"
    ):
        alarm.check_spread(PATIENCE, 0.999, None)


def test_a_collapse_onto_a_line_is_seen_though_the_cosines_are_small():
    """Half of the items point one way, half the other: mean cosine 0, effective rank 1, measured now and then."""
    alarm = Alarm()
    alarm.check_spread(0, 0.0, 1.0)
    for step in range(1, PATIENCE - 1):
        alarm.check_spread(step, 0.0, None)
    with pytest.raises(TrainingError, match=r"effective rank 1\.0"):
        alarm.check_spread(PATIENCE, 0.0, None)


def test_negatives_that_are_all_masked_stop_training():
    alarm = Alarm()
    for step in range(PATIENCE - 1):
        alarm.check_masked(step, 0.9)
    with pytest.raises(TrainingError, match="90% of the negatives are masked as the target itself"):
        alarm.check_masked(PATIENCE, 0.9)


@pytest.mark.reliability("not finite")
def test_what_is_not_finite_is_skipped_and_the_tenth_stops_training():
    alarm = Alarm(skipped=2)
    assert alarm.is_finite(1, 1.0, 1.0)
    for step in range(MAX_SKIPPED - 3):
        assert not alarm.is_finite(step, *((math.nan, 1.0) if step % 2 else (1.0, math.inf)))
    with pytest.raises(TrainingError, match=r"step 7 has loss nan and gradient norm 1\.0, the 10th step of this stage"):
        alarm.is_finite(7, math.nan, 1.0)


def test_a_loss_far_above_the_last_hundred_is_a_spike():
    alarm = Alarm()
    assert not alarm.is_spike(1000.0), "nothing is known yet"
    alarm = Alarm()
    assert not any(alarm.is_spike(5.0 + 0.1 * (-1) ** step) for step in range(80))
    assert alarm.is_spike(6.0)
    assert not alarm.is_spike(5.2)


def test_the_alarm_watches_training(tmp_path, monkeypatch, interactions, items, recipe):
    """With a threshold that any embeddings pass, three steps must be enough to stop."""
    monkeypatch.setattr("hllm.training.alarm.COLLAPSED_COSINE", -1.0)
    monkeypatch.setattr("hllm.training.alarm.PATIENCE", 3)
    with pytest.raises(TrainingError, match=r"the item embeddings have collapsed: .* for 3 steps up to step 3"):
        fit(interactions, items, recipe, tmp_path / "run", base=tmp_path)


@pytest.mark.reliability("not finite")
def test_steps_that_are_not_finite_leave_the_weights_alone(tmp_path, monkeypatch, interactions, items, id_recipe):
    """Every gradient is made NaN: ten steps are logged as skipped, then training stops with advice."""
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", lambda *_: torch.tensor(math.nan))
    with pytest.raises(TrainingError, match="the 10th step of this stage that is not finite; none of them changed"):
        fit(interactions, items, id_recipe, tmp_path / "run", base=tmp_path)
    steps = Run(tmp_path / "run").events()
    assert [event.get("skipped") for event in steps if event["event"] == "step"] == [True] * (MAX_SKIPPED - 1)


@pytest.mark.reliability("not finite")
def test_a_rate_that_blows_the_weights_up_ends_in_an_error(tmp_path, interactions, items, tiny_llama):
    values = recipe_values(tiny_llama, tiny_llama)
    values["stages"] = [{"epochs": 40, "learning_rate": 1e30, "warmup": 0.0, "max_gradient_norm": math.inf}]
    with pytest.raises(TrainingError, match=r"the item embeddings are no longer finite|is not finite"):
        fit(interactions, items, Recipe.from_dict(values, where="test"), tmp_path / "run", base=tmp_path)
