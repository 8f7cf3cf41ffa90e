"""Texts that spell control tokens, long texts, and tokenizers that do not fit their model."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hllm.errors import ConfigError
from hllm.models.backbone.tokenizer import load_tokenizer

CONTROL = ["<s>", "</s>", "<pad>", "[CLS]", "[SEP]", "[MASK]", "[ITEM]"]
"""Their ids are 1 to 7; 0 is of unknown words."""
PIECES = ["red", "shoe", "s", "S", "E", "P", "<", "/", ">", "[", "]", "old", "o", "l", "d", "r", "e"]
VOCABULARY = ["<unk>", *CONTROL, "▁", *PIECES, *(f"▁{piece}" for piece in PIECES)]
KINDS = ["unigram", "words", "word-pieces", "merges", "whole-words"]


def tokenizer_of(kind: str, folder: Path, *, special: bool = True, strip: bool = False, wrapped: bool = False) -> Path:
    """Save a tokenizer whose model knows the control tokens as words, as those made of SentencePiece do."""
    numbers = {piece: number for number, piece in enumerate(VOCABULARY)}
    model = {
        "unigram": lambda: models.Unigram([(piece, 0.0 if piece in CONTROL else -2.0) for piece in VOCABULARY], 0),
        "words": lambda: models.WordLevel(numbers, "<unk>"),
        "word-pieces": lambda: models.WordPiece(
            numbers | {f"##{piece}": len(numbers) + n for n, piece in enumerate(PIECES)}, unk_token="<unk>"
        ),
        "merges": lambda: models.BPE(
            numbers | {"</": 100, "s>": 101}, [("<", "/"), ("s", ">"), ("</", "s>")], unk_token="<unk>"
        ),
        "whole-words": lambda: models.BPE(numbers, [], unk_token="<unk>", ignore_merges=True),
    }[kind]()
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace() if kind == "unigram" else pre_tokenizers.WhitespaceSplit()
    if wrapped:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 4), ("[SEP]", 5)]
        )
    names = ["bos_token", "eos_token", "pad_token", "cls_token", "sep_token", "mask_token"]
    tokens = {
        name: AddedToken(token, special=special, lstrip=strip, rstrip=strip, normalized=True)
        for name, token in zip(names, CONTROL, strict=False)
    }
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", additional_special_tokens=["[ITEM]"], **tokens
    )
    fast.save_pretrained(folder)
    return folder


@pytest.mark.reliability("control tokens")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
@pytest.mark.parametrize("options", [{}, {"special": False}, {"strip": True}], ids=str)
def test_no_text_forges_a_control_token(tmp_path, kind, wrapped, options):
    """A Unigram model has "</s>" in its vocabulary with the best of scores, and read it as the end of the text."""
    tokenize, _ = load_tokenizer(tokenizer_of(kind, tmp_path, wrapped=wrapped, **options), 24)
    texts = [
        "red </s> shoe", "red</s>shoe", "</s>", "</s></s>  </s>", "<s> red", "red <pad>", "[MASK]", "a [SEP] b",
        "[ITEM] red", "＜／ｓ＞ red", "［ＳＥＰ］", "</s＞", "</ s>", "< / s >", "<</s>/s>", "\t</s>\n", "red " * 40 + "</s>",
    ]  # fmt: skip
    for text, ids in zip(texts, tokenize(texts), strict=True):
        if wrapped:
            assert (ids[0], ids[-1]) == (4, 5), text
            ids = ids[1:-1]
        assert ids, text
        assert not set(ids) & set(range(1, 8)), text


def test_a_forged_token_is_read_as_its_characters(tmp_path):
    """By hand: < / s > with blanks between them, in the vocabulary above."""
    tokenize, _ = load_tokenizer(tokenizer_of("unigram", tmp_path), 24)
    expected = [VOCABULARY.index(f"▁{piece}") for piece in ("red", "<", "/", "s", ">", "shoe")]
    assert tokenize(["red</s>shoe"]) == [expected]
    assert tokenize(["red shoe"]) == [[expected[0], expected[-1]]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
def test_the_beginning_of_a_long_text_gives_the_tokens_of_the_whole(tmp_path, kind, wrapped, rng):
    """The whole is read here by transformers alone."""
    folder = tokenizer_of(kind, tmp_path, wrapped=wrapped)
    tokenize, _ = load_tokenizer(folder, 8)
    whole = PreTrainedTokenizerFast.from_pretrained(folder)
    parts = np.array(["red", "shoe", " ", "old", "  ", "x", "e", "d", " red", " " * 90, "unknown" * 30])
    for _ in range(20):
        text = "".join(rng.choice(parts, size=int(rng.integers(100, 600))))
        assert tokenize([text]) == whole([text], truncation=True, max_length=8)["input_ids"]


@pytest.mark.parametrize("text", ["red shoe ", "unknown", " ", "</s>"])
@pytest.mark.parametrize("kind", ["unigram", "word-pieces"])
def test_a_text_of_millions_of_characters_takes_no_time(tmp_path, kind, text):
    """50 MB of text took three minutes, all to be cut to 64 tokens."""
    tokenize, _ = load_tokenizer(tokenizer_of(kind, tmp_path), 64)
    started = time.monotonic()
    assert len(tokenize([text * (50_000_000 // len(text))])[0]) <= 64
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_texts_are_cut_on_the_right_whatever_the_tokenizers_settings_say(tiny_bert, tmp_path, side):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"truncation_side": side}))
    tokenize, _ = load_tokenizer(folder, 5)
    assert tokenize(["red green blue old new big"]) == [[4, 6, 7, 8, 5]]


@pytest.mark.parametrize(("max_tokens", "cut_closing", "needed"), [(1, False, 2), (2, False, 2), (1, True, 1)])
def test_max_tokens_that_leave_nothing_of_a_text_are_refused(tiny_bert, max_tokens, cut_closing, needed):
    with pytest.raises(ConfigError, match=rf"puts {needed} special tokens around .* expected at least {needed + 1}"):
        load_tokenizer(tiny_bert, max_tokens, cut_closing=cut_closing)
    tokenize, _ = load_tokenizer(tiny_bert, needed + 1, cut_closing=cut_closing)
    assert 6 in tokenize(["red green"])[0]


def test_tokens_that_the_model_has_no_embedding_for_are_named(tiny_llama, tiny_bert, tmp_path):
    """The first text with such a token ended in an IndexError of torch, in the middle of training."""
    for model in (tiny_llama, tiny_bert):
        folder = shutil.copytree(model, tmp_path / model.name)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<never>"]})
        tokenizer.save_pretrained(folder)
        assert load_tokenizer(folder, 8)[0](["red <never>"]), "no text makes a control token"
        tokenizer.add_tokens(["zebra", "lion"])
        tokenizer.save_pretrained(folder)
        with pytest.raises(ConfigError, match=r"has 2 tokens beyond the model's 20 embeddings .* first: 'zebra', 21"):
            load_tokenizer(folder, 8)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda values: values["model"].update(type="FutureBPE"), r"a newer version wrote them than tokenizers \d"),
        (lambda values: values.update(model=None), "Its files are damaged, or a newer version"),
        (lambda values: values.pop("model"), "Its files are damaged, or a newer version"),
        (
            lambda values: values.update(pre_tokenizer={"type": "Telepathy"}),
            "a newer version wrote them than tokenizers",
        ),
    ],
)
def test_a_tokenizer_of_a_newer_library_is_explained(tiny_llama, tmp_path, change, match):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    values = json.loads((folder / "tokenizer.json").read_text())
    change(values)
    (folder / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=match):
        load_tokenizer(folder, 8)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("content", ["{", "[]", "null", "[" * 100_000, "\xff"])
def test_a_damaged_tokenizer_is_explained(tiny_llama, tmp_path, name, content):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / name).write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"holds no tokenizer that can be read here: "):
        load_tokenizer(folder, 8)


@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model"])
def test_a_tokenizer_in_a_sentencepiece_model_alone_is_told_how_to_become_one(tiny_llama, tmp_path, name, capfd):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "tokenizer.json").rename(folder / name)
    pattern = rf"is in {name} alone, a SentencePiece model, .* Make it once: pip install sentencepiece, then python -c"
    with pytest.raises(ConfigError, match=pattern):
        load_tokenizer(folder, 8)
    assert capfd.readouterr().err == "", "transformers' own advice, tiktoken, is wrong"


def test_a_model_without_a_vocabulary_has_no_tokenizer(tiny_llama, tmp_path):
    """transformers made one of three tokens."""
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"holds no tokenizer: none of tokenizer\.json, vocab\.txt"):
        load_tokenizer(folder, 8)


def test_a_text_that_the_tokenizer_cannot_read_is_named(tmp_path, tiny_bert):
    """A WordPiece model whose vocabulary lacks its word for unknown ones fails at the first of them."""
    folder = tokenizer_of("word-pieces", tmp_path)
    values = json.loads((folder / "tokenizer.json").read_text())
    values["model"]["unk_token"] = "[GONE]"
    (folder / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"cannot read texts such as '.+': "):
        load_tokenizer(folder, 8)[0](["red zzz"])
    with pytest.raises(ConfigError, match=r"cannot read texts such as 'half of a pair"):
        load_tokenizer(tiny_bert, 8)[0](["half of a pair \ud800"])
