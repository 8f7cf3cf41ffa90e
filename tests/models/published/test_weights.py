import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from hllm.batches.batch import text_batch
from hllm.errors import CheckpointError, ConfigError
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.checkpoint import load_checkpoint
from hllm.models.published.weights import import_published
from hllm.models.tiers import History

REFERENCE = Path(__file__).parents[2] / "parity" / "fixtures" / "A"
TOKENS = [[1, 9, 5, 7], [1], [1, 10, 11]]
SIZES = {
    "vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "hidden_act": "silu",
}  # fmt: skip


@pytest.fixture
def published() -> dict[str, torch.Tensor]:
    return torch.load(REFERENCE / "pytorch_model.bin", weights_only=True)


@pytest.fixture
def bring(tmp_path):
    """Import a state dict, by default under the configs of the reference's fixture, and load what came out."""

    def run(content, *, name="weights.bin", item=REFERENCE / "item_llm", user=REFERENCE / "user_llm", **options):
        (save_file if name.endswith(".safetensors") else torch.save)(content, tmp_path / name)
        done = import_published(tmp_path / name, item_config=item, user_config=user, out=tmp_path / "out", **options)
        return done, *load_checkpoint(tmp_path / "out")

    return run


@pytest.fixture
def refused(bring, tmp_path):
    """Expect an error, and nothing left behind."""

    def run(content, match, *, error=CheckpointError, **options):
        with pytest.raises(error, match=match):
            bring(content, **options)
        assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []

    return run


def folder_with(config: dict, path: Path) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_every_tensor_is_used_or_ignored_for_a_reason(bring, published, tmp_path):
    done, model, config, manifest = bring(published)
    assert done.used + sum(map(len, done.ignored.values())) == len(published) == 44
    assert sorted(name for names in done.ignored.values() for name in names) == [
        "item_llm.lm_head.weight", "user_llm.lm_head.weight", "user_llm.model.embed_tokens.weight",
    ]  # fmt: skip
    assert model.log_scale.item() == published["logit_scale"].item()
    assert done.clamped_from is None
    assert config.temperature == pytest.approx(math.exp(-1.9))
    assert manifest.details["imported"]["file"] == "weights.bin"
    kept = load_file(tmp_path / "out" / "item_encoder.safetensors")
    assert torch.equal(kept["item_token"], published["item_emb_tokens"][0])
    assert torch.equal(kept["backbone.network.norm.weight"], published["item_llm.model.norm.weight"])


def test_text_is_read_by_the_references_recipe(bring, published):
    _, _, config, _ = bring(published, max_history=10, max_tokens=32)
    prompt = config.item.prompt
    assert prompt.prefix == "Compress the following sentence into embedding: "
    assert (prompt.separator, prompt.field_names) == ("", True)
    assert (config.max_history, prompt.max_tokens) == (10, 32)


def test_without_an_item_vector_texts_are_pooled_by_their_mean(bring, published):
    del published["item_emb_tokens"]
    done, model, config, _ = bring(published)
    assert done.pooling == config.item.pooling == "mean"
    assert model.item_encoder.item_token is None


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{k}": v for k, v in state.items()},
        lambda state: {f"model.{k}": v for k, v in state.items()},
        lambda state: {f"module.model.{k}": v for k, v in state.items()},
        lambda state: {"state_dict": state},
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": {"model": {f"module.{k}": v for k, v in state.items()}}, "epoch": 3},
    ],
)
def test_wrappers_and_prefixes_change_nothing(bring, published, wrap):
    _, model, _, _ = bring(wrap(published))
    found = model.state_dict()
    assert torch.equal(
        found["user_encoder.backbone.network.layers.1.mlp.up_proj.weight"],
        published["user_llm.model.layers.1.mlp.up_proj.weight"],
    )
    assert found["log_scale"] == published["logit_scale"]


