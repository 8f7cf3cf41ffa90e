"""SASRec as the HLLM authors' code computes it: embeddings, scores, losses and gradients of fixed weights."""

import pytest
import torch
from torch import Tensor

from hllm.models.item.ids import IdItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.user.sasrec import SASRec, SASRecConfig
from tests.parity.reference import Reference, check_forward, check_gradients, check_losses

PART = {"multi_head_attention": "attention", "feed_forward": "feed_forward"}
SETTINGS = {"inner": 2, "norm": "post", "norm_eps": 1e-12, "positions": "end", "input_norm": True, "final_norm": False}


def our_name(name: str) -> str:
    """The parameter of ours that holds the reference's; queries, keys and values are one matrix here."""
    if name == "logit_scale":
        return "log_scale"
    if not name.startswith("trm_encoder"):
        return {
            "item_embedding.weight": "item_encoder.embedding.weight",
            "position_embedding.weight": "user_encoder.positions.table.weight",
            "LayerNorm.weight": "user_encoder.input_norm.weight",
            "LayerNorm.bias": "user_encoder.input_norm.bias",
        }[name]
    _, _, layer, part, linear, kind = name.split(".")
    within = {
        "query": "attention.queries_keys_values", "key": "attention.queries_keys_values",
        "value": "attention.queries_keys_values", "dense": "attention.output",
        "dense_1": "feed_forward.inner", "dense_2": "feed_forward.output", "LayerNorm": f"{PART[part]}_norm",
    }[linear]  # fmt: skip
    return f"user_encoder.blocks.{layer}.{within}.{kind}"


def third(name: str, tensor: Tensor) -> Tensor:
    """The part of our tensor that the reference's is."""
    for number, which in enumerate(("query", "key", "value")):
        if f".{which}." in name:
            return tensor.chunk(3)[number]
    return tensor


@pytest.fixture
def reference() -> Reference:
    return Reference.read("sasrec")


@pytest.fixture
def model(reference: Reference) -> SequentialRecommender:
    user = SASRec(SASRecConfig(dim=32, num_heads=4, dropout=0.0, **SETTINGS), max_history=6)
    model = SequentialRecommender(IdItemEncoder(41, 32), user)
    ours, filled = dict(model.named_parameters()), 0
    with torch.no_grad():
        for name, weight in reference.weights.items():
            third(name, ours[our_name(name)]).copy_(weight)
            filled += weight.numel()
    assert filled == sum(p.numel() for p in model.parameters()), "every weight of ours has been set"
    return model


def test_sasrec_embeds_and_scores_as_the_reference(reference, model):
    check_forward(reference, model)


def test_sasrec_has_the_references_losses_with_shared_and_with_own_negatives(reference, model):
    check_losses(reference, model)


def test_sasrec_has_the_references_gradients(reference, model):
    check_gradients(reference, model, lambda name: third(name, dict(model.named_parameters())[our_name(name)].grad))
