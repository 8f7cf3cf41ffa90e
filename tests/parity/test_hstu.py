"""HSTU as the HLLM authors' code computes it: embeddings, scores, losses and gradients of fixed weights."""

import pytest
import torch

from hllm.models.item.ids import IdItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.user.hstu import HSTU, HSTUConfig
from tests.parity.reference import Reference, check_forward, check_gradients, check_losses


def our_name(name: str) -> str:
    """The parameter of ours that holds the reference's."""
    if name.startswith("_hstu"):
        _, _, layer, _part, *kind = name.split(".")
        return f"user_encoder.layers.{layer}.{'output.' + kind[0] if kind else 'inputs.weight'}"
    return {
        "logit_scale": "log_scale",
        "item_embedding.weight": "item_encoder.embedding.weight",
        "item_id_proj_tower.weight": "item_encoder.projector.weight",
        "position_embedding.weight": "user_encoder.positions.table.weight",
    }[name]


@pytest.fixture(params=["hstu", "hstu/projected"])
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference.read(request.param)


@pytest.fixture
def model(reference: Reference) -> SequentialRecommender:
    user = HSTU(HSTUConfig(dim=32, num_heads=4, dropout=0.0, relative_bias=False), max_history=6)
    items = IdItemEncoder(41, 32, own_dim=reference.weights["item_embedding.weight"].shape[1])
    model = SequentialRecommender(items, user)
    weights = {}
    for name, weight in reference.weights.items():
        if name == "_attn_mask" or "_rel_attn_bias" in name:  # built and saved there, but never applied
            continue
        if name == "position_embedding.weight":  # there is one more than is used
            weight = weight[:6]
        weights[our_name(name)] = weight.T if name.endswith("_uvqk") else weight
    model.load_state_dict(weights, strict=True)
    return model


def test_hstu_embeds_and_scores_as_the_reference(reference, model):
    check_forward(reference, model)


def test_hstu_has_the_references_losses_with_shared_and_with_own_negatives(reference, model):
    check_losses(reference, model)


def test_hstu_has_the_references_gradients(reference, model):
    parameters = dict(model.named_parameters())
    check_gradients(reference, model, lambda name: parameters[our_name(name)].grad)
    assert all(torch.isfinite(p.grad).all() for p in parameters.values())
