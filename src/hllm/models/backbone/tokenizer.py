"""A model's tokenizer: its files, and text to token ids."""

# Proved by tests/data/test_tokens.py, tests/models/test_text.py.

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoTokenizer

from hllm import artifacts
from hllm.data.tokens import Tokenize
from hllm.errors import ConfigError

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "added_tokens.json",
)


def tokenizer_files(source: Path) -> list[str]:
    """Return the names of the tokenizer's files in a model directory; none if it has no tokenizer."""
    return [name for name in _TOKENIZER_FILES if (source / name).is_file()]


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer's files, so that a checkpoint can read new text without the original model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in tokenizer_files(source):
        (folder / name).write_bytes((source / name).read_bytes())


def load_tokenizer(path: Path, max_tokens: int, *, cut_closing: bool = False) -> tuple[Tokenize, str]:
    """Return a function from texts to at most `max_tokens` ids each, and the fingerprint of both.

    With `cut_closing`, what stands behind the first `max_tokens` ids is left out, special tokens or not.

    The tokenizer's own special tokens are added as it was trained with; text that spells one, such as
    "</s>" or "[SEP]", is read as ordinary characters.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no tokenizer: {error}") from None

    def tokenize(texts: Any) -> list[list[int]]:
        length = {"verbose": False} if cut_closing else {"truncation": True, "max_length": max_tokens}
        encoded = tokenizer(list(texts), split_special_tokens=True, **length)
        ids: list[list[int]] = [row[:max_tokens] for row in encoded["input_ids"]]
        # A tokenizer without special tokens makes nothing of some texts (spaces, say): give the model one token.
        return [row or [tokenizer.eos_token_id or 0] for row in ids]

    hashes = [artifacts.sha256_of(path / name) for name in tokenizer_files(path)]
    return tokenize, artifacts.fingerprint([hashes, max_tokens, transformers.__version__, *["cut"] * cut_closing])
