"""The next-item objective: at every position, tell the item that followed from the negatives."""

from jaxtyping import Float
from torch import Tensor

from hllm.data.batch import SequenceBatch
from hllm.losses import info_nce
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.objective import Outcome
from hllm.spread import mean_cosine


def next_item(model: SequentialRecommender, items: Float[Tensor, "item dim"], batch: SequenceBatch) -> Outcome:
    """InfoNCE of each valid position's user embedding with the next item's; normalised by their number.

    Source: arXiv:2409.12740, section 3.2.
    """
    targets = batch.targets[batch.mask]  # (query,), rows of batch.items
    result = info_nce(
        model.users(items, batch)[batch.mask],
        items[targets],
        items[batch.negatives],
        positive_ids=targets,
        negative_ids=batch.negatives,
        scale=model.scale,
    )
    return Outcome(
        loss=result.loss,
        numbers={
            "top1": result.top1,
            "masked_negatives": result.masked,
            "mean_cosine": mean_cosine(items.detach()),
            "scale": model.scale.detach(),
        },
    )
