"""What training will cost: against the loader, the built model, and figures worked out elsewhere."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hllm.batches.loader import BatchContents, TrainingLoader
from hllm.batches.negatives import NegativesConfig
from hllm.batches.windows import WindowConfig, training_windows
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.split import split_dataset
from hllm.errors import ConfigError, DataError
from hllm.jobs.planning import speed
from hllm.jobs.planning.facts import gather_facts, length_law
from hllm.jobs.planning.plan import plan_recipe
from hllm.models.build import build_model
from hllm.precision import autocast
from hllm.recipe.recipe import Recipe
from hllm.training.muon import orthogonal
from tests.conftest import recipe_values


@pytest.fixture
def values(tmp_path, monkeypatch, interactions, items, tiny_llama, tiny_bert):
    """The tiny world's recipe, with its data in files."""
    monkeypatch.setattr(speed, "_SECONDS", 0.01)
    interactions.write_parquet(tmp_path / "events.parquet")
    items.write_parquet(tmp_path / "items.parquet")
    values = recipe_values(tiny_bert, tiny_llama)
    values["data"] = {"interactions": "events.parquet", "items": "items.parquet"}
    return values


def recipe_of(values: dict) -> Recipe:
    return Recipe.from_dict(values, where="test")


@pytest.mark.parametrize("kind", ["all-targets", "latest", "blocks", "strides"])
def test_windows_are_those_of_training(values, tmp_path, dataset, kind):
    facts = gather_facts(recipe_of(values), tmp_path)
    config = WindowConfig(max_history=4, windows=kind)
    bounds = training_windows(dataset, split_dataset(dataset, LeaveOneOutSplit()), config).bounds
    lengths, counts = np.unique(bounds[:, 1] - bounds[:, 0], return_counts=True)
    found = facts.windows(config)
    assert found[0].tolist() == lengths.tolist()
    assert found[1].tolist() == counts.tolist()


@pytest.mark.parametrize(
    "negatives",
    [
        {"kind": "mixed", "num_sampled": 5},
        {"kind": "sampled", "num_sampled": 9},
        {"kind": "sampled", "num_sampled": 2, "per_position": True},
        {"kind": "sampled", "num_sampled": 9, "popularity_power": 1.0},
        {"kind": "pooled", "num_sampled": 8},
        {"kind": "in-batch"},
        {"kind": "catalogue"},
    ],
    ids=lambda n: "-".join(map(str, n.values())),
)
def test_distinct_items_and_negatives_are_those_of_training(values, tmp_path, dataset, negatives):
    """The mean over the batches of many epochs; draws are taken to be independent, so it is not exact."""
    config, split = NegativesConfig(**negatives), split_dataset(dataset, LeaveOneOutSplit())
    loader = TrainingLoader(dataset, split, None, BatchContents(WindowConfig(3), 4, negatives=config), seed=1, stage=0)
    batches = [b for epoch in range(8) for (b,) in loader.steps(epoch) if len(b.mask) == 4]
    own = [b.own_negatives.shape[1] if b.own_negatives is not None else len(b.negatives) for b in batches]
    values["model"]["max_history"] = 3
    values["stages"] = [{"batch_size": 4, "objective": {"negatives": negatives}}]
    (stage,) = plan_recipe(recipe_of(values), tmp_path).stages
    assert stage.items_per_step == pytest.approx(np.mean([len(b.items) for b in batches]), rel=0.1)
    assert stage.negatives_per_target == pytest.approx(np.mean(own), rel=0.1)
    assert stage.positions_per_step == pytest.approx(np.mean([b.mask.numel() for b in batches]), rel=0.1)
    assert stage.steps == loader.steps_per_epoch


def test_a_stage_s_own_windows_are_counted(values, tmp_path, dataset):
    values["stages"] = [{"max_history": 3, "windows": "latest"}, {"max_history": 3}, {"windows": "latest"}]
    latest, all_targets, longer = plan_recipe(recipe_of(values), tmp_path).stages
    assert latest.windows == longer.windows == dataset.num_users < all_targets.windows
    assert latest.other_flops == longer.other_flops, "validations read model.max_history whatever the stage does"


