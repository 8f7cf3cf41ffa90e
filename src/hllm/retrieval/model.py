"""A trained recommender as a Scorer: histories become user vectors, scores are cosines with the item table."""

from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hllm.data.batch import pad
from hllm.models.recommender import SequentialRecommender
from hllm.precision import Precision, autocast, resolve_precision
from hllm.retrieval.retriever import Histories

POSITIONS_PER_BATCH = 16_384


@final
class ModelScorer:
    """The user tier over a table of item embeddings; the Item LLM is not needed."""

    def __init__(
        self,
        model: SequentialRecommender,
        table: Float[Tensor, "item dim"],
        *,
        max_history: int,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.model = model
        self.table = table.to(device)
        self.unit = F.normalize(self.table.float(), dim=-1, eps=1e-6)
        self.max_history = max_history
        self.device = device
        self.precision = resolve_precision(precision, device)

    @property
    def num_items(self) -> int:
        """Return the size of the table."""
        return len(self.table)

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return cosines in fp32; a user without history gets 0 for every item."""
        users = F.normalize(self.users(histories), dim=-1, eps=1e-6)
        scores: Float[np.ndarray, "user item"] = (users @ self.unit.T).cpu().numpy()
        return scores

    @torch.no_grad()
    def users(self, histories: Histories) -> Float[Tensor, "user dim"]:
        """Return the user embedding after the latest `max_history` items; zero for a user without history."""
        vectors = torch.zeros(len(histories), self.table.shape[1], device=self.device)
        lengths = np.array([min(len(h), self.max_history) for h in histories])
        known = np.flatnonzero(lengths)
        known = known[np.argsort(lengths[known], kind="stable")]  # neighbours of like length, little padding
        per_batch = max(1, POSITIONS_PER_BATCH // self.max_history)
        for start in range(0, len(known), per_batch):
            chosen = known[start : start + per_batch]
            history, mask = pad([histories[user][-self.max_history :] for user in chosen])
            rows, valid = torch.from_numpy(history).to(self.device), torch.from_numpy(mask).to(self.device)
            with autocast(self.precision, self.device):
                encoded = self.model.encode_users(self.table, rows, valid)
            vectors[torch.from_numpy(chosen)] = encoded.float()
        return vectors
