"""Item vectors that are reused: what is read, what is remembered, and what learns."""

import numpy as np
import pytest
import torch

from hllm.batches.batch import SequenceBatch, item_batch
from hllm.batches.loader import BatchContents, ReuseConfig, TrainingLoader
from hllm.batches.negatives import NegativesConfig
from hllm.batches.windows import WindowConfig
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.split import split_dataset
from hllm.errors import ConfigError
from hllm.models.build import ModelConfig, build_model
from hllm.models.item.remembered import RememberingItemEncoder
from hllm.models.item.text import TextItemEncoder
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig
from hllm.runs.run import Run
from hllm.training.fit import catalogue_tokens, fit
from hllm.training.optimizer import build_optimizer
from tests.conftest import recipe_values


@pytest.fixture
def tokens(dataset, tiny_llama, tmp_path):
    config = ModelConfig.from_dict(recipe_values(tiny_llama, tiny_llama)["model"], where="test")
    return catalogue_tokens(Run(tmp_path), dataset, config.item.text_prompt, tiny_llama)


@pytest.fixture
def encoder(dataset, tiny_llama, tmp_path) -> TextItemEncoder:
    values = recipe_values(tiny_llama, tiny_llama)["model"]
    values["item"] |= {"whiten": False}
    values["user"] = {"kind": "sasrec", "dim": 12, "num_heads": 2}  # another width, so there is a projector
    config = ModelConfig.from_dict(values, where="test")
    torch.manual_seed(0)
    return build_model(config, num_items=dataset.num_items, num_actions=0, base=tmp_path).item_encoder


def reusing(tiny_llama, **reuse) -> Recipe:
    values = recipe_values(tiny_llama, tiny_llama)
    values["stages"] = [{"batch_size": 4, "epochs": 3, "objective": {"negatives": {"num_sampled": 8}}, "reuse": reuse}]
    return Recipe.from_dict(values, where="test")


def test_items_without_their_text_are_read_from_memory_and_carry_no_gradient(encoder, tokens, dataset):
    memory = torch.randn(dataset.num_items, encoder.backbone.width)
    remembering = RememberingItemEncoder(encoder, memory.clone())
    index, read = np.array([7, 2, 5, 0]), np.array([False, True, False, True])
    found = remembering(item_batch(index, tokens, read))
    with torch.no_grad():
        live = encoder.pool(item_batch(index[read], tokens))
        torch.testing.assert_close(found, encoder.project(torch.stack([memory[7], live[0], memory[5], live[1]])))
        torch.testing.assert_close(remembering.memory[index[read]], live)
        kept = np.setdiff1d(np.arange(dataset.num_items), index[read])
        assert torch.equal(remembering.memory[kept], memory[kept])
    layer = next(p for n, p in encoder.backbone.network.named_parameters() if "q_proj" in n)
    found[[0, 2]].sum().backward(retain_graph=True)
    assert layer.grad is None or not layer.grad.any()
    assert encoder.projector is not None
    assert all(p.grad is not None and p.grad.any() for p in encoder.projector.parameters() if p.requires_grad)
    found[[1, 3]].sum().backward()
    assert layer.grad is not None
    assert layer.grad.any()


def test_its_language_model_has_the_rate_of_language_models(encoder, dataset, tiny_llama, tmp_path):
    values = recipe_values(tiny_llama, tiny_llama)["model"]
    values["user"] = {"kind": "sasrec", "dim": 12, "num_heads": 2}
    config = ModelConfig.from_dict(values, where="test")
    model = build_model(config, num_items=dataset.num_items, num_actions=0, base=tmp_path)
    memory = torch.zeros(dataset.num_items, encoder.backbone.width)
    remembering = model.with_items(RememberingItemEncoder(encoder, memory))
    optimizer = build_optimizer(remembering, StageConfig(learning_rate=1e-2, item_learning_rate=1e-3))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    learning = [p for p in (*encoder.backbone.parameters(), encoder.item_token) if p is not None and p.requires_grad]
    assert {rates[id(p)] for p in learning} == {1e-3}
    assert {rates[id(p)] for p in encoder.projector.parameters() if p.requires_grad} == {1e-2}


def test_with_all_texts_it_is_the_encoder_itself(encoder, tokens, dataset):
    remembering = RememberingItemEncoder(encoder, torch.zeros(dataset.num_items, encoder.backbone.width))
    items = item_batch(np.arange(dataset.num_items), tokens)
    assert torch.equal(remembering(items), encoder(items))
    nothing = item_batch(np.arange(dataset.num_items), None)
    torch.testing.assert_close(remembering(nothing), encoder(items))