def test_parameters_are_those_of_the_model(values, tmp_path):
    recipe = recipe_of(values)
    plan = plan_recipe(recipe, tmp_path)
    model = build_model(recipe.model, num_items=30, num_actions=0, base=tmp_path)
    tiers = {tier.name: tier for tier in plan.tiers}
    assert tiers["item tier"].parameters == sum(p.numel() for p in model.item_encoder.parameters())
    assert tiers["user tier"].trained == sum(p.numel() for p in model.user_encoder.parameters())
    learns = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(tier.trained for tier in plan.tiers) == learns
    frozen, both = plan.stages
    projector = sum(p.numel() for p in model.item_encoder.projector.parameters())
    assert both.memory_bytes["gradients"] == 4 * learns
    assert frozen.memory_bytes["gradients"] == 4 * (projector + tiers["user tier"].trained + 1)
    assert frozen.tokens_per_step == 0
    weights = 4 * plan.parameters
    assert plan.checkpoint_bytes == weights + 2 * (weights + 8 * learns)
    assert plan.table_bytes == 4 * 30 * 16
    assert plan.missing == plan.assumed == ()


def test_a_stage_that_freezes_the_user_tier(values, tmp_path):
    values["stages"] = [{"user_tier": "frozen"}, {"user_tier": "train"}]
    plan = plan_recipe(recipe_of(values), tmp_path)
    frozen, both = plan.stages
    user = next(tier for tier in plan.tiers if tier.name == "user tier")
    assert both.memory_bytes["gradients"] - frozen.memory_bytes["gradients"] == 4 * user.parameters
    assert frozen.flops_per_step < both.flops_per_step


def test_micro_batches_save_memory_and_a_gradient_cache_costs_a_forward_pass(values, tmp_path):
    stage = {"batch_size": 8, "objective": {"negatives": {"kind": "catalogue"}}}
    values["stages"] = [stage, stage | {"micro_batch_size": 2, "gradient_cache": True}, stage | {"micro_batch_size": 2}]
    values["model"]["item"] |= {"pooling": "item", "whiten": False}
    recipe = recipe_of(values)
    whole, cached, parts = plan_recipe(recipe, tmp_path).stages
    tokens = gather_facts(recipe, tmp_path).token_lengths + 1
    layers, width, inner, dim = 2, 24, 48, 16
    weights = layers * (4 * width * width + 2 * width * inner)
    forward = (2 * weights * tokens + 4 * layers * width * tokens**2).mean() + 2 * width * dim
    assert cached.flops_per_step - whole.flops_per_step == pytest.approx(30 * forward)
    assert cached.memory_bytes["activations"] == pytest.approx(whole.memory_bytes["activations"] / 4, rel=0.01)
    assert (whole.items_per_step, cached.items_per_step, parts.items_per_step) == (30, 30, 4 * 30)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.filterwarnings("ignore:precision = .bf16. on this CPU")
def test_muon_keeps_one_mean_of_each_matrix_instead_of_two_and_multiplies_for_it(values, tmp_path, precision):
    values["stages"] = [{}, {"item_optimizer": "muon"}]
    adamw, muon = plan_recipe(recipe_of(values | {"precision": precision}), tmp_path).stages
    layers, width, inner = 2, 24, 48
    shapes = layers * [*4 * [(width, width)], (width, inner), (inner, width)]
    saved = adamw.memory_bytes["optimizer"] - muon.memory_bytes["optimizer"]
    assert saved == 4 * sum(rows * columns for rows, columns in shapes)
    with FlopCounterMode(display=False) as counted, autocast(precision, torch.device("cpu")):
        for shape in shapes:
            orthogonal(torch.ones(shape))
    assert muon.flops_per_step - adamw.flops_per_step == pytest.approx(counted.get_total_flops())


