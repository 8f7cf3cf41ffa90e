"""A model's tokenizer: its files, and text to token ids."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from transformers import AutoTokenizer

from hllm import artifacts
from hllm.data.tokens import Tokenize
from hllm.errors import ConfigError
from hllm.models.backbone.directory import CONFIG, own_file, read_json

_SETTINGS = "tokenizer_config.json"
_SENTENCEPIECE = ("tokenizer.model", "sentencepiece.bpe.model", "spiece.model")
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", *_SENTENCEPIECE)
_TOKENIZER_FILES = (
    *_VOCABULARIES,
    _SETTINGS,
    "special_tokens_map.json",
    "merges.txt",
    "added_tokens.json",
)
_CHARACTERS = 64
"""Characters a token that are read at first of a long text."""
_MOST_CHARACTERS = 1_000_000
"""No more are read of a text that makes few tokens: it is of blanks, or one unknown word."""


def tokenizer_files(source: Path) -> list[str]:
    """Return the names of the tokenizer's files in a model directory; none if it has no tokenizer.

    Raises ConfigError for one that is empty, cannot be read, or leads out of the directory.
    """
    return [name for name in _TOKENIZER_FILES if os.path.lexists(source / name) and own_file(source, name)]


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer's files, so that a checkpoint can read new text without the original model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in tokenizer_files(source):
        (folder / name).write_bytes((source / name).read_bytes())


def load_tokenizer(path: Path, max_tokens: int, *, cut_closing: bool = False) -> tuple[Tokenize, str]:
    """Return a function from texts to at most `max_tokens` ids each, and the fingerprint of both.

    With `cut_closing`, what stands behind the first `max_tokens` ids is left out, special tokens or not.

    The tokenizer's own special tokens are added as it was trained with; text that spells one, such as
    "</s>" or "[SEP]", is read as ordinary characters. Of a long text only a beginning is read: one that makes more
    than twice as many tokens as are kept. Raises ConfigError for a tokenizer that is damaged, that makes ids which the
    model in `path` does not know, or that leaves a text no room in `max_tokens`.
    """
    tokenizer, files = _opened(path), tokenizer_files(path)
    control = _control_ids(tokenizer)
    length = {"truncation": False, "verbose": False} if cut_closing else {"truncation": True, "max_length": max_tokens}

    def encode(texts: Sequence[str], **options: Any) -> Any:
        options = {"split_special_tokens": True, "return_special_tokens_mask": True, **length, **options}
        try:
            return tokenizer(list(texts), **options)
        except Exception as error:  # tokenizers raises Exception itself
            first = next(iter(texts), "")[:40]
            raise ConfigError(f"the tokenizer in {path} cannot read texts such as {first!r}: {error}") from None

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        beginnings = [_beginning(encode, text, max_tokens) for text in texts]
        encoded = encode(beginnings)
        found = list(zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True))
        for number, (ids, mask) in enumerate(found):
            if _forged(ids, mask, control):
                found[number] = _spelled(beginnings[number], encode, control, tokenizer.is_fast)
        rows = [ids[:max_tokens] for ids, _ in found]
        # A tokenizer without special tokens makes nothing of some texts (spaces, say): give the model one token.
        return [row or [tokenizer.eos_token_id or 0] for row in rows]

    _require_room(encode, max_tokens, path, cut_closing)
    _require_known_ids(tokenizer, tokenize([""])[0], control, path)
    hashes = [artifacts.sha256_of(path / name) for name in files]
    return tokenize, artifacts.fingerprint([hashes, max_tokens, transformers.__version__, *["cut"] * cut_closing])


def _opened(path: Path) -> Any:
    """Return the tokenizer in a model directory; ConfigError unless it has one that can be read here."""
    files = tokenizer_files(path)
    if not set(files) & set(_VOCABULARIES):
        raise ConfigError(f"{path} holds no tokenizer: none of {', '.join(_VOCABULARIES)} is there")
    only_pieces = not set(files) & set(_VOCABULARIES) - set(_SENTENCEPIECE)
    settings = read_json(path, _SETTINGS) if only_pieces and _SETTINGS in files else {}
    if only_pieces and find_spec("sentencepiece") is None and "auto_map" not in settings:  # which is code, and said so
        model = next(name for name in _SENTENCEPIECE if name in files)
        raise ConfigError(
            f"the tokenizer of {path} is in {model} alone, a SentencePiece model, and hllm reads tokenizer.json. Make "
            'it once: pip install sentencepiece, then python -c "from transformers import AutoTokenizer as T; '
            f"T.from_pretrained('{path}').save_pretrained('{path}')\""
        )
    try:
        return AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, truncation_side="right"
        )
    except Exception as error:  # tokenizers raises Exception itself
        raise ConfigError(
            f"{path} holds no tokenizer that can be read here: {' '.join(str(error).split())[:300]}. Its files are "
            f"damaged, or a newer version wrote them than tokenizers {tokenizers.__version__} and transformers "
            f"{transformers.__version__}: fetch the model again, or install newer ones"
        ) from None


def _control_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids that no text may have: special tokens, but for the one of unknown words."""
    roles = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.cls_token_id]
    special = {*tokenizer.all_special_ids, *(n for n, t in tokenizer.added_tokens_decoder.items() if t.special)}
    unknown = {tokenizer.unk_token_id} - {*roles, tokenizer.mask_token_id}
    return frozenset(special - unknown)


