import numpy as np
import pytest

from hllm.data.tokens import token_cache
from hllm.errors import HllmWarning
from hllm.models.backbone.tokenizer import load_tokenizer

TEXTS = ["red shoe", "old old old hat", "", "new"]


def count_calls(tokenize):
    calls = []

    def counted(texts):
        calls.append(len(texts))
        return tokenize(texts)

    return counted, calls


def test_the_cache_gives_what_the_tokenizer_gives_and_asks_it_once(tmp_path, tiny_llama):
    tokenize, fingerprint = load_tokenizer(tiny_llama, 16)
    expected = tokenize(TEXTS)
    counted, calls = count_calls(tokenize)
    for _ in range(2):
        cache = token_cache(tmp_path / "tokens", TEXTS, counted, tokenizer=fingerprint)
    assert calls == [4]
    for order in ([0, 1, 2, 3], [3, 1], [2]):
        tokens, lengths = cache.take(np.array(order))
        assert tokens.tolist() == [t for i in order for t in expected[i]]
        assert lengths.tolist() == [len(expected[i]) for i in order]
    assert isinstance(cache.tokens, np.memmap)


def test_other_texts_another_tokenizer_or_damage_make_it_anew(tmp_path, tiny_llama):
    tokenize, fingerprint = load_tokenizer(tiny_llama, 16)
    counted, calls = count_calls(tokenize)
    path = tmp_path / "tokens"
    token_cache(path, TEXTS, counted, tokenizer=fingerprint)
    token_cache(path, ["hat", *TEXTS[1:]], counted, tokenizer=fingerprint)
    token_cache(path, ["hat", *TEXTS[1:]], counted, tokenizer=load_tokenizer(tiny_llama, 8)[1])
    assert len(calls) == 3
    data = bytearray((path / "tokens.bin").read_bytes())
    data[0] ^= 1
    (path / "tokens.bin").write_bytes(data)
    with pytest.warns(HllmWarning, match="The tokens are made again from the texts"):
        again = token_cache(path, ["hat", *TEXTS[1:]], counted, tokenizer=load_tokenizer(tiny_llama, 8)[1])
    assert len(calls) == 4
    assert again.take(np.array([0]))[0].tolist() == tokenize(["hat"])[0]


def test_text_cannot_forge_special_tokens(tiny_llama, tiny_bert):
    """The state at a special token decides an embedding, so a title that spells one must stay a title."""
    plain, _ = load_tokenizer(tiny_llama, 16)
    assert 2 not in plain(["red </s> shoe"])[0]
    wrapped, _ = load_tokenizer(tiny_bert, 16)
    (ids,) = wrapped(["[SEP] shoe [CLS]"])
    assert (ids[0], ids[-1]) == (4, 5), "[CLS] … [SEP], put by the tokenizer itself"
    assert 4 not in ids[1:]
    assert 5 not in ids[:-1]


def test_long_text_is_cut_on_the_right_and_keeps_the_closing_token(tiny_bert):
    tokenize, _ = load_tokenizer(tiny_bert, 5)
    (ids,) = tokenize(["red green blue old new big"])
    assert len(ids) == 5
    assert ids[-1] == 5