def test_reused_item_vectors_are_not_read(values, tmp_path):
    def stage(**reuse):
        stages = [{"batch_size": 4, "objective": {"negatives": {"num_sampled": 8}}, "reuse": reuse}]
        return plan_recipe(recipe_of(values | {"stages": stages}), tmp_path).stages[0]

    whole, fourth, positives, third = stage(), stage(every=4), stage(negatives=True), stage(share=0.3)
    assert fourth.tokens_per_step == pytest.approx(whole.tokens_per_step / 4)
    assert third.tokens_per_step == pytest.approx(0.3 * whole.tokens_per_step)
    assert third.memory_bytes["activations"] < whole.memory_bytes["activations"]
    assert fourth.items_per_step == positives.items_per_step == whole.items_per_step
    assert whole.tokens_per_step / 4 < positives.tokens_per_step < whole.tokens_per_step
    assert fourth.flops_per_step < positives.flops_per_step < whole.flops_per_step
    assert "cached items" in fourth.memory_bytes
    assert "cached items" not in whole.memory_bytes


def test_the_law_of_history_lengths_gives_the_published_windows():
    """Pixel8M, from its published histogram of lengths: 14.5 M blocks of up to 11 items, 8.79 real ones in each."""
    lengths, share = length_law(158_488_652 / 8_886_078, 5)
    assert (lengths * share).sum() == pytest.approx(17.836, rel=1e-3)
    blocks = [[11] * (n // 11) if n > 11 else [n] for n in (lengths - 2).tolist()]
    windows = 8_886_078 * sum(s * len(b) for s, b in zip(share, blocks, strict=True))
    items = 8_886_078 * sum(s * sum(b) for s, b in zip(share, blocks, strict=True))
    assert windows == pytest.approx(14.5e6, rel=0.06)
    assert items / windows == pytest.approx(8.79, rel=0.04)


PIXEL = {
    "about": "HLLM-1B on Pixel8M",
    "data": {"source": "pixel-8m"},
    "model": {
        "max_history": 10,
        "item": {"kind": "llm", "backbone": "tinyllama-1.1b", "prompt": {"max_tokens": 149}},
        "user": {"kind": "llm", "backbone": "tinyllama-1.1b"},
    },
    "stages": [
        {
            "epochs": 5,
            "batch_size": 512,
            "windows": "blocks",
            "objective": {"negatives": {"kind": "pooled", "num_sampled": 5632}},
        }
    ],
}


def test_the_paper_s_largest_run_costs_what_was_worked_out_by_hand(tmp_path, monkeypatch):
    """72.5 M samples of 19.8 real items of 150 tokens, 878 GFLOP each, and a User LLM: 1.26e21 operations."""
    monkeypatch.setenv("HLLM_HOME", str(tmp_path))
    monkeypatch.setattr(speed, "_SECONDS", 0.01)
    plan = plan_recipe(recipe_of(PIXEL), tmp_path)
    (stage,) = plan.stages
    assert stage.training_flops == pytest.approx(1.263e21, rel=0.06)
    assert plan.parameters == pytest.approx(2 * 968_900_000 + 65_536_000, rel=1e-3)
    assert len(plan.missing) == 2
    assert "pixel-8m is not on this machine" in plan.missing[0]
    assert "TinyLlama-1.1B-intermediate-step-1431k-3T into" in plan.missing[1]
    assert any("every text fills prompt.max_tokens = 149" in sentence for sentence in plan.assumed)
    assert plan.seconds > 1e6


def test_without_measuring_the_plan_is_the_same_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HLLM_HOME", str(tmp_path))
    plan = plan_recipe(recipe_of(PIXEL), tmp_path, measure=False)
    assert (plan.seconds, plan.device, plan.precision) == (None, "cuda", "bf16")


def test_what_training_refuses_at_its_start_is_refused(values, tmp_path):
    values["model"]["item"]["num_layers"] = 9
    with pytest.raises(ConfigError, match=r"num_layers is 9, but the model in .* has 2 layers"):
        plan_recipe(recipe_of(values), tmp_path)
    values["model"]["item"]["num_layers"] = None
    values["data"]["text_cols"] = ["titel"]
    with pytest.raises(DataError, match=r"items have no column 'titel' \(did you mean 'title'\?\)"):
        plan_recipe(recipe_of(values), tmp_path)
    values["data"] = {"source": "movielens"}
    with pytest.raises(ConfigError, match=r"data\.source 'movielens' is unknown"):
        plan_recipe(recipe_of(values), tmp_path)


def test_the_speed_of_products_is_plausible():
    assert 1e8 < speed.gemm_rate(64, "fp32", torch.device("cpu")) < 1e13
