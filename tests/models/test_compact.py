import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from hllm import artifacts
from hllm.batches.batch import text_batch
from hllm.errors import CheckpointError
from hllm.models.build import ModelConfig, build_model
from hllm.models.checkpoint import compact_checkpoint, load_checkpoint, save_checkpoint
from hllm.models.compact import from_int8, load_part, save_part, to_int8


def test_int8_by_hand():
    weight = torch.tensor([[1.27, -0.634, 0.006], [0.0, 0.0, 0.0]])
    steps, scale = to_int8(weight, 0)
    assert steps.tolist() == [[127, -63, 1], [0, 0, 0]]
    assert scale.flatten().tolist() == pytest.approx([0.01, 0.0])
    by_column, scales = to_int8(weight.T, 1)
    assert torch.equal(by_column, steps.T)
    assert torch.equal(scales, scale.T)
    torch.testing.assert_close(from_int8(steps, scale)[0], torch.tensor([1.27, -0.63, 0.01]))


def test_no_weight_is_off_by_more_than_half_a_step():
    weight = torch.randn(50, 70) * torch.logspace(-6, 3, 50)[:, None]
    steps, scale = to_int8(weight, 0)
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((from_int8(steps, scale) - weight).abs() <= 0.50001 * step).all()


class Mixed(nn.Module):
    """One of everything that the tiers are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.words = nn.Embedding(5, 4)
        self.transposed = Conv1D(3, 4)
        self.recurrent = nn.GRU(4, 3)
        self.norm = nn.LayerNorm(4)
        self.item_token = nn.Parameter(torch.randn(1, 4))
        self.register_buffer("whitening", torch.randn(4, 4))


def test_matrices_are_compacted_and_norms_biases_tokens_and_statistics_are_not(tmp_path):
    torch.manual_seed(0)
    module = Mixed()
    with torch.no_grad():
        module.transposed.weight *= torch.tensor([1.0, 100.0, 1e4])  # a column is an output channel
    save_part(module, tmp_path, "part", "int8", leave_out={"words.weight"})
    stored = load_file(tmp_path / "part.safetensors")
    assert {name for name, value in stored.items() if value.dtype == torch.int8} == {
        "linear.weight", "transposed.weight", "recurrent.weight_ih_l0", "recurrent.weight_hh_l0",
    }  # fmt: skip
    assert "words.weight" not in stored
    again = load_part(tmp_path, "part", "int8")
    for name, value in module.state_dict().items():
        if name != "words.weight":
            assert again[name].dtype == torch.float32
            if stored[name].dtype != torch.int8:
                assert torch.equal(again[name], value)
    error = (again["transposed.weight"] - module.transposed.weight.detach()).abs().amax(0)
    assert (error <= module.transposed.weight.detach().abs().amax(0) / 127 * 0.501).all()


def test_bf16_is_torchs_rounding(tmp_path):
    module = Mixed()
    save_part(module, tmp_path, "part", "bf16", leave_out=set())
    again = load_part(tmp_path, "part", "bf16")
    assert torch.equal(again["words.weight"], module.words.weight.detach().bfloat16().float())
    assert torch.equal(again["item_token"], module.item_token.detach())


@pytest.fixture
def small(tmp_path, tiny_llama):
    config = ModelConfig.from_dict(
        {"item": {"kind": "llm", "backbone": str(tiny_llama), "num_layers": 1},
         "user": {"kind": "llm", "backbone": str(tiny_llama), "num_layers": 1}}, where="test",
    )  # fmt: skip
    model = build_model(config, num_items=3, num_actions=0, base=tmp_path).eval()
    save_checkpoint(tmp_path / "c", model, config, num_items=3, num_actions=0, tokenizer=tiny_llama, details={})
    compact_checkpoint(tmp_path / "c", tmp_path / "int8", "int8")
    return tmp_path / "int8"


def reseal(path, **details):
    """Write the manifest again, so that only what the loader itself checks is left to find the fault."""
    kept = artifacts.read_manifest(path, "checkpoint").details
    files = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "manifest.json"}
    with artifacts.writing(path, "checkpoint", kept | details) as folder:
        for file, content in files.items():
            target = folder / file.relative_to(path)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content)


@pytest.mark.parametrize("fault", ["missing", "extra", "shape", "nan", "negative"])
def test_scales_that_do_not_fit_are_refused(small, fault):
    load_checkpoint(small)
    file = small / "user_encoder.scales.safetensors"
    scales = load_file(file)
    name = sorted(scales)[0]
    match fault:
        case "missing":
            del scales[name]
        case "extra":
            scales["other"] = torch.ones(1, 1)
        case "shape":
            scales[name] = scales[name].flatten()
        case "nan":
            scales[name][0] = torch.nan
        case "negative":
            scales[name][0] = -1
    save_file(scales, file)
    with pytest.raises(CheckpointError, match="is damaged: its SHA-256"):
        load_checkpoint(small)
    reseal(small)
    with pytest.raises(CheckpointError, match=r"1 scales do not fit the weights; first: .* make the export again"):
        load_checkpoint(small)


@pytest.mark.parametrize("claimed", ["fp32", "bf16"])
def test_weights_in_another_format_than_the_manifest_says_are_refused(small, claimed):
    reseal(small, weights=claimed)
    with pytest.raises(CheckpointError, match=rf"says that its weights are in {claimed}, but item_encoder.* int8 with"):
        load_checkpoint(small)


@pytest.mark.parametrize("lora", [False, True])
def test_one_model_for_both_tiers_is_kept_once_and_lora_becomes_part_of_it(tmp_path, tiny_llama, lora):
    if lora:
        pytest.importorskip("peft")
    tier = {"kind": "llm", "backbone": str(tiny_llama)} | ({"lora": {"rank": 2}} if lora else {})
    config = ModelConfig.from_dict({"item": tier, "user": tier, "share_backbone": True}, where="test")
    torch.manual_seed(0)
    model = build_model(config, num_items=3, num_actions=0, base=tmp_path).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    save_checkpoint(tmp_path / "c", model, config, num_items=3, num_actions=0, tokenizer=tiny_llama, details={})
    compact_checkpoint(tmp_path / "c", tmp_path / "int8", "int8")
    again, kept, manifest = load_checkpoint(tmp_path / "int8")
    assert (kept.item.lora, kept.user.lora, manifest.details["weights"]) == (None, None, "int8")
    assert again.item_encoder.backbone is again.user_encoder.backbone
    assert not load_file(tmp_path / "int8" / "user_encoder.scales.safetensors")
    items = text_batch([[6, 7], [8, 9, 10]])
    with torch.no_grad():
        cosine = nn.functional.cosine_similarity(again.item_encoder(items), model.item_encoder(items))
    assert cosine.min() > 0.995
