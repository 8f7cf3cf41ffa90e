"""Goal C10: texts to vectors, against sentence-transformers with the same weights.

    pip install sentence-transformers
    hllm model fetch minilm-l6
    OMP_NUM_THREADS=1 python benchmarks/encode.py

2,000 titles of 4 to 30 words, MiniLM-L6 with mean pooling, from text to vectors in memory: tokenising counts. Both
sides sort by length. Goal: as fast in fp32, twice as fast in bf16, each vector's cosine with the other's .999 or more.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import in_turns, ratios, span, written

from hllm.embedding.encode import encode_texts
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.build import ModelConfig, build_model
from hllm.sources.language_models import resolve_backbone

TEXTS, MAX_TOKENS, REPEATS = 2000, 64, 5
WORDS = (
    "the a of night blue river story king red house winter secret golden last summer city dream shadow "
    "star heart wild road garden silent broken lost ocean fire moon letter mountain stranger"
).split()


def texts() -> list[str]:
    """Draw titles."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size=rng.integers(4, 31))) for _ in range(TEXTS)]


def main() -> dict[str, Any]:
    """Print the times, and return ratios of theirs in fp32 to ours, and the lowest cosine."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    path = resolve_backbone("minilm-l6", Path())
    reader = Transformer(str(path), max_seq_length=MAX_TOKENS)
    theirs = SentenceTransformer(
        modules=[reader, Pooling(reader.get_embedding_dimension(), pooling_mode="mean")], device="cpu"
    )
    values = {
        "item": {"kind": "llm", "backbone": "minilm-l6", "pooling": "mean"},
        "user": {"kind": "sasrec", "dim": 384},  # as wide, so that there is no projector
    }
    model = build_model(
        ModelConfig.from_dict(values, where="encode.py"), num_items=1, num_actions=0, base=Path()
    ).eval()
    tokenize, _ = load_tokenizer(path, MAX_TOKENS)
    drawn, vectors = texts(), dict[str, torch.Tensor]()

    def ours(precision: str) -> None:
        cpu = torch.device("cpu")
        vectors[precision] = encode_texts(model, drawn, tokenize, device=cpu, precision=precision)  # type: ignore[arg-type]

    def peer() -> None:
        with torch.no_grad():
            vectors["peer"] = theirs.encode(drawn, batch_size=64, convert_to_tensor=True, show_progress_bar=False)

    sides = {"sentence-transformers": peer, "fp32": lambda: ours("fp32"), "bf16": lambda: ours("bf16")}
    seconds = in_turns(sides, repeats=REPEATS)
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    for side, times in seconds.items():
        print(f"{side}: {written(span(times['wall_s']))} s by the clock, {written(span(times['cpu_s']))} s of CPU")
    for precision in ("fp32", "bf16"):
        cosines = torch.cosine_similarity(vectors["peer"], vectors[precision])
        found[precision] = ratios(seconds["sentence-transformers"]["cpu_s"], seconds[precision]["cpu_s"])
        found[f"{precision} cosine"] = float(cosines.min())
        print(f"{precision}: {written(found[precision])} times as fast in CPU time, lowest cosine {cosines.min():.5f}")
    return found


if __name__ == "__main__":
    print(json.dumps(main()))
