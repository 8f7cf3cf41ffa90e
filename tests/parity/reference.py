"""Fixtures of the HLLM authors' ID models, and what must come out of ours with the same weights.

`fixtures/` holds outputs of bytedance/HLLM at commit 2deed17 on tiny random weights, in float32 on a CPU. Their
windows are padded on the left; ours on the right.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from hllm.batches.batch import ItemBatch
from hllm.losses.contrastive import LossConfig, contrast, info_nce
from hllm.models.recommender import SequentialRecommender
from tests.conftest import history_of

FIXTURES = Path(__file__).parent / "fixtures"
CLOSE = {"atol": 1e-5, "rtol": 0.0}


@dataclass(frozen=True)
class Reference:
    """One folder of fixtures."""

    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    gradient_norms: dict[str, float | None]
    sequences: list[list[int]]
    histories: list[list[int]]

    @staticmethod
    def read(name: str) -> "Reference":
        folder = FIXTURES / name
        arrays = [np.load(folder / f"{part}.npz") for part in ("inputs", "outputs")]
        summary = json.loads((folder / "summary.json").read_text())
        return Reference(
            load_file(folder / "model.safetensors"),
            *({key: torch.from_numpy(values[key]) for key in values.files} for values in arrays),
            json.loads((folder / "grad_norms.json").read_text()) | {"logit_scale": summary["grad_logit_scale"]},
            summary["sequences"],
            summary["histories"],
        )

    def at_valid(self, values: Tensor) -> Tensor:
        """Rows at the reference's valid positions, sequence by sequence, oldest first."""
        return values[self.inputs["attention_mask"].bool()]


def catalogue(model: SequentialRecommender) -> Tensor:
    """Embeddings of all 41 items; the reference's padding entry is an item like any other."""
    none = torch.zeros(0, dtype=torch.long)
    return model.item_encoder(ItemBatch(torch.arange(41), none, torch.zeros(41, dtype=torch.long)))


def padded(sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Item numbers padded on the right, and the mask."""
    rows = [torch.tensor(sequence) for sequence in sequences]
    items = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return items, torch.arange(items.shape[1]) < torch.tensor([[len(row)] for row in rows])


def users_at_valid(reference: Reference, model: SequentialRecommender) -> tuple[Tensor, Tensor]:
    """User embeddings and targets (item numbers) at the positions that have both; a window of one item has none."""
    windows = [sequence for sequence in reference.sequences if len(sequence) > 1]
    items, mask = padded([window[:-1] for window in windows])
    targets = torch.tensor([item for window in windows for item in window[1:]])
    return model.user_encoder(history_of(catalogue(model)[items], mask))[mask], targets


def check_forward(reference: Reference, model: SequentialRecommender) -> None:
    with torch.no_grad():
        table = F.normalize(catalogue(model), dim=-1)
        items, mask = padded([history[-6:] for history in reference.histories])
        users, _ = users_at_valid(reference, model)
        last = model.user_encoder.after(history_of(catalogue(model)[items], mask))
    assert len(users) == 19, "the fixtures have 19 valid positions"
    assert torch.allclose(users, reference.at_valid(reference.outputs["output_embeddings"]), **CLOSE)
    assert torch.allclose(table, reference.outputs["item_features"], **CLOSE)
    assert torch.allclose(last, reference.outputs["predict_last"], **CLOSE)
    assert torch.allclose(F.normalize(last, dim=-1) @ table.T, reference.outputs["predict_scores"], **CLOSE)


def pooled_loss(reference: Reference, model: SequentialRecommender) -> Tensor:
    """The loss against the negatives of all windows, with the reference's cosine mask."""
    users, targets = users_at_valid(reference, model)
    items, negatives = catalogue(model), reference.inputs["neg_items"].flatten()
    result = info_nce(
        users, items[targets], items[negatives], positive_ids=targets, negative_ids=negatives, scale=model.scale,
        mask="cosine",
    )  # fmt: skip
    kept = 1 + len(negatives) * (1 - result.masked.item())
    assert kept == pytest.approx(reference.outputs["nce_samples"].item(), abs=1e-4)
    assert result.top1.item() == pytest.approx(reference.outputs["nce_top1_acc"].item(), abs=1e-6)
    return result.loss


def check_losses(reference: Reference, model: SequentialRecommender) -> None:
    assert pooled_loss(reference, model).item() == pytest.approx(reference.outputs["loss"].item(), abs=1e-5)
    users, targets = users_at_valid(reference, model)
    items = catalogue(model)
    own = reference.at_valid(reference.inputs["neg_items_per_position"])
    result = contrast(
        LossConfig(mask="cosine"), users, items[targets], items, own, positive_ids=targets, scale=model.scale
    )
    assert result.loss.item() == pytest.approx(reference.outputs["per_position_loss"].item(), abs=1e-5)


def check_gradients(
    reference: Reference, model: SequentialRecommender, gradient: Callable[[str], Tensor | None]
) -> None:
    pooled_loss(reference, model).backward()
    for name, norm in reference.gradient_norms.items():
        if norm is not None:
            found = gradient(name)
            assert found is not None, name
            assert found.norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-7), name
