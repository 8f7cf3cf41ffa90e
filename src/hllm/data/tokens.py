"""A TokenCache holds every item's token ids: they are made once, memory-mapped and never tokenised again."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from hllm import artifacts
from hllm.errors import CheckpointError, HllmWarning
from hllm.progress import progress

KIND = "tokens"
_CHUNK = 1024

Tokenize = Callable[[Sequence[str]], list[list[int]]]
"""Texts to token ids, cut to the maximum length; made by `models.tokenizer.load_tokenizer`."""


@dataclass(frozen=True)
class TokenCache:
    """Token ids of all items, one after another."""

    tokens: Int[np.ndarray, " token"]
    offsets: Int[np.ndarray, " items_plus_one"]
    """Start of each item's tokens, and the end of the last item's."""

    @classmethod
    def of(cls, token_ids: Sequence[Sequence[int]]) -> "TokenCache":
        """Return a cache in memory."""
        flat = [np.asarray(ids, dtype=np.int32) for ids in token_ids]
        offsets = np.cumsum([0, *(len(ids) for ids in token_ids)])
        return cls(np.concatenate([np.zeros(0, dtype=np.int32), *flat]), offsets)

    @property
    def lengths(self) -> Int[np.ndarray, " item"]:
        """Return the number of tokens of each item."""
        return np.diff(self.offsets)

    def take(self, items: Int[np.ndarray, " item"]) -> tuple[Int[np.ndarray, " token"], Int[np.ndarray, " item"]]:
        """Return the tokens of `items`, one after another in that order, and their lengths."""
        lengths = self.lengths[items]
        starts = np.repeat(self.offsets[items] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        return self.tokens[starts + np.arange(lengths.sum())].astype(np.int64), lengths


def token_cache(path: Path, texts: Sequence[str], tokenize: Tokenize, *, tokenizer: str) -> TokenCache:
    """Open the cache at `path` if it holds these very texts by this tokenizer; otherwise make it.

    `tokenizer` is the fingerprint of the tokenizer and its maximum length.
    """
    source = artifacts.fingerprint([list(texts), tokenizer])
    if artifacts.standing(path).is_dir():
        try:
            found, cache = artifacts.reading(path, KIND, _read)
            if found == source:
                return cache
        except CheckpointError as error:
            warnings.warn(f"{error}. The tokens are made again from the texts", HllmWarning, stacklevel=2)
    with artifacts.writing(path, KIND, {"source": source, "num_items": len(texts)}) as folder:
        lengths: list[int] = []
        with (folder / "tokens.bin").open("wb") as file, progress("tokenise", len(texts)) as advance:
            for start in range(0, len(texts), _CHUNK):
                chunk = tokenize(texts[start : start + _CHUNK])
                np.concatenate([np.asarray(ids, dtype=np.int32) for ids in chunk]).tofile(file)
                lengths += [len(ids) for ids in chunk]
                advance(len(chunk))
        np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
    return artifacts.reading(path, KIND, _read)[1]


def _read(folder: Path, manifest: artifacts.Manifest) -> tuple[str, TokenCache]:
    """Return what the tokens were made of, and the tokens."""
    tokens = np.memmap(folder / "tokens.bin", dtype=np.int32, mode="r")
    return manifest.details["source"], TokenCache(tokens, np.load(folder / "offsets.npy"))