def test_safetensors_and_torchs_old_format_are_read_too(bring, published, tmp_path):
    _, first, _, _ = bring(published, name="weights.safetensors")
    shutil.rmtree(tmp_path / "out")
    torch.save(published, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    import_published(
        tmp_path / "old.bin",
        item_config=REFERENCE / "item_llm",
        user_config=REFERENCE / "user_llm",
        out=tmp_path / "out",
    )
    again = load_checkpoint(tmp_path / "out")[0].state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.state_dict().items())


def test_rotary_frequencies_are_ignored(bring, published):
    for name in ("item_llm.model.layers.0.self_attn.rotary_emb.inv_freq", "user_llm.model.rotary_emb.inv_freq"):
        published[name] = torch.ones(4)
    done, *_ = bring(published)
    assert (done.used, sum(map(len, done.ignored.values()))) == (41, 5)


def test_half_precision_stays_on_disk_and_is_read_as_float32(bring, published, tmp_path):
    halved = {name: value.bfloat16() for name, value in published.items()}
    _, model, _, _ = bring(halved)
    assert (
        load_file(tmp_path / "out" / "user_encoder.safetensors")["backbone.network.norm.weight"].dtype == torch.bfloat16
    )
    weight = model.user_encoder.backbone.network.norm.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, halved["user_llm.model.norm.weight"].float())


@pytest.mark.parametrize(("found", "expected"), [(5.0, math.log(100)), (-0.5, 0.0)])
def test_a_scale_out_of_range_is_brought_back_and_said(bring, published, found, expected):
    published["logit_scale"] = torch.tensor(found)
    done, model, _, _ = bring(published)
    assert model.log_scale.item() == pytest.approx(expected)
    assert done.clamped_from == found


def test_a_scale_that_rounding_put_above_the_bound_is_no_news(bring, published):
    published["logit_scale"] = torch.tensor(math.log(100))
    assert published["logit_scale"].item() > math.log(100)
    done, *_ = bring(published)
    assert done.clamped_from is None


def test_faults_are_counted_and_named(refused, published):
    del published["user_llm.model.layers.1.mlp.up_proj.weight"]
    del published["item_llm.model.norm.weight"]
    published["cat_llm.model.norm.weight"] = torch.ones(32)
    published["item_llm.model.embed_tokens.weight"] = torch.ones(301, 32)
    published["user_llm.model.norm.weight"] = torch.ones(32, dtype=torch.int8)
    refused(
        published,
        r"weights\.bin does not fit the configs: "
        r"2 missing, first: item_llm\.model\.norm\.weight, user_llm\.model\.layers\.1\.mlp\.up_proj\.weight; "
        r"1 unexpected, first: cat_llm\.model\.norm\.weight; "
        r"1 of another shape, first: item_llm\.model\.embed_tokens\.weight \(301, 32\), expected \(300, 32\); "
        r"1 not floating point, first: user_llm\.model\.norm\.weight\. Check that --item-config",
    )


@pytest.mark.parametrize(
    ("scale", "match"),
    [
        (None, r"lacks 'logit_scale': it is not a state dict of HLLM"),
        (torch.tensor(math.nan), r"has shape \(\) and value nan; expected one finite number"),
        (torch.ones(2), r"has shape \(2,\)"),
    ],
)
def test_a_scale_that_is_no_number_is_refused(refused, published, scale, match):
    published.pop("logit_scale")
    refused(published if scale is None else published | {"logit_scale": scale}, match)


