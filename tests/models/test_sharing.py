"""One language model as both tiers: the same outputs as two with equal weights, stored and trained once."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hllm.api import Recommender
from hllm.batches.batch import text_batch
from hllm.errors import ConfigError
from hllm.models.build import ModelConfig, build_model, require_separate_tiers
from hllm.models.checkpoint import load_checkpoint, merge_checkpoint, save_checkpoint
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig
from hllm.training.optimizer import build_optimizer
from tests.conftest import history_of, recipe_values

ITEMS = [[5, 6], [7, 8, 9]]


def config(folder, *, shared=True, item=None, user=None) -> ModelConfig:
    tier = {"kind": "llm", "backbone": str(folder), "num_layers": 2}
    values = {
        "item": tier | {"prompt": {"max_tokens": 16}} | (item or {}),
        "user": tier | (user or {}),
        "share_backbone": shared,
        "max_history": 8,
    }
    return ModelConfig.from_dict(values, where="test")


def build(chosen: ModelConfig, base) -> nn.Module:
    torch.manual_seed(0)
    return build_model(chosen, num_items=30, num_actions=0, base=base).eval()


@torch.no_grad()
def outputs(model) -> tuple[torch.Tensor, torch.Tensor]:
    items = model.item_encoder(text_batch(ITEMS))
    return items, model.user_encoder(history_of(items[None]))


def test_shared_weights_give_what_two_equal_sets_of_weights_give(tmp_path, tiny_llama):
    shared, apart = (build(config(tiny_llama, shared=share), tmp_path) for share in (True, False))
    assert shared.item_encoder.backbone is shared.user_encoder.backbone
    assert apart.item_encoder.backbone is not apart.user_encoder.backbone
    apart.item_encoder.item_token.data.copy_(shared.item_encoder.item_token)
    for ours, theirs in zip(outputs(shared), outputs(apart), strict=True):
        assert torch.equal(ours, theirs)


def test_shared_weights_are_trained_once_by_both_tiers(tmp_path, tiny_llama):
    shared, apart = (build(config(tiny_llama, shared=share), tmp_path) for share in (True, False))
    apart.item_encoder.item_token.data.copy_(shared.item_encoder.item_token)
    for model in (shared, apart):
        items = model.item_encoder(text_batch(ITEMS))
        model.user_encoder(history_of(items[None])).sin().sum().backward()
    name = "layers.1.mlp.up_proj.weight"
    of_item, of_user = (
        tier.backbone.network.get_parameter(name).grad for tier in (apart.item_encoder, apart.user_encoder)
    )
    assert min(of_item.abs().max(), of_user.abs().max()) > 1e-3, "both tiers have something to say"
    both = shared.item_encoder.backbone.network.get_parameter(name).grad
    assert torch.allclose(both, of_item + of_user, atol=1e-5)
    optimizer = build_optimizer(shared, StageConfig())
    stepped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(stepped) == len(set(stepped))
    assert set(stepped) == {id(parameter) for parameter in shared.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_checkpoint_stores_shared_weights_once(tmp_path, tiny_llama, lora):
    chosen = config(tiny_llama, item={"lora": lora}, user={"lora": lora})
    model = build(chosen, tmp_path)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    save_checkpoint(tmp_path / "c", model, chosen, num_items=30, num_actions=0, tokenizer=None, details={})
    stored = sum(len(load_file(tmp_path / "c" / f"{part}_encoder.safetensors")) for part in ("item", "user"))
    assert stored == len(model.item_encoder.state_dict())
    again, _, _ = load_checkpoint(tmp_path / "c")
    assert again.item_encoder.backbone is again.user_encoder.backbone
    for ours, theirs in zip(outputs(model), outputs(again), strict=True):
        assert torch.equal(ours, theirs)
    if lora:
        merge_checkpoint(tmp_path / "c", tmp_path / "merged")
        merged, _, _ = load_checkpoint(tmp_path / "merged")
        assert merged.item_encoder.backbone is merged.user_encoder.backbone
        for ours, theirs in zip(outputs(model), outputs(merged), strict=True):
            assert (ours - theirs).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("item", "user", "message"),
    [
        ({"backbone": "other"}, {}, "item.backbone is 'other' and user.backbone is "),
        ({"num_layers": 1}, {}, "item.num_layers is 1 and user.num_layers is 2"),
        ({"pretrained": False}, {}, "item.pretrained is False and user.pretrained is True"),
        ({"lora": {}}, {}, r"item.lora is LoraConfig\(.*\) and user.lora is None"),
    ],
)
def test_tiers_that_differ_cannot_be_one_model(tiny_llama, item, user, message):
    with pytest.raises(ConfigError, match=f"share_backbone = true, but {message}"):
        config(tiny_llama, item=item, user=user)


def test_what_cannot_be_shared_is_explained(tmp_path, tiny_llama, tiny_bert):
    with pytest.raises(ConfigError, match=r'share_backbone = true needs item.kind = "llm" and user.kind = "llm"'):
        ModelConfig.from_dict(
            {"item": {"kind": "id"}, "user": {"kind": "sasrec"}, "share_backbone": True}, where="test"
        )
    with pytest.raises(ConfigError, match="'bert' reads both ways"):
        build(config(tiny_bert), tmp_path)
    for frozen in ("item", "user"):
        with pytest.raises(ConfigError, match=f'{frozen}_tier = "frozen" cannot be with model.share_backbone = true'):
            require_separate_tiers(config(tiny_llama), frozen=frozen)
        require_separate_tiers(config(tiny_llama, shared=False), frozen=frozen)


def test_a_shared_model_is_trained_stored_and_asked(tmp_path, interactions, items, tiny_llama):
    values = recipe_values(tiny_llama, tiny_llama)
    values["model"] |= {"share_backbone": True, "item": {"kind": "llm", "backbone": str(tiny_llama)}}
    values["stages"] = values["stages"][1:]
    recommender = Recommender.fit(
        interactions, items, recipe=Recipe.from_dict(values, where="test"), out=tmp_path / "run"
    )
    trained, loaded = recommender.recommend(["u1"], k=3), Recommender.load(tmp_path / "run").recommend(["u1"], k=3)
    assert trained.equals(loaded)
