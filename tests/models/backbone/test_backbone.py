import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, BartConfig, Gemma3Config, GPTNeoConfig, T5Config

from hllm.batches.batch import text_batch
from hllm.errors import CheckpointError, ConfigError
from hllm.models.backbone.backbone import load_backbone
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.build import ModelConfig, build_model, outline_model
from hllm.models.checkpoint import load_checkpoint, save_checkpoint
from hllm.models.item.text import TextItemEncoder
from hllm.models.user.llm import UserLLM
from hllm.sources.language_models import resolve_backbone
from hllm.sources.shapes import SHAPES
from tests.conftest import history_of
from tests.models.backbone.families import DECODERS, ENCODERS, FAMILIES, LEARNT_POSITIONS, VOCABULARY, save_family


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


@pytest.fixture(scope="session")
def family(request, tmp_path_factory):
    return save_family(request.param, tmp_path_factory.mktemp("families"))


every_family = pytest.mark.parametrize("family", FAMILIES, indirect=True)
every_decoder = pytest.mark.parametrize("family", DECODERS, indirect=True)
every_encoder = pytest.mark.parametrize("family", ENCODERS, indirect=True)


def ragged(rng) -> tuple[list[list[int]], torch.Tensor, torch.Tensor]:
    """Texts of 9, 2 and 5 words, alone and padded on the right by an ordinary word."""
    texts = [rng.integers(3, VOCABULARY, length).tolist() for length in (9, 2, 5)]
    padded = torch.tensor([text + [7] * (9 - len(text)) for text in texts])
    return texts, padded, torch.arange(9) < torch.tensor([[len(text)] for text in texts])


@pytest.mark.reliability("batches")
@every_family
@pytest.mark.parametrize("attention", ["eager", None])
@torch.no_grad()
def test_texts_together_equal_each_text_alone_in_the_stock_model(monkeypatch, family, attention, rng):
    """`embed` and `forward` of padded rows against input_ids of one row. None is the attention chosen on a GPU."""
    monkeypatch.setattr("hllm.models.backbone.opening._attention", lambda: attention)
    backbone = load_backbone(family, num_layers=None, pretrained=True)
    stock = AutoModel.from_pretrained(family).eval()
    texts, padded, mask = ragged(rng)
    ours = backbone(backbone.embed(padded), mask)
    for row, text in zip(ours, texts, strict=True):
        alone = stock(input_ids=torch.tensor([text])).last_hidden_state[0]
        assert (row[: len(text)] - alone).abs().max() < 1e-5
        assert alone.std() > 0.1, "the states differ enough for the comparison to mean something"
    assert ours.shape[-1] == backbone.width


EARLY = {"llama", "qwen2", "qwen3", "mistral", "gemma", "phi3"}


@every_family
def test_states_at_some_positions_are_those_of_the_whole_with_their_gradients(family, rng):
    """Also where the last layer reads these positions alone, in the families whose layers allow it."""
    backbone = load_backbone(family, num_layers=None, pretrained=True).train()
    weights = [p for n, p in backbone.network.named_parameters() if "embed" not in n and p.requires_grad]
    _, padded, mask = ragged(rng)
    positions = torch.tensor([[8, 0], [1, 1], [4, 2]])
    embedded = backbone.embed(padded).detach()
    weighted = torch.from_numpy(rng.normal(size=(3, 2, backbone.width))).float()
    gradients = {}
    widths = []
    layers = getattr(backbone.network, "layers", None)
    if layers is not None and hasattr(layers[-1], "mlp"):
        layers[-1].mlp.register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[-2]))
    for name in ("whole", "at"):
        if name == "whole":
            states = backbone(embedded, mask)[torch.arange(3)[:, None], positions]
        else:
            states = backbone.at(embedded, mask, positions)
        (states * weighted).sum().backward()
        gradients[name] = states.detach(), [None if p.grad is None else p.grad.clone() for p in weights]
        backbone.zero_grad()
    torch.testing.assert_close(gradients["at"][0], gradients["whole"][0], rtol=1e-5, atol=1e-6)
    for ours, expected in zip(gradients["at"][1], gradients["whole"][1], strict=True):
        if expected is not None:
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    if family.name in EARLY:
        assert widths == [9, 2]


def test_threads_that_ask_for_different_positions_do_not_disturb_each_other(tiny_llama):
    backbone = load_backbone(tiny_llama, num_layers=None, pretrained=True)
    vectors, mask = torch.randn(4, 30, backbone.input_width), torch.ones(4, 30, dtype=torch.bool)
    with torch.no_grad():
        whole = backbone(vectors, mask)

    def wrong(position: int) -> int:
        at = torch.full((4, 1), position)
        with torch.no_grad():
            return sum(not torch.allclose(backbone.at(vectors, mask, at)[:, 0], whole[:, position]) for _ in range(20))

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(wrong, range(8))) == 0


