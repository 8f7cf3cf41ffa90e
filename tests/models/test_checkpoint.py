import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hllm.batches.batch import text_batch
from hllm.errors import CheckpointError, ConfigError
from hllm.models.build import ModelConfig, build_model
from hllm.models.checkpoint import load_checkpoint, load_weights, save_checkpoint


def config(tiny_bert: Path, tiny_llama: Path, **item) -> ModelConfig:
    return ModelConfig.from_dict(
        {
            "item": {"kind": "llm", "backbone": str(tiny_bert), "whiten": True, "num_layers": 1} | item,
            "user": {"kind": "llm", "backbone": str(tiny_llama), "num_layers": 1},
        },
        where="test",
    )


@pytest.fixture
def saved(tmp_path, tiny_bert, tiny_llama):
    chosen = config(tiny_bert, tiny_llama)
    model = build_model(chosen, num_items=30, num_actions=0, base=tmp_path).eval()
    model.log_scale.data.fill_(1.25)
    model.item_encoder.projector.fit_whitening(torch.randn(50, 24))
    save_checkpoint(tmp_path / "c", model, chosen, num_items=30, num_actions=0, tokenizer=tiny_bert, details={})
    return model, tmp_path / "c"


@torch.no_grad()
def test_a_loaded_model_gives_the_same_vectors_without_its_sources(saved, tmp_path):
    model, path = saved
    shutil.copytree(path, tmp_path / "elsewhere" / "c")
    again, _, _ = load_checkpoint(tmp_path / "elsewhere" / "c")
    items = text_batch([[6, 7], [8, 9, 10]])
    assert torch.equal(again.item_encoder(items), model.item_encoder(items))
    assert again.log_scale.item() == 1.25
    assert (path / "item_backbone" / "tokenizer.json").is_file()


def test_a_flipped_byte_anywhere_is_found_before_anything_is_parsed(saved, rng):
    _, path = saved
    files = [p for p in path.rglob("*") if p.is_file() and p.name != "manifest.json"]
    assert len(files) >= 6
    for file in files:
        whole = file.read_bytes()
        data = bytearray(whole)
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        file.write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"{file.name} is damaged: its SHA-256"):
            load_checkpoint(path)
        file.write_bytes(whole)
    load_checkpoint(path)


def test_weights_of_another_shape_are_refused(saved, tmp_path, tiny_bert, tiny_llama):
    _, path = saved
    other = build_model(config(tiny_bert, tiny_llama, num_layers=2), num_items=30, num_actions=0, base=tmp_path)
    with pytest.raises(CheckpointError, match="do not fit the model"):
        load_weights(other, path)
    weights = load_file(path / "user_encoder.safetensors")
    weights.popitem()
    save_file(weights, path / "user_encoder.safetensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(path)


def test_whitening_needs_pretrained_weights(tmp_path, tiny_bert, tiny_llama):
    with pytest.raises(ConfigError, match="whiten = true needs pretrained = true"):
        build_model(config(tiny_bert, tiny_llama, pretrained=False), num_items=3, num_actions=0, base=tmp_path)