class Evil:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return Path.mkdir, (self.victim,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_asks_for_code_is_refused_before_it_runs(tmp_path, published, zipped):
    victim = tmp_path / "victim"
    content = published | {"extra": Evil(victim)}
    torch.save(content, tmp_path / "evil.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r"evil\.bin holds more than tensors.*nothing of it was run \(Unsupported global"
    ):
        import_published(
            tmp_path / "evil.bin",
            item_config=REFERENCE / "item_llm",
            user_config=REFERENCE / "user_llm",
            out=tmp_path / "out",
        )
    assert not victim.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([1, 2], "holds a list, expected a dict of tensors"),
        ({"epoch": 3, "lr": 0.1}, r"is not a state dict: 2 of 2 entries are no tensors; first: 'epoch', 'lr'"),
        ({}, "is not a state dict: it is empty"),
    ],
)
def test_other_contents_are_named(refused, content, match):
    refused(content, match)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("w.safetensors", b"\0" * 100, "is not a readable safetensors file"),
        ("w.bin", b"hello", r"w\.bin holds more than tensors, or is no torch file|is damaged or no torch file"),
        (
            "w.bin",
            (REFERENCE / "pytorch_model.bin").read_bytes()[:200_000],
            "is damaged or no torch file|no torch file",
        ),
        ("w.bin", None, "there is no file .*w.bin; give the weights"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, match):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=match):
        import_published(tmp_path / name, item_config=tmp_path, user_config=tmp_path, out=tmp_path / "out")


def test_an_existing_directory_is_not_replaced(bring, published, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="out exists already; give a new directory"):
        bring(published)


# -- other language models


def two_llms(make) -> dict[str, torch.nn.Module]:
    llms = {}
    for seed, name in enumerate(("item_llm", "user_llm")):
        torch.manual_seed(seed)
        llms[name] = make().eval()
        for parameter in llms[name].parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return llms


