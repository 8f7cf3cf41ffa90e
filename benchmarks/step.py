"""CPU time and tokens of one training step, against the reference's way of computing it, padded.

    OMP_NUM_THREADS=1 python benchmarks/step.py
    OMP_NUM_THREADS=1 python benchmarks/step.py --hidden 576 --layers 1 --batch 8 --negatives 128

Goals: at most 1.10 tokens through the Item LLM for each token of the distinct items needed; a quarter of the padded
baseline's time. The baseline is a clean-room version of the reference's step, in plain torch and transformers, and
ours too: histories filled up on the left with random items, which are encoded and masked; positives and negatives in
two passes, an item that occurs twice encoded twice; every text padded to the longest; logits of the LM head computed
and dropped, all hidden states kept (not with --lean). "Unpadded" has the same items, but our encoder's chunks of like
length: the reference packs texts with flash attention on a GPU, so text padding is not among its faults there.

One step is collation, forward and backward, without tokenising and optimizer, which are the same or would favour us.
The sides take turns, each turn on a new batch. Losses of every turn agree to 1e-5, and the gradients of the first
one; negatives are masked by id on all sides. The head is as large a share of the network as TinyLlama's. Weights are
random, and so are the data: 3,706 items, popularity Zipf 0.9, text lognormal with median 31 and at most 63 tokens and
[ITEM], histories from a power law of exponent 2.4 that starts at 5, or all full (--histories full).
"""

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from measure import Span, ratios, span, written
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from hllm.batches.batch import item_batch, sequence_batch
from hllm.batches.negatives import Negatives, NegativeSampler, NegativesConfig
from hllm.data.tokens import TokenCache
from hllm.losses.contrastive import LossConfig
from hllm.models.backbone.backbone import Backbone, load_backbone
from hllm.models.item.text import TextItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.user.llm import UserLLM
from hllm.objectives.next_item import NextItem
from hllm.training.parallel import Replicated
from hllm.training.step import accumulate

ITEMS, POSITIONS, TEXT = 3706, 50, 63
COUNTED = 50
HEAD_SHARE = 0.0675  # LM head over body, in weights: 65.5M of TinyLlama's 970M


@dataclass(frozen=True)
class Draw:
    """One batch: windows for us, and the same filled up with random items for the reference."""

    windows: list[np.ndarray]
    negatives: Negatives
    filled: np.ndarray
    real: np.ndarray
    """Which of `filled` are no padding."""


def catalogue(vocabulary: int, *, items: int = ITEMS, median: int = 31, longest: int = TEXT) -> TokenCache:
    """Make the items' texts."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(median), 0.45, items)), 3, longest).astype(np.int64)
    lengths[0] = longest  # as long as allowed
    return TokenCache(rng.integers(vocabulary, size=lengths.sum()), np.concatenate([[0], lengths.cumsum()]))


def draws(number: int, args: argparse.Namespace, *, items: int = ITEMS) -> list[Draw]:
    """Draw batches; the first ones are the same whatever their number."""
    rng = np.random.default_rng(1)
    popularity = (1 + rng.permutation(items)) ** -0.9
    sampler = NegativeSampler(NegativesConfig(kind="pooled", num_sampled=args.negatives), popularity, args.batch)
    made = []
    for _ in range(number):
        shortest = 5 if args.histories == "power-law" else POSITIONS + 1
        lengths = (shortest * rng.random(args.batch) ** (-1 / 1.4)).clip(max=POSITIONS + 1).astype(int)
        windows = [rng.choice(items, size=n, replace=False, p=popularity / popularity.sum()) for n in lengths]
        filled = np.empty((args.batch, POSITIONS + 1), dtype=np.int64)
        for row, window in zip(filled, windows, strict=True):
            others = np.setdiff1d(np.arange(items), window)  # a user's own items are no padding
            row[:] = np.concatenate([rng.choice(others, size=len(row) - len(window)), window])
        real = np.arange(POSITIONS, -1, -1) < lengths[:, None]
        made.append(Draw(windows, sampler.draw(windows, rng), filled, real))
    return made


class Baseline(nn.Module):
    """Two causal LMs with their heads, over padded texts."""

    def __init__(self, item: Any, user: Any, item_token: Any, texts: TokenCache, *, lean: bool) -> None:
        super().__init__()
        self.item, self.user, self.lean = item, user, lean
        self.item_token = nn.Parameter(item_token.detach().clone())  # (1, dim)
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        rows = torch.zeros(len(texts.lengths), int(texts.lengths.max()) + 1, dtype=torch.long)  # room for [ITEM]
        for row, start, length in zip(rows, texts.offsets, texts.lengths, strict=False):
            row[:length] = torch.from_numpy(texts.tokens[start : start + length])
        self.register_buffer("texts", rows)
        self.register_buffer("lengths", torch.from_numpy(texts.lengths))

    def run(self, lm: Any, embeddings: Tensor, mask: Tensor | None) -> Any:
        """Return the last hidden states."""
        if self.lean:
            return lm.model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        return lm(inputs_embeds=embeddings, attention_mask=mask, output_hidden_states=True).hidden_states[-1]

    def moved(self, values: np.ndarray) -> Tensor:
        """Return the values beside the weights."""
        return torch.from_numpy(values).to(self.item_token.device)

    def encode(self, items: np.ndarray, width: int | None = None) -> Tensor:
        """Return the items' embeddings; their texts and [ITEM] are padded to `width`, None: to the longest there is."""
        index = self.moved(items)
        ends, rows = self.lengths[index], torch.arange(len(index), device=index.device)
        embeddings = self.item.model.embed_tokens(self.texts[index, :width])
        embeddings[rows, ends] = self.item_token
        return self.run(self.item, embeddings, None)[rows, ends]  # causal, so what is behind [ITEM] is not seen

    def step(self, draw: Draw, encode: Callable[[np.ndarray], Tensor]) -> Tensor:
        """Return the loss after its backward pass."""
        vectors = encode(draw.filled.ravel()).view(*draw.filled.shape, -1)
        negatives = encode(draw.negatives.shared)
        valid = self.moved(draw.real[:, :-1])
        states = self.run(self.user, vectors[:, :-1], valid.long())
        user, positive, negatives = (F.normalize(x, dim=-1) for x in (states[valid], vectors[:, 1:][valid], negatives))
        ids = self.moved(draw.filled[:, 1:])[valid]
        same = ids[:, None] == self.moved(draw.negatives.shared)
        cosines = torch.cat([(user * positive).sum(-1, keepdim=True), user @ negatives.T], -1)
        logits = (self.log_scale.exp() * cosines).masked_fill(F.pad(same, (1, 0)), -torch.inf)
        loss = F.cross_entropy(logits, torch.zeros_like(ids))
        loss.backward()
        return loss.detach()


