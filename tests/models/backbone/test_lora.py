"""LoRA against its formula, and what is trained, kept, merged and refused."""

import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hllm.api import Recommender
from hllm.batches.batch import text_batch
from hllm.errors import ConfigError, MissingExtraError
from hllm.models.backbone.backbone import load_backbone
from hllm.models.backbone.lora import LoraConfig, add_lora, merge_lora
from hllm.models.build import ModelConfig, build_model
from hllm.models.checkpoint import load_checkpoint, load_weights, merge_checkpoint, save_checkpoint
from hllm.models.user.llm import UserLLMConfig
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig
from hllm.training.optimizer import build_optimizer
from tests.conftest import history_of, recipe_values
from tests.models.backbone.families import DECODERS, FAMILIES, save_family

ITEMS = [[5, 6], [7, 8, 9]]


def config(item, user, **more) -> ModelConfig:
    """A model with rank-2 additions in both tiers, unless `more` says otherwise."""
    tier = {"kind": "llm", "lora": {"rank": 2, "alpha": 4}, "num_layers": 2}
    values = {
        "item": tier | {"backbone": str(item), "prompt": {"max_tokens": 16}},
        "user": tier | {"backbone": str(user)},
        "max_history": 8,
    }
    return ModelConfig.from_dict(values | more, where="test")


def build(chosen: ModelConfig, base) -> nn.Module:
    torch.manual_seed(0)
    return build_model(chosen, num_items=30, num_actions=0, base=base).eval()


