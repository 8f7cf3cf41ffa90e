"""A config that makes no network, and weights that are not all of the network's or that it does not all read."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hllm.errors import CheckpointError, ConfigError
from hllm.models.backbone.backbone import load_backbone

WRONG = (ConfigError, CheckpointError)


@pytest.fixture(params=["llama", "bert"])
def model(request, tiny_llama, tiny_bert, tmp_path) -> Path:
    return shutil.copytree({"llama": tiny_llama, "bert": tiny_bert}[request.param], tmp_path / "model")


def use(folder: Path) -> None:
    load_backbone(folder, num_layers=None, pretrained=True)


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_act": "no-such"},
        {"hidden_act": 3},
        {"num_attention_heads": 0},
        {"num_attention_heads": -2},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": None},
        {"num_hidden_layers": "2"},
        {"hidden_size": 0},
        {"hidden_size": 10**9},
        {"hidden_size": 10**14},
        {"intermediate_size": 10**10},
        {"vocab_size": 10**9},
        {"vocab_size": 3},
        {"pad_token_id": 10**6},
        {"dtype": "float99"},
        {"experts_implementation": "no-such"},
        {"model_type": 7},
        {"model_type": ["llama"]},
        {"model_type": None},
        {"initializer_range": "wide"},
        {"layer_types": ["no-such", "no-such"]},
    ],
    ids=str,
)
def test_a_config_with_a_value_that_no_network_has_is_explained(model, values):
    """Each ended in an error of another library's own, or in one of Python's."""
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    with pytest.raises(WRONG, match=r"config|weights"):
        use(model)


@pytest.mark.parametrize(
    "values",
    [
        {"rope_parameters": {"rope_type": "no-such", "rope_theta": 1e4}},
        {"rope_scaling": {"type": "no-such", "factor": 2}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 0}},
        {"rms_norm_eps": float("nan")},
        {"num_key_value_heads": 0},
    ],
    ids=str,
)
def test_a_decoders_config_with_such_a_value_is_explained(tiny_llama, tmp_path, values):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    with pytest.raises(WRONG, match=r"config|weights"):
        use(folder)


def with_weights(folder: Path, **more: torch.Tensor) -> Path:
    names = {name.replace("__", "."): tensor for name, tensor in more.items()}
    file = folder / "model.safetensors"
    save_file(load_file(file) | names, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "model__layers__0__self_attn__q_proj__weight_scale",
        "model__layers__1__mlp__up_proj__weight_scale_inv",
        "model__layers__0__self_attn__k_scale",
        "model__layers__0__mlp__down_proj__scales",
        "layers__0__mlp__down_proj__input_scale",
        "model__layers__0__self_attn__q_proj__bias",
        "model__layers__1__self_attn__q_proj__lora_A",
        "model__scaling__weight_scale",
    ],
)
def test_a_tensor_that_nothing_reads_is_named(tiny_llama, tmp_path, name):
    folder = with_weights(shutil.copytree(tiny_llama, tmp_path / "model"), **{name: torch.ones(16)})
    with pytest.raises(CheckpointError, match=r"hold 1 tensors that nothing reads.*first: .*(scale|bias|lora)"):
        use(folder)


def test_heads_cut_layers_masks_and_positions_are_left_unread(tiny_llama, tiny_bert, tmp_path):
    llama, bert = (shutil.copytree(folder, tmp_path / folder.name) for folder in (tiny_llama, tiny_bert))
    ones = torch.ones(2, 16)
    use(
        with_weights(
            llama, score__weight=ones, model__layers__2__mlp__up_proj__weight=torch.ones(32, 16),
            model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(2),
            model__layers__0__self_attn__bias=torch.ones(1, 1, 4, 4),
        )
    )  # fmt: skip
    positions = torch.arange(128)[None]
    use(with_weights(bert, cls__predictions__bias=torch.ones(20), embeddings__position_ids=positions, logit_scale=ones))


def test_weights_of_another_models_size_are_refused_before_memory_is_taken(tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"intermediate_size": 10**11}))
    with pytest.raises(
        CheckpointError, match=r"describes a network of 9,6\d\d,\d{3},\d{3},\d{3} parameters, and the we"
    ):
        use(folder)


def test_weights_that_are_no_numbers_are_refused(tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    with_weights(folder, model__norm__weight=torch.full((16,), float("nan")))
    with pytest.raises(CheckpointError, match="states are not finite numbers"):
        use(folder)


def test_a_file_of_no_tensors_lacks_all(tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    save_file({}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack 20 of the network's tensors"):
        use(folder)