@every_family
@torch.no_grad()
def test_the_first_layers_are_those_of_the_stock_model(family, rng):
    backbone = load_backbone(family, num_layers=2, pretrained=True)
    stock = AutoModel.from_pretrained(family).eval()
    stock.config.num_hidden_layers = 2  # what ALBERT, whose layers are one, and Gemma count
    for module in stock.modules():
        if isinstance(module, nn.ModuleList) and len(module) == 3:
            del module[2:]
    texts, padded, mask = ragged(rng)
    ours = backbone(backbone.embed(padded), mask)
    for row, text in zip(ours, texts, strict=True):
        alone = stock(input_ids=torch.tensor([text])).last_hidden_state[0]
        assert (row[: len(text)] - alone).abs().max() < 1e-5


@every_decoder
@torch.no_grad()
def test_a_user_llm_holds_no_words_and_sees_nothing_of_later_items(family, rng):
    user = UserLLM(load_backbone(family, num_layers=None, pretrained=True))
    assert not [name for name, _ in user.named_parameters() if re.search("embed_tokens|embed_in|wte|lm_head", name)]
    given = torch.from_numpy(rng.normal(size=(2, 6, user.backbone.width))).float()
    changed = given.clone()
    changed[:, 4:] = torch.from_numpy(rng.normal(size=(2, 2, user.backbone.width)))
    before, after = user(history_of(given)), user(history_of(changed))
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-6)
    assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-2)


@every_decoder
@torch.no_grad()
def test_item_vectors_enter_a_user_llm_where_embedded_words_do(family, rng):
    """A history of word embeddings is a text: the stock model gives the same states for its input_ids."""
    backbone = load_backbone(family, num_layers=None, pretrained=True)
    texts, padded, mask = ragged(rng)
    embeddings = backbone.embed(padded)
    states = UserLLM(backbone)(history_of(embeddings, mask))
    stock = AutoModel.from_pretrained(family).eval()
    for row, text in zip(states, texts, strict=True):
        alone = stock(input_ids=torch.tensor([text])).last_hidden_state[0]
        assert (row[: len(text)] - alone).abs().max() < 1e-5


@every_encoder
def test_a_network_that_reads_both_ways_cannot_be_a_user_tier(family):
    with pytest.raises(ConfigError, match="reads both ways: as a user tier it would see what it is to predict"):
        UserLLM(load_backbone(family, num_layers=None, pretrained=True))


@every_family
@torch.no_grad()
def test_a_checkpoint_of_any_family_is_rebuilt_from_its_config(family, tmp_path):
    decoder = family.name in DECODERS
    user = {"kind": "llm", "backbone": str(family), "num_layers": 1} if decoder else {"kind": "sasrec", "dim": 16}
    item = {"kind": "llm", "backbone": str(family), "num_layers": 2, "prompt": {"max_tokens": 32}}
    chosen = ModelConfig.from_dict({"item": item, "user": user, "max_history": 20}, where="test")
    model = build_model(chosen, num_items=3, num_actions=0, base=tmp_path).eval()
    save_checkpoint(tmp_path / "c", model, chosen, num_items=3, num_actions=0, tokenizer=None, details={})
    again, _, _ = load_checkpoint(tmp_path / "c")
    items = model.item_encoder(text_batch([[5, 6], [7, 8, 9]]))
    assert torch.equal(again.item_encoder(text_batch([[5, 6], [7, 8, 9]])), items)
    assert torch.equal(again.user_encoder(history_of(items[None])), model.user_encoder(history_of(items[None])))


@every_family
@torch.no_grad()
def test_nothing_is_dropped_in_training(family, rng):
    backbone = load_backbone(family, num_layers=None, pretrained=True)
    _, padded, mask = ragged(rng)
    embeddings = backbone.embed(padded)
    assert torch.equal(backbone.train()(embeddings, mask)[mask], backbone.eval()(embeddings, mask)[mask])


@every_family
def test_given_weights_are_taken_as_they_are_and_none_are_drawn(family):
    network = load_backbone(family, num_layers=None, pretrained=True).network
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    filled = load_backbone(family, num_layers=None, pretrained=False, weights=weights)
    if not hasattr(filled.network, "pooler"):  # which is not kept, and drawn to be thrown away
        assert torch.equal(torch.get_rng_state(), before)
    vectors = torch.randn(2, 5, filled.input_width)
    with torch.no_grad():
        states = [model(inputs_embeds=vectors).last_hidden_state for model in (filled.network, network)]
    assert torch.equal(*states)
    assert filled.network.state_dict().keys() == weights.keys()


