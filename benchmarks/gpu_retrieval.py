"""The stages of gpu.py over tables of vectors: search, serving, evaluation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from evaluation import Vectors
from gpu_world import World, require
from measure import span
from step import POSITIONS
from torch import Tensor

from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.histories import Histories
from hllm.retrieval.scorer import ModelScorer


def numbers(count: int) -> Histories:
    """Return histories that are the users' numbers."""
    return Histories([np.array([user]) for user in range(count)])


def correctness(world: World) -> dict[str, Any]:
    """The scores that search gives to its items, and to the places in its list, against float64 on the host."""
    users, keys = torch.randn(40, 64), torch.randn(5000, 64)
    scores = (users.double() @ keys.double().T).numpy()
    found = ExactRetriever(Vectors(users.to(world.device), keys.to(world.device))).recommend(numbers(40), 20)
    of_items = np.take_along_axis(scores, found.items, 1)
    worst = max(float(np.abs(found.scores - right).max()) for right in (of_items, -np.sort(-scores, 1)[:, :20]))
    require(worst <= 1e-3, f"scores are off by {worst}")
    return {"error of the scores": worst}


def search(world: World) -> dict[str, Any]:
    """H10. The best 200 of many items for 256 users at once: ours, exact in fp32; torch, `topk` of products in bf16."""
    dim, found = world.size.network["hidden_size"], {}
    for count in world.size.tables:
        keys = torch.randn(count, dim, device=world.device, dtype=torch.bfloat16)
        found[f"{count:,} items"] = search_among(world, keys, torch.randn(256, dim, device=world.device))
    return found


def search_among(world: World, keys: Tensor, users: Tensor) -> dict[str, Any]:
    """Return users a second, and the memory that ours needs besides the table."""
    retriever, narrow = ExactRetriever(Vectors(users, keys)), users.to(keys.dtype)
    sides: dict[str, Callable[[], object]] = {"ours": lambda: retriever.recommend(numbers(len(users)), 200)}
    if len(keys) == world.size.tables[0]:  # all scores of ten million items would not fit beside them
        sides["torch"] = lambda: (narrow @ keys.T).topk(200)
    extra = world.peak_bytes(sides["ours"])
    seconds = world.in_turns(sides, 3)
    rates = {f"{name}, users/s": span([len(users) / s for s in times]) for name, times in seconds.items()}
    return {"bytes": extra} | rates


def serving(world: World) -> dict[str, Any]:
    """H11. A history of 50 to the best ten of the first table's items, one user at a time and 64."""
    count, dim = world.size.tables[0], world.size.network["hidden_size"]
    table = F.normalize(torch.randn(count, dim, device=world.device), dim=-1)
    scorer = ModelScorer(world.model, table, max_history=POSITIONS, device=world.device, precision=world.precision)
    retriever, rng = ExactRetriever(scorer), np.random.default_rng(0)
    histories = Histories([rng.integers(count, size=POSITIONS) for _ in range(64)])
    one = histories[:1]
    seconds = world.in_turns(
        {"one": lambda: retriever.recommend(one, 10), "64": lambda: retriever.recommend(histories, 10)}, 30
    )
    p50, p99 = (float(np.percentile(seconds["one"], q)) for q in (50, 99))
    return {"p50": p50, "p99": p99, "users/s in batches of 64": span([64 / s for s in seconds["64"]])}


def evaluation(world: World) -> dict[str, Any]:
    """H9. The places of some users' targets among all items."""
    number, count = world.size.ranked
    dim = world.size.network["hidden_size"]
    users, keys = (torch.randn(n, dim, device=world.device) for n in (number, count))
    retriever, targets = ExactRetriever(Vectors(users, keys)), np.random.default_rng(0).integers(count, size=number)
    nothing = [np.zeros(0, dtype=np.int64)] * number
    seconds = world.in_turns({"rank": lambda: retriever.rank(numbers(number), targets, nothing)}, 3)["rank"]
    return {"seconds": span(seconds), "users": number, "items": count}
