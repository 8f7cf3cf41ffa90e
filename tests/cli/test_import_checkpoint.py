import json
import math
from pathlib import Path

import pytest
import torch

from hllm.models.checkpoint import load_checkpoint

REFERENCE = Path(__file__).parent.parent / "parity" / "fixtures" / "A"
CONFIGS = ("--item-config", REFERENCE / "item_llm", "--user-config", REFERENCE / "user_llm")


def test_import_says_what_became_of_every_tensor(hllm, tmp_path):
    code, out, _ = hllm("import-checkpoint", REFERENCE / "pytorch_model.bin", *CONFIGS, "--out", tmp_path / "hllm-1b")
    assert code == 0
    assert "hllm-1b: 41 tensors used, 3 ignored, 0 missing" in out
    assert "ignored item_llm.lm_head.weight, user_llm.lm_head.weight: an LM head, which recommends nothing" in out
    assert "ignored user_llm.model.embed_tokens.weight: word embeddings of the User LLM, which reads items" in out
    assert 'pooling: "item"; tokenizer: none in' in out
    _, config, _ = load_checkpoint(tmp_path / "hllm-1b")
    assert (config.max_history, config.item.prompt.max_tokens) == (50, 256)


def test_import_as_json_with_a_scale_to_clamp(hllm, tmp_path):
    state = torch.load(REFERENCE / "pytorch_model.bin", weights_only=True)
    for layer in range(4):  # more of one reason than a line shows
        state[f"item_llm.model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    torch.save(state | {"logit_scale": torch.tensor(5.0)}, tmp_path / "w.bin")
    arguments = ("import-checkpoint", tmp_path / "w.bin", *CONFIGS, "--max-history", "10", "--max-tokens", "32")

    code, out, _ = hllm(*arguments, "--out", tmp_path / "one", "--json")
    found = json.loads(out)
    assert (code, found["used"], found["missing"], found["clamped_from"]) == (0, 41, [], 5.0)
    assert found["log_scale"] == pytest.approx(math.log(100))
    assert sum(map(len, found["ignored"].values())) == 7
    _, config, _ = load_checkpoint(Path(found["checkpoint"]))
    assert (config.max_history, config.item.prompt.max_tokens) == (10, 32)

    code, out, _ = hllm(*arguments, "--out", tmp_path / "two")
    assert "clamped logit_scale from 5 to 4.60517: it lies in [0, ln 100]" in out
    assert "and 1 more: rotary frequencies, which follow from the config" in out


def test_a_file_that_does_not_fit_exits_with_2_and_writes_nothing(hllm, tmp_path):
    state = torch.load(REFERENCE / "pytorch_model.bin", weights_only=True)
    del state["item_llm.model.norm.weight"]
    torch.save(state, tmp_path / "w.bin")
    code, out, err = hllm("import-checkpoint", tmp_path / "w.bin", *CONFIGS, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "CheckpointError: " in err
    assert "does not fit the configs: 1 missing, first: item_llm.model.norm.weight" in err
    assert not (tmp_path / "out").exists()
