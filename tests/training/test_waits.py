"""Until a step's gradients are there the host asks the device for nothing in rows, so a GPU need not stand still.

Tensors on torch's meta device have no values: whatever would wait for one fails there. Where rows are not to be had,
transformers looks at the positions of the User LLM. It looks at every chunk of padded texts, too, where they have no
beginning in common or an encoder reads them: those are left out.
"""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from transformers import masking_utils

from hllm.batches.loader import BatchContents, TrainingLoader
from hllm.batches.negatives import NegativesConfig
from hllm.batches.windows import WindowConfig
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.split import split_dataset
from hllm.losses.contrastive import LossConfig
from hllm.models.backbone import rows
from hllm.models.backbone.backbone import Backbone
from hllm.models.build import ModelConfig, build_model
from hllm.models.item import text
from hllm.objectives.next_item import NextItem
from hllm.runs.run import Run
from hllm.training.fit import catalogue_tokens
from tests.conftest import recipe_values

NEGATIVES = {
    "mixed": {"kind": "mixed", "num_sampled": 9},
    "catalogue": {"kind": "catalogue"},
    "own": {"kind": "sampled", "num_sampled": 5, "per_position": True},
}


@pytest.fixture
def meta(monkeypatch) -> torch.device:
    """A device that computes shapes alone."""
    monkeypatch.setitem(text.CHUNK_TOKENS, "meta", 40)  # several chunks
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which it has not
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    return torch.device("meta")


@pytest.fixture
def looks(monkeypatch) -> list[torch.Tensor]:
    """Record the positions in which transformers looks for several sequences in a row."""
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", seen.append)
    return seen


@pytest.fixture
def kernel(monkeypatch) -> list[int]:
    """Record the lengths of the queries that the kernel is given."""
    lengths, call = [], rows.attend_by_kernel

    def noted(query, *given, **options):
        lengths.append(len(query))
        return call(query, *given, **options)

    monkeypatch.setattr(rows, "attend_by_kernel", noted)
    return lengths


@pytest.fixture(params=["padded", "rows", "rows without a common beginning"])
def texts(request, monkeypatch) -> str:
    """Let chunks of texts be read padded, in rows as on a GPU, or in rows without a common beginning."""
    if request.param != "padded":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(Backbone, "reads_rows", lambda backbone, _: bool(backbone.facts.rows))
    return request.param


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("pooling", ["item", "last"])
@pytest.mark.parametrize("user", ["llm", "sasrec"])
def test_a_step_of_decoders_does_not_wait_in_rows_and_once_without(
    dataset, tiny_llama, tmp_path, meta, looks, texts, kernel, user, pooling, negatives
):
    values = recipe_values(tiny_llama, tiny_llama)["model"]
    values["item"] |= {"pooling": pooling}
    if user == "sasrec":
        values["user"] = {"kind": "sasrec", "dim": 12, "num_heads": 2}
    config = ModelConfig.from_dict(values, where="test")
    tokens = catalogue_tokens(Run(tmp_path), dataset, config.item.text_prompt, tiny_llama)
    loader = TrainingLoader(
        dataset, split_dataset(dataset, LeaveOneOutSplit()), tokens,
        BatchContents(WindowConfig(5), 7, negatives=NegativesConfig.from_dict(NEGATIVES[negatives], where="test")),
        seed=1, stage=0,
    )  # fmt: skip
    (batch,) = next(iter(loader.steps(0)))
    model = build_model(config, num_items=dataset.num_items, num_actions=0, base=tmp_path).to(meta)
    there = batch.to(meta)
    assert there.items.prefix > 0
    if texts == "rows without a common beginning":
        there = replace(there, items=replace(there.items, prefix=0))
    with pytest.raises(RuntimeError, match="meta tensors"):
        int(there.mask.sum())
    looks.clear()  # at what was computed when the model was made
    outcome = NextItem(LossConfig(), dataset.num_items)(model, model.item_encoder(there.items), there, 1)
    outcome.loss.backward()
    assert len(looks) == (user == "llm" and texts == "padded")
    assert bool(kernel) == (texts != "padded")
    assert outcome.num_queries == there.num_targets == int(batch.mask.sum())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
