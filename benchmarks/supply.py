"""Goal C8: batches from the memory-mapped tokens, in tokens a second and thread, against tokenising as they are needed.

    OMP_NUM_THREADS=1 python benchmarks/supply.py

A step's batch is what training reads: windows drawn in order, negatives, distinct items, their tokens. The other side
does what the reference does for every item of every sample: tokenise its text, with the fast tokenizer of a small
model trained here on the texts. Goal: 20 million tokens a second and thread. Data: 100,000 items of 31 tokens at the
median, popularity Zipf 0.9, 20,000 users.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from measure import Span, ratios, span, written
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from hllm.batches.batch import item_batch
from hllm.batches.loader import BatchContents, TrainingLoader
from hllm.batches.negatives import NegativesConfig
from hllm.batches.windows import WindowConfig
from hllm.data.build import build_dataset
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.schema import DataConfig
from hllm.data.split import split_dataset
from hllm.data.tokens import TokenCache, token_cache

ITEMS, USERS, VOCABULARY, GATHERED = 100_000, 20_000, 5_000, 20_000
REPEATS = 5


def world(folder: Path) -> tuple[TrainingLoader, TokenCache, list[str], Tokenizer]:
    """Make the data, and the cache of its tokens on disk."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(VOCABULARY)])
    lengths = np.clip(rng.lognormal(np.log(31), 0.45, ITEMS), 3, 63).astype(int)
    drawn = words[rng.integers(VOCABULARY, size=lengths.sum())]
    texts = [" ".join(part) for part in np.split(drawn, lengths.cumsum()[:-1])]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokens = token_cache(
        folder / "tokens", texts, lambda some: [e.ids for e in tokenizer.encode_batch(list(some))], tokenizer="words"
    )
    chance = np.arange(1, ITEMS + 1) ** -0.9
    below = np.cumsum(chance / chance.sum())
    log = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(USERS), 15),
            "item_id": np.searchsorted(below, rng.random(USERS * 15)).clip(max=ITEMS - 1),
            "timestamp": np.tile(np.arange(15), USERS),
        }
    ).unique(["user_id", "item_id"], maintain_order=True)
    catalogue = pl.DataFrame({"item_id": np.arange(ITEMS), "title": texts})
    dataset = build_dataset(log, catalogue, DataConfig(time_unit="none"))
    loader = TrainingLoader(
        dataset, split_dataset(dataset, LeaveOneOutSplit()), tokens,
        BatchContents(WindowConfig(50), batch_size=512, negatives=NegativesConfig(num_sampled=8192)), seed=1, stage=0,
    )  # fmt: skip
    return loader, tokens, texts, tokenizer


def main() -> dict[str, Span]:
    """Print the rates and return them, in tokens a second."""
    with tempfile.TemporaryDirectory() as name:
        loader, tokens, texts, tokenizer = world(Path(name))
        rng = np.random.default_rng(1)
        rates: dict[str, list[float]] = {"gather": [], "batches": [], "tokenising": []}
        for _ in range(REPEATS + 1):
            rows = np.sort(rng.choice(ITEMS, size=GATHERED, replace=False))
            for side in rates:
                start, read = time.process_time(), 0
                if side == "gather":
                    read = len(item_batch(rows, tokens).tokens)
                elif side == "batches":
                    for _, (batch,) in zip(range(5), loader.steps(0), strict=False):
                        read += len(batch.items.tokens)
                else:
                    for row in rows[:2000]:
                        read += len(tokenizer.encode(texts[row]).ids)
                rates[side].append(read / (time.process_time() - start))
    found = {side: span(values[1:]) for side, values in rates.items()}
    for side, rate in found.items():
        print(
            f"{side}: {written({key: value / 1e6 for key, value in rate.items()})} million tokens a second and thread"
        )
    return found | {"gather / tokenising": ratios(rates["gather"][1:], rates["tokenising"][1:])}


if __name__ == "__main__":
    print(json.dumps(main()))