@pytest.fixture
def steps(dataset, tokens):
    """Return the steps of two epochs."""

    def batches(reuse) -> list[SequenceBatch]:
        return [
            batch
            for epoch in range(2)
            for (batch,) in TrainingLoader(
                dataset, split_dataset(dataset, LeaveOneOutSplit()), tokens,
                BatchContents(WindowConfig(5), 7, negatives=NegativesConfig(num_sampled=9), reuse=reuse or ReuseConfig()),
                seed=1, stage=0,
            ).steps(epoch)
        ]  # fmt: skip

    return batches


def test_a_share_of_the_items_is_read_others_in_each_step(steps, dataset):
    whole, shared = steps(None), steps(ReuseConfig(share=0.4))
    readings, offered = np.zeros(dataset.num_items), np.zeros(dataset.num_items)
    for batch, expected in zip(shared, whole, strict=True):
        assert torch.equal(batch.items.index, expected.items.index)
        read = batch.items.lengths > 0
        assert torch.equal(batch.items.lengths, expected.items.lengths * read)
        kept = torch.repeat_interleave(read, expected.items.lengths)
        assert torch.equal(batch.items.tokens, expected.items.tokens[kept])
        readings[batch.items.index[read]] += 1
        offered[batch.items.index] += 1
    deviation = (offered.sum() * 0.4 * 0.6) ** 0.5
    assert abs(readings.sum() - 0.4 * offered.sum()) < 3 * deviation
    often = offered > len(whole) / 2
    assert often.any()
    assert (readings[often] > 0).all(), "no item is left out for ever"
    assert (readings[often] < offered[often]).all()


def test_what_the_texts_that_are_read_begin_with_is_known(tokens):
    index, read = np.array([7, 2, 5, 0]), np.array([False, True, False, True])
    assert item_batch(index, tokens, read).prefix == item_batch(index[read], tokens).prefix > 0


def test_the_loader_leaves_out_the_texts_that_are_not_to_be_read(steps):
    whole = steps(None)
    assert len(whole) // 2 % 3, "so that the count goes on from epoch to epoch"
    for number, (batch, expected) in enumerate(zip(steps(ReuseConfig(every=3, negatives=True)), whole, strict=True)):
        assert torch.equal(batch.items.index, expected.items.index)
        inside = torch.zeros(len(batch.items), dtype=torch.bool)
        inside[torch.cat([batch.history[batch.mask], batch.targets[batch.mask]])] = True
        assert 0 < int(inside.sum()) < len(batch.items)
        read = inside & (number % 3 == 0)
        assert torch.equal(batch.items.lengths, expected.items.lengths * read)
        kept = torch.repeat_interleave(read, expected.items.lengths)
        assert torch.equal(batch.items.tokens, expected.items.tokens[kept])


def test_the_language_model_learns_in_one_of_k_steps(tmp_path, monkeypatch, interactions, items, tiny_llama):
    encoded = []
    step = TextItemEncoder.pool

    def counted(self, batch):
        encoded.append((torch.is_grad_enabled(), len(batch)))
        return step(self, batch)

    monkeypatch.setattr(TextItemEncoder, "pool", counted)
    run = fit(interactions, items, reusing(tiny_llama, every=4), tmp_path / "run", base=tmp_path)
    steps = [event for event in run.events() if event["event"] == "step"]
    assert len(steps) > 8
    assert sum(learns for learns, _ in encoded) == -(-len(steps) // 4)
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_what_cannot_be_reused_is_refused(tiny_llama):
    values = recipe_values(tiny_llama, tiny_llama)
    values["stages"] = [{"reuse": {"every": 2}, "item_tier": "frozen"}]
    with pytest.raises(ConfigError, match="leave out reuse"):
        Recipe.from_dict(values, where="test")
    values["stages"] = [{"reuse": {"every": 2}, "ema": 0.9}]
    with pytest.raises(ConfigError, match="ema validates averaged weights"):
        Recipe.from_dict(values, where="test")
    values["stages"] = [{"reuse": {"negatives": True}}]
    values["model"]["item"] = {"kind": "id"}
    with pytest.raises(ConfigError, match=r'reuse needs model\.item\.kind = "llm"'):
        Recipe.from_dict(values, where="test")
