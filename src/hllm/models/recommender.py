"""SequentialRecommender: an item tier and a user tier. HLLM is the case where both are language models."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hllm.batches.batch import SequenceBatch
from hllm.errors import ConfigError
from hllm.losses.contrastive import Similarity
from hllm.models.fusion import Fusion
from hllm.models.heads import RankingHeads
from hllm.models.tiers import History, ItemEncoder, SuffixEncoder, UserEncoder, by_length
from hllm.precision import take_rows

MAX_SCALE = 100.0
MODULES = ("item_encoder", "user_encoder", "fusion", "ranker")
"""The modules of a model; the last two may be absent."""
_PARTS = {
    "item_encoder": "item",
    "user_encoder": "user",
    "fusion": "inputs",
    "ranker": "heads",
    "log_scale": "temperature",
}


class SequentialRecommender(nn.Module):
    """The model has two tiers, inputs added between them, and the scale (1 / temperature) of their similarity."""

    def __init__(
        self,
        item_encoder: ItemEncoder,
        user_encoder: UserEncoder,
        *,
        fusion: Fusion | None = None,
        ranker: RankingHeads | None = None,
        similarity: Similarity = "cosine",
        scale: float = 1 / 0.07,
    ) -> None:
        super().__init__()
        self.item_encoder = item_encoder
        self.user_encoder = user_encoder
        self.fusion = fusion
        self.ranker = ranker
        self.similarity: Similarity = similarity
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """Return the factor on similarities. Source: arXiv:2409.12740, `logit_scale`."""
        return torch.exp(self.log_scale)

    @property
    def reads_times(self) -> bool:
        """Return whether histories need their times."""
        return self.user_encoder.reads_times or (self.fusion is not None and self.fusion.reads_times)

    @property
    def reads_log(self) -> bool:
        """Return whether histories need their times or actions."""
        return self.reads_times or (self.fusion is not None and self.fusion.actions is not None)

    def parts(self) -> dict[str, dict[str, nn.Parameter]]:
        """Return every parameter by name, in the part that it belongs to; what two parts share is the first one's.

        "item_llm" is what reads the items' texts; "item" is the rest of the item tier, such as a projector or a table
        of ids. Then come "user", "inputs" (what is added to the items' vectors), "heads" and "temperature".
        """
        parts: dict[str, dict[str, nn.Parameter]] = {name: {} for name in ("item_llm", *_PARTS.values())}
        reader = self.item_encoder.reader
        reading = set() if reader is None else {id(p) for p in reader.reading_parameters()}
        for name, parameter in self.named_parameters():
            part = "item_llm" if id(parameter) in reading else _PARTS[name.partition(".")[0]]
            parts[part][name] = parameter
        return parts

    def with_items(self, item_encoder: ItemEncoder) -> "SequentialRecommender":
        """Return a model that shares everything with this one but the item tier."""
        other = SequentialRecommender(
            item_encoder, self.user_encoder, fusion=self.fusion, ranker=self.ranker, similarity=self.similarity
        )
        other.log_scale = self.log_scale
        return other

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Bring the scale back between 1 and 100; called after every optimizer step.

        Differs from the reference, which clamps a bf16 copy and lets the fp32 master drift out of range.
        """
        self.log_scale.clamp_(0.0, math.log(MAX_SCALE))

    def history(
        self,
        vectors: Float[Tensor, "batch position dim"],
        mask: Bool[Tensor, "batch position"],
        *,
        items: Int[Tensor, "batch position"],
        times: Int[Tensor, "batch position"],
        actions: Int[Tensor, "batch position"],
    ) -> History:
        """Put together what the user tier reads: `vectors` of `items` (item indices), and what is added to them."""
        if self.fusion is not None:
            vectors = self.fusion(vectors, items, times, actions)
        return History(vectors, mask, times)

    def users(self, items: Float[Tensor, "item dim"], batch: SequenceBatch) -> Float[Tensor, "batch position dim"]:
        """Arrange item embeddings, rows as in `batch.items`, into histories and encode those."""
        return by_length(self.user_encoder, self.histories(items, batch), batch.lengths)

    def histories(self, items: Float[Tensor, "item dim"], batch: SequenceBatch) -> History:
        """Arrange item embeddings, rows as in `batch.items`, into histories."""
        return self.history(
            take_rows(items, batch.history),
            batch.mask,
            items=batch.items.index[batch.history],
            times=batch.times,
            actions=batch.actions,
        )

    def rank(
        self,
        history: History,
        vectors: Float[Tensor, "batch point candidate dim"],
        items: Int[Tensor, "batch point candidate"],
        anchors: Int[Tensor, "batch point"],
    ) -> tuple[Float[Tensor, "batch position dim"], Float[Tensor, "batch point candidate target"]]:
        """Return the user tier's states over the history, and every target's logit for candidates.

        A point is a place in the history, behind its position `anchors` (-1: before it). Its candidates have the
        embeddings `vectors` and the item indices `items`. The history is read once. Raises ConfigError for a model
        without heads.
        """
        ranker, encoder = self.require_ranker(), self.user_encoder
        assert isinstance(encoder, SuffixEncoder), "build_model gives heads to no other tier"
        points, candidates = vectors.shape[1:3]
        if ranker.user_token is not None:
            token = ranker.user_token.to(vectors.dtype).expand(len(vectors), points, -1)
            states, users = encoder.with_suffixes(history, token, anchors)
            return states, ranker(users[:, :, None].expand(-1, -1, candidates, -1), vectors)
        suffixes, numbers = vectors.flatten(1, 2), items.flatten(1, 2)
        if self.fusion is not None:  # adds the vectors of ids alone: what is a candidate has no time and no action yet
            suffixes = self.fusion(suffixes, numbers, torch.zeros_like(numbers), torch.zeros_like(numbers))
        states, read = encoder.with_suffixes(history, suffixes, anchors.repeat_interleave(candidates, dim=1))
        return states, ranker(read.unflatten(1, (points, candidates)), vectors)

    def require_ranker(self) -> RankingHeads:
        """Return the heads; ConfigError if there are none."""
        if self.ranker is None:
            raise ConfigError(
                "this model was trained to retrieve and has no head that scores candidates: train one with "
                '[model.ranking] and stages with objective.kind = "ranking", as recipes/small/ml-1m/hllm-late.toml does'
            )
        return self.ranker
