import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from hllm.errors import CheckpointError, ConfigError
from hllm.models.backbone import load_backbone, load_tokenizer
from hllm.models.build import ModelConfig, build_model, outline_model
from hllm.models.shapes import SHAPES
from hllm.models.sources import resolve_backbone
from hllm.models.user.llm import UserLLM

from ..conftest import history_of


@torch.no_grad()
def test_user_llm_against_transformers(tiny_llama, rng):
    """Right-padded histories together equal each history alone through the stock model."""
    user = UserLLM(load_backbone(tiny_llama, num_layers=None, pretrained=True)).eval()
    stock = AutoModel.from_pretrained(tiny_llama, dtype=torch.float32, attn_implementation="sdpa").eval()
    embeddings = torch.from_numpy(rng.normal(size=(3, 6, 16))).float()
    mask = torch.arange(6) < torch.tensor([[6], [2], [4]])
    ours = user(history_of(embeddings, mask))
    for row, length in enumerate((6, 2, 4)):
        alone = stock(inputs_embeds=embeddings[row : row + 1, :length]).last_hidden_state[0]
        assert (ours[row, :length] - alone).abs().max() < 1e-5


def test_a_user_tier_has_no_word_embeddings_and_no_head(tiny_llama):
    user = UserLLM(load_backbone(tiny_llama, num_layers=1, pretrained=True))
    assert not [name for name, _ in user.named_parameters() if "embed" in name or "lm_head" in name]


def test_an_encoder_cannot_be_a_user_tier(tiny_bert):
    with pytest.raises(ConfigError, match="'bert' reads both ways: as a user tier it would see what it is to predict"):
        UserLLM(load_backbone(tiny_bert, num_layers=None, pretrained=True))


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (Qwen3Config(vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=4, max_position_embeddings=64), Qwen3ForCausalLM),
        (GPT2Config(vocab_size=20, n_embd=16, n_layer=3, n_head=2, n_positions=64), GPT2LMHeadModel),
    ],
)  # fmt: skip
def test_other_decoders_come_through_the_same_door(tmp_path, config, model):
    model(config).save_pretrained(tmp_path / "m")
    backbone = load_backbone(tmp_path / "m", num_layers=2, pretrained=True).eval()
    assert backbone.causal
    assert backbone.width == 16
    out = backbone(torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool))
    assert out.shape == (2, 5, 16)