def backbones(args: argparse.Namespace) -> tuple[list[Backbone], list[Any]]:
    """Return two of our networks, and causal LMs with the same weights."""
    heads, inner = args.hidden // 64, 16 * round(args.hidden / 6)
    groups = max(1, heads // 3)
    body = args.layers * args.hidden * (2 * args.hidden * (1 + groups / heads) + 3 * inner)
    values = {
        "model_type": "llama", "hidden_size": args.hidden, "num_hidden_layers": args.layers, "use_cache": False,
        "intermediate_size": inner, "num_attention_heads": heads, "num_key_value_heads": groups, "head_dim": 64,
        "vocab_size": round(body * HEAD_SHARE / args.hidden),
    }  # fmt: skip
    return same_weights(values, args.attention)


def same_weights(values: dict[str, Any], attention: str) -> tuple[list[Backbone], list[Any]]:
    """Return two of our networks in the shape of a Llama config, and causal LMs with the same weights."""
    ours, theirs = [], []
    for _ in range(2):
        ours.append(load_backbone(values, num_layers=None, pretrained=False))
        theirs.append(LlamaForCausalLM(LlamaConfig(**values, attn_implementation=attention)).eval())
        theirs[-1].model.load_state_dict(ours[-1].network.state_dict())
    return ours, theirs


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the shape of the model and of a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"hidden": 128, "layers": 4, "batch": 16, "negatives": 256, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--histories", choices=["power-law", "full"], default="power-law")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="eager", help="of the baseline")
    parser.add_argument("--lean", action="store_true", help="a baseline without LM head and kept hidden states")
    return parser.parse_args(arguments)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Print tokens and times of all sides, and return the ratios."""
    torch.manual_seed(0)
    (item, user), causal_lms = backbones(args)
    texts = catalogue(item.config.vocab_size)
    encoder = TextItemEncoder(item, args.hidden, pooling="item", whiten=False, train_word_embeddings=True)
    baseline = Baseline(*causal_lms, encoder.item_token, texts, lean=args.lean)
    model = SequentialRecommender(encoder, UserLLM(user))
    print(f"hidden {args.hidden}, {args.layers} layers, vocabulary {item.config.vocab_size}, batch {args.batch}, fp32")
    print(f"{args.negatives} negatives, {args.histories} histories, baseline {args.attention}{' lean' * args.lean}")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, transformers {transformers.__version__}")
    counted = count_tokens(draws(COUNTED, args), texts)
    for name, total in counted.items():
        print(f"  {name} a step: {total / COUNTED:,.0f}")
    return measure(draws(args.repeats + 1, args), model, baseline, texts)


def collate(draw: Draw, texts: TokenCache) -> Any:
    """Return our batch."""
    zeros = [np.zeros_like(window) for window in draw.windows]
    return sequence_batch(
        draw.windows, draw.negatives, texts, users=np.arange(len(draw.windows)), times=zeros, actions=zeros
    )


def count_tokens(steps: list[Draw], texts: TokenCache) -> dict[str, int]:
    """Count what goes through the Item LLM; the width of the network does not matter, so a tiny one counts."""
    shape = {"model_type": "llama", "hidden_size": 4, "num_attention_heads": 1, "num_key_value_heads": 1}
    rest = {"num_hidden_layers": 1, "intermediate_size": 4, "vocab_size": int(texts.tokens.max()) + 1}
    backbone = load_backbone(shape | rest, num_layers=None, pretrained=False)
    encoder = TextItemEncoder(backbone, 4, pooling="item", whiten=False, train_word_embeddings=False)
    with torch.no_grad():
        for draw in steps:
            encoder(collate(draw, texts).items)
    distinct = [np.unique(np.concatenate([*draw.windows, draw.negatives.shared])) for draw in steps]
    lengths = texts.lengths + 1  # with [ITEM]
    needed = sum(int(lengths[items].sum()) for items in distinct)
    assert encoder.tokens_needed == needed
    encoded = [np.concatenate([draw.filled.ravel(), draw.negatives.shared]) for draw in steps]
    return {
        "tokens needed": needed,
        "tokens computed": encoder.tokens_computed,
        "tokens unpadded": sum(int(lengths[items].sum()) for items in encoded),
        "tokens padded": sum(len(items) for items in encoded) * int(lengths.max()),
        "distinct items": sum(map(len, distinct)),
        "items encoded": encoder.items_encoded,
    }


def measure(
    steps: list[Draw], model: SequentialRecommender, baseline: Baseline, texts: TokenCache
) -> dict[str, float | Span]:
    """Compare the losses, print the times, and return the ratios to ours."""
    objective, encoder = NextItem(LossConfig(), ITEMS), model.item_encoder

    def ours(draw: Draw) -> Tensor:
        batches = [collate(draw, texts)]
        return accumulate(model, objective, batches, nullcontext, between=lambda: None, parallel=Replicated())[0].loss

    sides: dict[str, Callable[[Draw], Tensor]] = {
        "unpadded": lambda draw: baseline.step(draw, lambda items: encoder(item_batch(items, texts))),
        "padded": lambda draw: baseline.step(draw, baseline.encode),
        "ours": ours,
    }
    seconds, worst = {name: list[float]() for name in sides}, 0.0
    for turn, draw in enumerate(steps):
        losses = {}
        for name, run in sides.items():
            model.zero_grad()
            if turn or name != "ours":  # then compared with ours
                baseline.zero_grad()
            start = time.process_time()
            losses[name] = float(run(draw))
            seconds[name].append(time.process_time() - start)
        differences = [abs(loss / losses["padded"] - 1) for loss in losses.values()]
        assert max(differences) <= 1e-5, f"turn {turn}: losses differ: {losses}"
        worst = max(worst, *differences)
        if not turn:
            compare_gradients(model, baseline)
    print(f"losses agree to {worst:.1e}, warm-up {', '.join(f'{n} {s.pop(0):.2f} s' for n, s in seconds.items())}")
    found: dict[str, float | Span] = {"worst loss difference": worst}
    for name, times in seconds.items():
        found[name] = ratio = ratios(times, seconds["ours"])
        print(f"  {name}: {written(span(times))} s of CPU, {written(ratio)} x ours")
    return found


def compare_gradients(model: Any, baseline: Baseline) -> None:
    """Fail if ours and the padded baseline's differ."""
    assert all(error <= 1e-4 for error in gradient_errors(model, baseline))


def gradient_errors(model: Any, baseline: Baseline) -> list[float]:
    """Return, for each weight, how far our gradient is from the baseline's, relative to the length of that."""
    pairs = [(model.item_encoder.item_token, baseline.item_token), (model.log_scale, baseline.log_scale)]
    for ours, theirs in ((model.item_encoder, baseline.item), (model.user_encoder, baseline.user)):
        others = dict(theirs.model.named_parameters())
        pairs += [(weight, others[name]) for name, weight in ours.backbone.network.named_parameters()]
    gradients = [(ours.grad.to(theirs.grad), theirs.grad) for ours, theirs in pairs]
    return [float((ours - theirs).norm() / theirs.norm()) for ours, theirs in gradients]


if __name__ == "__main__":
    main(options())