def _forged(ids: list[int], mask: list[int], control: frozenset[int]) -> bool:
    return any(token in control and not added for token, added in zip(ids, mask, strict=True))


def _spelled(text: str, encode: Any, control: frozenset[int], has_offsets: bool) -> tuple[list[int], list[int]]:
    """Return the ids and the mask of a text that spells special tokens: blanks come between their characters.

    A Unigram model, for one, takes such a word out of its vocabulary whatever it is told. If blanks do not help, what
    looks like a special token is left out.
    """
    if has_offsets:
        encoded = encode([text], return_offsets_mapping=True)
        spans = zip(*(encoded[key][0] for key in ("input_ids", "special_tokens_mask", "offset_mapping")), strict=True)
        for start, end in sorted(
            {span for token, added, span in spans if token in control and not added}, reverse=True
        ):
            text = f"{text[:start]} {' '.join(text[start:end])} {text[end:]}"
    encoded = encode([text])
    pairs = zip(encoded["input_ids"][0], encoded["special_tokens_mask"][0], strict=True)
    kept = [(token, added) for token, added in pairs if added or token not in control]
    return [token for token, _ in kept], [added for _, added in kept]


def _beginning(encode: Any, text: str, max_tokens: int) -> str:
    """Return as much of a text as its first `max_tokens` tokens depend on.

    Tokens depend on characters near them, so a beginning will do whose tokens are more than twice as many. It grows
    until it is such a one, the whole, or of a million characters.
    """
    size = _CHARACTERS * max_tokens
    most = max(size, _MOST_CHARACTERS)
    while size < min(len(text), most):
        (ids,) = encode([text[:size]], truncation=False, max_length=None, verbose=False)["input_ids"]
        if len(ids) > 2 * max_tokens:
            return text[:size]
        size *= 4
    return text[:most]


def _require_room(encode: Any, max_tokens: int, path: Path, cut_closing: bool) -> None:
    mask = encode(["a"], truncation=False, max_length=None)["special_tokens_mask"][0]
    before = mask.index(0) if 0 in mask else sum(mask)
    needed = before if cut_closing else sum(mask)
    if max_tokens <= needed:
        raise ConfigError(
            f"max_tokens is {max_tokens}, and the tokenizer in {path} puts {needed} special tokens around each text: "
            f"nothing of the text would be left; expected at least {needed + 1}"
        )


def _require_known_ids(tokenizer: Any, added: list[int], control: frozenset[int], path: Path) -> None:
    """Raise ConfigError if a text can become an id that the model of this directory has no embedding for."""
    known = read_json(path, CONFIG).get("vocab_size") if os.path.lexists(path / CONFIG) else None
    if isinstance(known, int):
        possible = {n: token for token, n in tokenizer.get_vocab().items() if n >= known}
        beyond = {n: token for n, token in possible.items() if n not in control or n in added}
        if beyond:
            first = min(beyond)
            raise ConfigError(
                f"the tokenizer in {path} has {len(beyond)} tokens beyond the model's {known} embeddings (vocab_size "
                f"in config.json); first: {beyond[first]!r}, {first}. Remove them from the tokenizer, or enlarge the "
                "model (resize_token_embeddings) and save both again"
            )