def test_wrong_models_are_explained(tmp_path, tiny_llama):
    with pytest.raises(ConfigError, match=r"num_layers is 3, but the model in .* has 2 layers; choose 1 to 2"):
        load_backbone(tiny_llama, num_layers=3, pretrained=True)
    with pytest.raises(ConfigError, match=r"is not a Hugging Face model directory: it has no config.json"):
        load_backbone(tmp_path, num_layers=None, pretrained=True)
    shutil.copytree(tiny_llama, tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no safetensors weights"):
        load_backbone(tmp_path / "bare", num_layers=None, pretrained=True)
    shutil.copytree(tiny_llama, tmp_path / "partial")
    weights = load_file(tiny_llama / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "partial" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"lack 1 of the network's tensors; first: layers\.1\.mlp\.up_proj\.weight"
    ):
        load_backbone(tmp_path / "partial", num_layers=None, pretrained=True)
    assert load_backbone(tmp_path / "partial", num_layers=1, pretrained=True), "the first layer is whole"
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    with pytest.raises(ConfigError, match="is not a config that transformers knows"):
        load_backbone(tmp_path / "odd", num_layers=None, pretrained=True)
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        load_tokenizer(tmp_path / "odd", 8)


def test_pickled_weights_are_not_read(tmp_path, tiny_llama):
    shutil.copytree(tiny_llama, tmp_path / "pickled")
    weights = load_file(tiny_llama / "model.safetensors")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds no safetensors weights"):
        load_backbone(tmp_path / "pickled", num_layers=None, pretrained=True)


def test_a_backbones_name_is_resolved_or_explained(tmp_path, monkeypatch, tiny_llama):
    monkeypatch.setenv("HLLM_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="smollm2-135m is not on this machine yet: hllm model fetch smollm2-135m"):
        resolve_backbone("smollm2-135m", tmp_path)
    with pytest.raises(ConfigError, match=r"'smolm2-135m' is neither a known model \(did you mean 'smollm2-135m'\?\)"):
        resolve_backbone("smolm2-135m", tmp_path)
    assert resolve_backbone(str(tiny_llama), tmp_path) == tiny_llama


def test_a_model_that_cannot_be_fetched_says_what_to_put_where(tmp_path, monkeypatch, tiny_llama):
    monkeypatch.setenv("HLLM_HOME", str(tmp_path / "home"))
    message = r"put huggingface\.co/TinyLlama/TinyLlama-1\.1B-intermediate-step-1431k-3T into .*home/models/tinyllama-1"
    with pytest.raises(ConfigError, match=message):
        resolve_backbone("tinyllama-1.1b", tmp_path)
    with pytest.raises(ConfigError, match=r"Baichuan2-7B-Base into .* each W_pack is split"):
        resolve_backbone("baichuan2-7b", tmp_path)
    place = tmp_path / "home" / "models" / "tinyllama-1.1b"
    shutil.copytree(tiny_llama, place)
    assert resolve_backbone("tinyllama-1.1b", tmp_path) == place
    beside_the_recipe = tmp_path / "tinyllama-1.1b"
    shutil.copytree(tiny_llama, beside_the_recipe)
    assert resolve_backbone("tinyllama-1.1b", tmp_path) == beside_the_recipe


@pytest.mark.parametrize(
    ("name", "published", "left_out"),
    [
        ("tinyllama-1.1b", 1_100_048_384, 32_000 * 2048),
        ("baichuan2-7b", 7_505_973_248, 125_696 * 4096),
        ("bert-base", 109_482_240, 768 * 768 + 768),
        ("bert-large", 335_141_888, 1024 * 1024 + 1024),
        ("smollm2-135m", 134_515_008, 0),
        ("minilm-l6", 22_713_216, 384 * 384 + 384),
    ],
)
def test_known_shapes_have_the_published_number_of_parameters(name, published, left_out):
    """Published counts include the LM head, or BERT's pooler, which a backbone does without."""
    with torch.device("meta"):
        backbone = load_backbone(SHAPES[name].config, num_layers=None, pretrained=False)
    assert sum(p.numel() for p in backbone.parameters()) == published - left_out
    assert backbone.causal == (name not in ("bert-base", "bert-large", "minilm-l6"))
    assert backbone.width == SHAPES[name].config["hidden_size"]


def test_a_user_tier_from_scratch_needs_a_shape_and_an_item_tier_a_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setenv("HLLM_HOME", str(tmp_path))
    user = {"kind": "llm", "backbone": "smollm2-135m", "pretrained": False, "num_layers": 1}
    ids = ModelConfig.from_dict({"item": {"kind": "id"}, "user": user}, where="test")
    model = build_model(ids, num_items=5, num_actions=0, base=tmp_path)
    assert model.user_encoder.backbone.width == 576
    text = ModelConfig.from_dict({"item": user, "user": user}, where="test")
    with pytest.raises(ConfigError, match="smollm2-135m is not on this machine yet: hllm model fetch smollm2-135m"):
        build_model(text, num_items=5, num_actions=0, base=tmp_path)


def test_an_outline_has_the_shape_of_the_model_and_no_weights(tmp_path, tiny_llama, tiny_bert):
    item = {"kind": "llm", "backbone": str(tiny_bert), "num_layers": 1, "whiten": True}
    config = ModelConfig.from_dict(
        {"item": item, "user": {"kind": "llm", "backbone": str(tiny_llama)}, "inputs": {"item_id": True}}, where="test"
    )
    outline = outline_model(config, num_items=7, num_actions=0, base=tmp_path)
    model = build_model(config, num_items=7, num_actions=0, base=tmp_path)
    assert all(parameter.is_meta for parameter in outline.parameters())
    described = {name: (p.shape, p.requires_grad) for name, p in outline.named_parameters()}
    assert described == {name: (p.shape, p.requires_grad) for name, p in model.named_parameters()}