@torch.no_grad()
def move(model: nn.Module) -> None:
    """Give the additions the values that training might."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.normal_(std=0.3)


@torch.no_grad()
def outputs(model) -> tuple[torch.Tensor, torch.Tensor]:
    items = model.item_encoder(text_batch(ITEMS))
    return items, model.user_encoder(history_of(items[None]))


@torch.no_grad()
def test_the_additions_are_those_of_the_paper(tiny_llama):
    """W + (alpha / rank) B A in place of W, worked out here, gives what the adapted network gives."""
    ours, plain = (load_backbone(tiny_llama, num_layers=None, pretrained=True) for _ in range(2))
    given, mask = torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
    add_lora(ours, LoraConfig(rank=3, alpha=12.0))
    assert torch.equal(ours(given, mask), plain(given, mask)), "before training they add nothing"
    move(ours)
    added = dict(ours.network.named_parameters())
    for number, layer in enumerate(plain.network.layers):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            a, b = (added[f"layers.{number}.self_attn.{name}.lora_{part}.default.weight"] for part in "AB")
            assert a.shape[0] == b.shape[1] == 3
            getattr(layer.self_attn, name).weight += 12.0 / 3 * b @ a
    assert (ours(given, mask) - plain(given, mask)).abs().max() < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("targets", ["attention", "all-linear"])
@torch.no_grad()
def test_every_family_can_be_adapted_and_merged(tmp_path, name, targets):
    folder = save_family(name, tmp_path)
    ours, plain = (load_backbone(folder, num_layers=None, pretrained=True) for _ in range(2))
    add_lora(ours, LoraConfig(rank=2, targets=targets))
    if name in DECODERS:
        ours.drop_word_embeddings()
    trained = {n for n, parameter in ours.named_parameters() if parameter.requires_grad}
    assert trained == {n for n, _ in ours.named_parameters() if "lora_" in n}
    # By their own names: q_proj, c_attn, query, Wqkv, q_lin, … Feed-forward maps only where all are asked for.
    assert any(any(word in n for word in ("attn", "attention")) for n in trained)
    assert any(any(word in n for word in ("mlp", "ffn", "fc1", "intermediate")) for n in trained) == (
        targets == "all-linear"
    )
    given, mask = torch.randn(2, 5, ours.input_width), torch.arange(5) < torch.tensor([[5], [3]])
    move(ours)
    adapted = ours(given, mask)[mask]
    assert (adapted - plain(given, mask)[mask]).abs().max() > 1e-2
    merged = merge_lora(ours)
    assert (merged(given, mask)[mask] - adapted).abs().max() < 1e-4
    if name in DECODERS:
        plain.drop_word_embeddings()
    assert {n: v.shape for n, v in merged.state_dict().items()} == {n: v.shape for n, v in plain.state_dict().items()}
    assert torch.equal(ours(given, mask)[mask], adapted), "the model itself is left as it was"


def test_only_additions_the_item_vector_and_the_projector_are_trained(tmp_path, tiny_llama, tiny_bert):
    model = build(config(tiny_bert, tiny_llama), tmp_path)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    beside = {"item_encoder.item_token", "item_encoder.projector.linear.weight", "item_encoder.projector.linear.bias"}
    assert {name for name in trained if "lora_" not in name} == beside | {"log_scale"}
    optimizer = build_optimizer(model, StageConfig(learning_rate=1e-2, item_learning_rate=1e-3))
    for _ in range(2):  # in the first step B is 0, and A learns nothing
        items = model.item_encoder(text_batch(ITEMS))
        (model.user_encoder(history_of(items[None])).sin().sum() * model.scale).backward()
        optimizer.step()
    after = dict(model.named_parameters())
    assert {name for name in before if not torch.equal(before[name], after[name])} == trained
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert group_of[id(model.item_encoder.item_token)]["weight_decay"] == 0, "vectors, though they stand in a matrix"
    slow = {name for name in trained if group_of[id(after[name])]["lr"] < 5e-3}
    assert slow == {name for name in trained if name.startswith(("item_encoder.backbone.", "item_encoder.item_token"))}


@torch.no_grad()
def test_a_checkpoint_with_additions_is_loaded_without_its_sources_and_goes_on_from_there(
    tmp_path, tiny_llama, tiny_bert
):
    chosen = config(tiny_bert, tiny_llama)
    model = build(chosen, tmp_path)
    move(model)
    save_checkpoint(tmp_path / "c", model, chosen, num_items=30, num_actions=0, tokenizer=tiny_bert, details={})
    again, _, _ = load_checkpoint(tmp_path / "c")
    fresh = build(chosen, tmp_path)
    load_weights(fresh, tmp_path / "c")
    for other in (again, fresh):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(outputs(model), outputs(other), strict=True))


@torch.no_grad()
def test_a_merged_checkpoint_gives_the_same_without_peft(tmp_path, monkeypatch, tiny_llama, tiny_bert):
    chosen = config(tiny_bert, tiny_llama)
    model = build(chosen, tmp_path)
    move(model)
    save_checkpoint(
        tmp_path / "c", model, chosen, num_items=30, num_actions=0, tokenizer=tiny_bert, details={"dataset": "d"}
    )
    merge_checkpoint(tmp_path / "c", tmp_path / "merged")
    monkeypatch.setitem(sys.modules, "peft", None)
    merged, plain, manifest = load_checkpoint(tmp_path / "merged")
    assert plain.item.lora is plain.user.lora is None
    assert manifest.details["dataset"] == "d"
    assert (tmp_path / "merged" / "item_backbone" / "tokenizer.json").is_file()
    for ours, theirs in zip(outputs(model), outputs(merged), strict=True):
        assert (ours - theirs).abs().max() < 1e-5
    with pytest.raises(MissingExtraError, match=r'needs the package .peft.*: pip install "hllm\[lora\]"'):
        load_checkpoint(tmp_path / "c")
    with pytest.raises(ConfigError, match="was trained without lora: there is nothing to merge"):
        merge_checkpoint(tmp_path / "merged", tmp_path / "twice")


def test_a_run_with_additions_is_trained_stored_and_asked(tmp_path, interactions, items, tiny_llama, tiny_bert):
    """Both stages of the tiny world: frozen item vectors first, then both tiers."""
    values = recipe_values(tiny_bert, tiny_llama)
    for tier in ("item", "user"):
        values["model"][tier]["lora"] = {"rank": 2, "dropout": 0.1, "targets": "all-linear"}
    recipe = Recipe.from_dict(values, where="test")
    asked = Recommender.fit(interactions, items, recipe=recipe, out=tmp_path / "run").recommend(["u1"], k=3)
    assert asked.equals(Recommender.load(tmp_path / "run").recommend(["u1"], k=3))
    weights = load_file(tmp_path / "run" / "checkpoints" / "best" / "user_encoder.safetensors")
    base = load_file(tiny_llama / "model.safetensors")
    assert torch.equal(
        weights["backbone.network.layers.0.mlp.up_proj.base_layer.weight"], base["model.layers.0.mlp.up_proj.weight"]
    )
    assert weights["backbone.network.layers.0.mlp.up_proj.lora_B.default.weight"].abs().max() > 1e-4


def test_what_lora_cannot_do_is_explained(tiny_llama):
    backbone = load_backbone(tiny_llama, num_layers=None, pretrained=True)
    for layer in backbone.network.layers:
        layer.self_attn = nn.Identity()
    with pytest.raises(ConfigError, match='has no linear maps in modules named for attention; set targets = "all-lin'):
        add_lora(backbone, LoraConfig())
    with pytest.raises(ConfigError, match="lora needs pretrained = true"):
        UserLLMConfig.from_dict({"backbone": "x", "pretrained": False, "lora": {}}, where="test")