def flat_state(llms: dict[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    state = {f"{name}.{key}": value for name, llm in llms.items() for key, value in llm.state_dict().items()}
    return state | {"item_emb_tokens": torch.randn(1, 1, 16), "logit_scale": torch.tensor(2.0)}


@torch.no_grad()
def require_same_embeddings(model, llms, item_vector):
    """Run transformers' own models, one item at a time, and compare."""
    items = []
    for ids in TOKENS:
        words = llms["item_llm"].model.embed_tokens(torch.tensor([ids]))
        states = llms["item_llm"].model(inputs_embeds=torch.cat([words, item_vector], dim=1))
        items.append(states.last_hidden_state[0, -1])
    expected = torch.stack(items)
    torch.testing.assert_close(model.item_encoder(text_batch(TOKENS)), expected, rtol=0, atol=1e-5)
    users = llms["user_llm"].model(inputs_embeds=expected[None]).last_hidden_state
    mask = torch.ones(1, len(TOKENS), dtype=torch.bool)
    found = model.user_encoder(
        History(embeddings=expected[None], mask=mask, times=torch.zeros_like(mask, dtype=torch.long))
    )
    torch.testing.assert_close(found, users, rtol=0, atol=1e-5)


def baichuan_config(**changes) -> dict:
    code = {"AutoConfig": "configuration_baichuan.BaichuanConfig"}
    return {"model_type": "baichuan", "architectures": ["BaichuanForCausalLM"], "auto_map": code} | SIZES | changes


def packed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give q, k and v the form in which Baichuan keeps them."""
    result = dict(state)
    for name in state:
        if ".q_proj." in name:
            parts = [result.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
            result[name.replace("q_proj", "W_pack")] = torch.cat(parts)
    return result


def test_baichuan_gives_the_embeddings_of_the_equal_llama(bring, tmp_path):
    llms = two_llms(lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=4, tie_word_embeddings=False)))
    state = flat_state(llms)
    content = packed(state)
    assert len(content) == len(state) - 2 * 2 * 2
    assert content["item_llm.model.layers.0.self_attn.W_pack.weight"].shape == (48, 16)
    folder = folder_with(baichuan_config(), tmp_path / "baichuan")
    done, model, _, _ = bring(content, item=folder, user=folder)
    assert done.used == len(content) - 3
    require_same_embeddings(model, llms, state["item_emb_tokens"])


def test_baichuan_from_safetensors_is_the_same(bring, tmp_path):
    llms = two_llms(lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=4, tie_word_embeddings=False)))
    state = flat_state(llms)
    folder = folder_with(baichuan_config(), tmp_path / "baichuan")
    _, model, _, _ = bring(packed(state), name="weights.safetensors", item=folder, user=folder)
    require_same_embeddings(model, llms, state["item_emb_tokens"])


@pytest.mark.parametrize(("num_layers", "pack", "num_tensors"), [(22, False, 404), (32, True, 456)])
def test_the_published_files_have_as_many_tensors_as_are_expected(bring, tmp_path, num_layers, pack, num_tensors):
    sizes = SIZES | {"num_hidden_layers": num_layers}
    config = LlamaConfig(**sizes, num_key_value_heads=4, tie_word_embeddings=False)
    state = flat_state({name: LlamaForCausalLM(config) for name in ("item_llm", "user_llm")})
    content = packed(state) if pack else state
    assert len(content) == num_tensors
    values = baichuan_config(num_hidden_layers=num_layers) if pack else config.to_dict()
    folder = folder_with(values, tmp_path / "base")
    done, *_ = bring(content, item=folder, user=folder)
    assert done.used == num_tensors - 3


def test_mistral(bring, tmp_path):
    config = MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=None, tie_word_embeddings=False)
    llms = two_llms(lambda: MistralForCausalLM(config))
    state = flat_state(llms)
    folder = folder_with(config.to_dict(), tmp_path / "mistral")
    _, model, _, _ = bring(state, item=folder, user=folder)
    require_same_embeddings(model, llms, state["item_emb_tokens"])


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (baichuan_config(hidden_size=5120), "is of a Baichuan with ALiBi"),
        ({k: v for k, v in baichuan_config().items() if k != "max_position_embeddings"}, "is of a Baichuan with ALiBi"),
        ({"model_type": "baichuan", "max_position_embeddings": 64}, "config.json lacks vocab_size, hidden_size"),
        ({"model_type": "mystery"}, r"base/config\.json is not a config that transformers knows"),
        ({"model_type": "llama"} | SIZES | {"num_attention_heads": 5}, "is not a config that transformers knows"),
        ([], "holds no JSON object"),
    ],
)
def test_configs_of_other_models_are_refused(refused, published, tmp_path, config, match):
    refused(published, match, error=ConfigError, item=folder_with(config, tmp_path / "base"))


def test_a_missing_or_broken_config_is_named(refused, published, tmp_path):
    refused(published, "holds no config.json; give the directory of the base model", error=ConfigError, user=tmp_path)
    (tmp_path / "config.json").write_text("{")
    refused(published, r"config\.json cannot be read", error=ConfigError, user=tmp_path)


def test_tiers_of_different_width_are_refused(refused, published, tmp_path):
    narrow = folder_with({"model_type": "llama"} | SIZES, tmp_path / "narrow")
    refused(published, "the two configs are of different hidden_size", user=narrow)


# -- tokenizers


def test_a_tokenizer_beside_the_config_comes_along(bring, published, tmp_path, tiny_llama):
    folder = tmp_path / "base"
    shutil.copytree(tiny_llama, folder)
    shutil.copy(REFERENCE / "item_llm" / "config.json", folder / "config.json")
    done, *_ = bring(published, item=folder)
    assert done.tokenizer == "copied"
    original, _ = load_tokenizer(tiny_llama, 9)
    copied, _ = load_tokenizer(tmp_path / "out" / "item_backbone", 9)
    assert copied(["red shoe"]) == original(["red shoe"])


def test_a_tokenizer_that_is_code_is_left_out_and_said(bring, published, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(REFERENCE / "item_llm", folder)
    settings = {
        "tokenizer_class": "BaichuanTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_baichuan.BaichuanTokenizer", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.model").write_bytes(b"not sentencepiece")
    done, *_ = bring(published, item=folder)
    assert done.tokenizer.startswith("not copied")
    assert f"{folder} contains custom code" in done.tokenizer
    assert "put a tokenizer.json there, and no auto_map" in done.tokenizer
    assert {path.name for path in (tmp_path / "out" / "item_backbone").iterdir()} == {"config.json", "facts.json"}


def test_without_a_tokenizer_the_report_says_so(bring, published):
    done, *_ = bring(published)
    assert done.tokenizer.endswith("the checkpoint reads token ids, no new text")
