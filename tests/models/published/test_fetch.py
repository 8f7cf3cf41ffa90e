"""A GGUF file becomes a Hugging Face directory: what is in it arrives, and it is parsed once."""

import gguf
import numpy as np
import pytest
from transformers import AutoTokenizer

from hllm.models.backbone.backbone import load_backbone
from hllm.models.published.fetch import convert_gguf

LAYERS, WIDTH, HIDDEN, HEADS = 2, 32, 64, 2
TOKENS = ["<s>", "</s>", *"abcdefghij", "ab"]


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        shapes |= {f"blk.{layer}.ffn_{name}": (HIDDEN, WIDTH) for name in ("gate", "up")}
        shapes |= {f"blk.{layer}.ffn_down": (WIDTH, HIDDEN)}
        shapes |= {f"blk.{layer}.{name}_norm": (WIDTH,) for name in ("attn", "ffn")}
    rng = np.random.default_rng(0)
    return {name: rng.integers(-8, 8, shape).astype(np.float32) / 8 for name, shape in shapes.items()}  # exact in bf16


@pytest.fixture
def unpacked(tmp_path, weights):
    folder = tmp_path / "unpacked"
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, values in weights.items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


@pytest.mark.filterwarnings("default")  # the converter's own
def test_a_gguf_file_is_parsed_once_and_arrives_whole(unpacked, weights, tmp_path, monkeypatch):
    readings = []

    class Reader(gguf.GGUFReader):
        def __init__(self, path, *arguments):
            readings.append(path)
            super().__init__(path, *arguments)

    monkeypatch.setattr(gguf, "GGUFReader", Reader)
    folder = tmp_path / "model"
    folder.mkdir()
    convert_gguf(unpacked, folder)
    assert len(readings) == 1
    assert gguf.GGUFReader is Reader, "as it was before"
    backbone = load_backbone(folder, num_layers=None, pretrained=True)
    assert (backbone.width, backbone.config.num_hidden_layers) == (WIDTH, LAYERS)
    found = backbone.network.state_dict()
    for layer in range(LAYERS):
        for ours, theirs in (
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_down", "mlp.down_proj"),
            ("attn_v", "self_attn.v_proj"),
        ):
            values = found[f"layers.{layer}.{theirs}.weight"].float().numpy()
            assert np.array_equal(values, weights[f"blk.{layer}.{ours}"])
    assert np.array_equal(found["embed_tokens.weight"].float().numpy(), weights["token_embd"])
    assert AutoTokenizer.from_pretrained(folder)("abc").input_ids[-2:] == [TOKENS.index("ab"), TOKENS.index("c")]
