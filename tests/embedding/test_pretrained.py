import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from hllm.data.prompt import PromptConfig
from hllm.embedding import pretrained
from hllm.embedding.pretrained import pretrained_table
from hllm.errors import HllmWarning


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HLLM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_vectors_are_the_means_over_the_tokens_of_the_encoder(dataset, tiny_bert):
    """Against transformers itself, one item at a time: no padding, no chunks."""
    table = pretrained_table(dataset, str(tiny_bert))
    tokenizer, network = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert).eval()
    for item in (0, 17, 29):
        row = dataset.items.row(item, named=True)
        tokens = tokenizer(f"{row['title']} {row['kind']}", return_tensors="pt")
        with torch.no_grad():
            expected = network(**tokens).last_hidden_state[0].mean(0)
        torch.testing.assert_close(table.vectors[item], expected, rtol=1e-4, atol=1e-5)


def test_vectors_are_made_once_for_the_same_texts_and_model(dataset, tiny_bert, monkeypatch):
    first = pretrained_table(dataset, str(tiny_bert))
    made = []
    original = pretrained.load_backbone
    monkeypatch.setattr(pretrained, "load_backbone", lambda *a, **k: made.append(1) or original(*a, **k))
    assert (pretrained_table(dataset, str(tiny_bert)).vectors == first.vectors).all()
    assert made == []
    other = pretrained_table(dataset, str(tiny_bert), prompt=PromptConfig(field_names=True))
    assert made == [1]
    assert not np.allclose(other.vectors, first.vectors)


def test_damaged_vectors_are_said_and_made_again(dataset, tiny_bert, home):
    first = pretrained_table(dataset, str(tiny_bert)).vectors.clone()
    (file,) = home.glob("vectors/*/table/vectors.npy")
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.warns(HllmWarning, match="damaged.*made again"):
        assert (pretrained_table(dataset, str(tiny_bert)).vectors == first).all()