@every_decoder
def test_words_that_a_user_tier_has_not_kept_are_not_drawn_to_be_dropped(family):
    network = load_backbone(family, num_layers=None, pretrained=True).network
    words = network.get_input_embeddings().weight
    weights = {name: value for name, value in network.named_parameters() if value is not words}
    weights = {name: value.detach().clone() for name, value in weights.items()}
    assert len(weights) < len(list(network.parameters()))
    before = torch.get_rng_state()
    filled = load_backbone(family, num_layers=None, pretrained=False, weights=weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert not filled.network.get_input_embeddings().weight.any()
    UserLLM(filled)
    assert dict(filled.network.named_parameters()).keys() == weights.keys()


@every_family
def test_fresh_weights_have_the_shape_and_come_from_the_seed(family):
    pretrained = load_backbone(family, num_layers=None, pretrained=True).state_dict()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(load_backbone(family, num_layers=None, pretrained=False).state_dict())
    assert {name: value.shape for name, value in drawn[0].items()} == {n: v.shape for n, v in pretrained.items()}
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    matrices = [name for name, value in drawn[0].items() if value.ndim == 2]
    assert not [name for name in matrices if torch.equal(drawn[0][name], drawn[2][name])]
    assert not [name for name in matrices if torch.equal(drawn[0][name], pretrained[name])]


@every_family
@torch.no_grad()
def test_a_table_of_positions_bounds_texts_and_histories_when_the_model_is_built(family, tmp_path):
    limit = LEARNT_POSITIONS.get(family.name)
    backbone = load_backbone(family, num_layers=1, pretrained=True)
    assert backbone.max_positions == limit
    longest = limit or 60  # longer than max_position_embeddings, which binds no network that computes its positions
    backbone(torch.randn(1, longest, backbone.input_width), torch.ones(1, longest, dtype=torch.bool))
    if limit is None:
        return
    decoder = family.name in DECODERS

    def build(max_tokens: int, max_history: int, **item) -> None:
        user = {"kind": "llm", "backbone": str(family)} if decoder else {"kind": "sasrec", "dim": 16}
        item = {"kind": "llm", "backbone": str(family), "prompt": {"max_tokens": max_tokens}} | item
        values = {"item": item, "user": user, "max_history": max_history}
        build_model(ModelConfig.from_dict(values, where="test"), num_items=3, num_actions=0, base=tmp_path)

    build(limit - 1, limit)
    build(limit, limit, pooling="last")
    for added in (1, 2):
        tokens = limit + 1 - added
        said = f"max_tokens = {tokens} with pooling 'item' makes sequences of {limit + 1} positions, but .* knows only {limit}"
        with pytest.raises(ConfigError, match=said):
            build(tokens, limit, num_item_tokens=added)
    if decoder:
        with pytest.raises(ConfigError, match=rf"max_history = {limit + 1} makes sequences of {limit + 1} positions"):
            build(8, limit + 1)


def test_the_item_vector_is_drawn_in_the_scale_of_words_that_enter(tmp_path):
    """Gemma multiplies its words by √16 = 4; the [ITEM] vector enters behind that place."""
    vectors = []
    for name in ("llama", "gemma"):
        backbone = load_backbone(save_family(name, tmp_path), num_layers=None, pretrained=True)
        torch.manual_seed(0)
        encoder = TextItemEncoder(backbone, 16, pooling="item", whiten=False, train_word_embeddings=False)
        vectors.append(encoder.item_token)
    torch.manual_seed(0)
    assert torch.allclose(vectors[0], torch.randn(1, 16) * 0.02)
    assert torch.allclose(vectors[1], vectors[0] * 4)


@pytest.mark.parametrize(
    "config",
    [T5Config(vocab_size=20, d_model=16, num_layers=2), BartConfig(vocab_size=20, d_model=16), Gemma3Config()],
    ids=["t5", "bart", "gemma-with-images"],
)
def test_models_of_more_than_a_text_or_with_a_decoder_behind_an_encoder_are_refused(tmp_path, config):
    config.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="neither a causal language model nor a bidirectional encoder of text alone"):
        load_backbone(tmp_path, num_layers=None, pretrained=False)


def test_a_model_whose_config_cannot_be_cut_is_explained(tmp_path):
    config = GPTNeoConfig(vocab_size=20, hidden_size=16, num_layers=2, num_heads=2, max_position_embeddings=20,
                          attention_types=[[["global", "local"], 1]], bos_token_id=1, eos_token_id=2)  # fmt: skip
    AutoModel.from_config(config).save_pretrained(tmp_path)
    assert load_backbone(tmp_path, num_layers=None, pretrained=True).causal
    with pytest.raises(ConfigError, match="of type 'gpt_neo' cannot be cut to 1 layers; leave num_layers out: "):
        load_backbone(tmp_path, num_layers=1, pretrained=True)


def test_weights_that_do_not_fit_the_config_are_explained(tmp_path, tiny_llama):
    shutil.copytree(tiny_llama, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(CheckpointError, match="holds no safetensors weights that fit its config"):
        load_backbone(tmp_path / "m", num_layers=None, pretrained=True)


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
