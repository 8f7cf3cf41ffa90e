"""The model against the reference implementation: same weights and inputs, numbers recorded from bytedance/HLLM."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hllm.batches.batch import SequenceBatch, sequence_batch, text_batch
from hllm.batches.negatives import Negatives
from hllm.data.tokens import TokenCache
from hllm.losses.contrastive import info_nce
from hllm.metrics import ranking_metrics
from hllm.models.checkpoint import load_checkpoint
from hllm.models.published.weights import import_published, published_name
from hllm.models.recommender import SequentialRecommender
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.histories import Histories
from hllm.retrieval.scorer import ModelScorer

FIXTURES = Path(__file__).parent / "fixtures"
NUM_SLOTS = 6
WEIGHTS = {"A": "pytorch_model.bin", "A0": "model.safetensors"}


class Reference:
    """One fixture: its files, and our model with its weights."""

    def __init__(self, name: str, model: SequentialRecommender) -> None:
        folder = FIXTURES / name
        self.model = model
        self.given = json.loads((folder / "inputs.json").read_text())
        self.inputs = np.load(folder / "inputs.npz")
        self.outputs = np.load(folder / "outputs.npz")
        self.gradients = np.load(folder / "gradients.npz")
        self.norms = json.loads((folder / "grad_norms.json").read_text())
        self.summary = json.loads((folder / "summary.json").read_text())
        self.token_ids = [item["token_ids"] for item in self.given["items"]]

    def batch(self) -> SequenceBatch:
        """The training windows, padded on the right instead of the left, with the reference's pool of negatives."""
        offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in self.token_ids])])
        tokens = TokenCache(np.concatenate(self.token_ids).astype(np.int32), offsets)
        windows = [np.array(window) for window in self.given["sequences"]]
        pool = self.inputs["neg_item_ids"].reshape(-1)
        negatives = Negatives(shared=pool, per_position=None, counts=np.zeros(len(self.token_ids), dtype=np.float32))
        nothing = [np.zeros_like(window) for window in windows]
        return sequence_batch(windows, negatives, tokens, users=np.arange(len(windows)), times=nothing, actions=nothing)

    def encoded(self, batch: SequenceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Item embeddings, and user embeddings where there is a target."""
        items = self.model.item_encoder(batch.items)
        return items, self.model.users(items, batch)[batch.mask]

    def info_nce(self, mask: str = "cosine"):
        batch = self.batch()
        items, users = self.encoded(batch)
        targets = batch.targets[batch.mask]
        return info_nce(
            users,
            items[targets],
            items[batch.negatives],
            positive_ids=targets,
            negative_ids=batch.negatives,
            scale=self.model.scale,
            mask=mask,
            cosine_threshold=self.summary["settings"]["nce_thres"],
        )


@pytest.fixture(params=["A", "A0"])
def reference(request, tmp_path) -> Reference:
    folder = FIXTURES / request.param
    import_published(
        folder / WEIGHTS[request.param],
        item_config=folder / "item_llm",
        user_config=folder / "user_llm",
        out=tmp_path / "imported",
        max_history=NUM_SLOTS,
    )
    model, config, _ = load_checkpoint(tmp_path / "imported")
    assert config.item.pooling == {"A": "item", "A0": "mean"}[request.param]
    return Reference(request.param, model)


@torch.no_grad()
def test_item_embeddings(reference):
    found = reference.model.item_encoder(text_batch(reference.token_ids))
    np.testing.assert_allclose(found.numpy(), reference.outputs["item_embeddings"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_user_embeddings_with_the_padding_on_the_other_side(reference):
    batch = reference.batch()
    assert not batch.mask[-1].any(), "one window holds a single item, and so no target"
    _, users = reference.encoded(batch)
    np.testing.assert_allclose(users.numpy(), reference.outputs["user_embedding_valid"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_scores_of_the_catalogue_by_the_scorer_that_serves(reference):
    table = reference.model.item_encoder(text_batch(reference.token_ids))
    scorer = ModelScorer(
        reference.model, table, max_history=NUM_SLOTS, device=torch.device("cpu"), precision="fp32"
    )  # fmt: skip
    histories = Histories([np.array(history) for history in reference.given["histories"]])
    assert max(map(len, histories)) > NUM_SLOTS, "one history is cut"
    np.testing.assert_allclose(scorer.score(histories), reference.outputs["predict_scores"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_logits(reference):
    batch = reference.batch()
    items, users = (F.normalize(vectors, dim=-1) for vectors in reference.encoded(batch))
    targets = items[batch.targets[batch.mask]]
    cosines = torch.cat([(users * targets).sum(-1, keepdim=True), users @ items[batch.negatives].T], dim=-1)
    found = (reference.model.scale * cosines).numpy()
    recorded, kept = reference.outputs["logits"], np.isfinite(reference.outputs["logits"])
    assert (kept[:, 1:] == ~reference.outputs["negative_masked"]).all()
    np.testing.assert_allclose(found[kept], recorded[kept], rtol=0, atol=1e-4)
    between = (targets @ items[batch.negatives].T).numpy()
    np.testing.assert_allclose(between, reference.outputs["target_negative_cosine"], rtol=0, atol=1e-5)


def test_loss_and_its_parts_under_the_cosine_mask(reference):
    outputs = reference.outputs
    result = reference.info_nce()
    num_negatives = outputs["negative_masked"].shape[1]
    assert result.loss.item() == pytest.approx(outputs["loss"].item(), abs=1e-5)
    assert 1 + num_negatives * (1 - result.masked.item()) == pytest.approx(outputs["nce_samples"].item(), abs=1e-4)
    assert result.top1.item() == pytest.approx(outputs["nce_top1_acc"].item(), abs=1e-6)


def test_masking_by_id_alone_is_another_loss(reference):
    """Two items share one text: by their cosine they mask each other, by their ids they do not."""
    first, second = reference.given["identical_text"]
    assert reference.token_ids[first] == reference.token_ids[second]
    by_id, by_cosine = reference.info_nce("id"), reference.info_nce("cosine")
    assert by_id.loss.item() > by_cosine.loss.item() + 5e-4
    assert by_id.masked.item() < by_cosine.masked.item()


def test_gradients(reference):
    reference.info_nce().loss.backward()
    named = {"logit_scale": reference.model.log_scale} | {
        published_name(tier, key): parameter
        for tier in ("item_encoder", "user_encoder")
        for key, parameter in getattr(reference.model, tier).named_parameters()
    }
    with_gradient = {name for name, norm in reference.norms.items() if norm is not None}
    assert named.keys() == with_gradient
    for name, parameter in named.items():
        assert parameter.grad.norm().item() == pytest.approx(reference.norms[name], rel=1e-4), name
    assert set(reference.gradients) <= with_gradient
    for name in reference.gradients:
        expected = reference.gradients[name]
        distance = np.linalg.norm(named[name].grad.numpy().reshape(expected.shape) - expected)
        assert distance <= 1e-4 * np.linalg.norm(expected), name
    assert named["logit_scale"].grad.item() == pytest.approx(reference.summary["grad_logit_scale"], rel=1e-4)


def test_a_scale_beyond_100_is_clamped_and_still_learns(reference):
    recorded = reference.summary["clamp_case"]
    reference.model.log_scale.data.fill_(recorded["logit_scale_before"])
    reference.model.clamp_scale()
    assert reference.model.log_scale.item() == pytest.approx(recorded["logit_scale_after"], abs=1e-6)
    assert reference.model.log_scale.item() == pytest.approx(math.log(100), abs=1e-6)
    loss = reference.info_nce().loss
    loss.backward()
    # At scale 100 a difference of 1e-6 between two cosines is one of 1e-4 between their logits.
    assert loss.item() == pytest.approx(recorded["loss"], abs=1e-4)
    assert reference.model.log_scale.grad.item() == pytest.approx(recorded["grad_logit_scale"], rel=1e-4)


class GivenScores:
    """A Scorer that has been told its scores; each history is that of the user whose turn it is."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    @property
    def num_items(self) -> int:
        return self.scores.shape[1]

    def score(self, histories) -> np.ndarray:
        assert len(histories) == len(self.scores), "all users are asked for at once"
        return self.scores.copy()


@pytest.mark.parametrize("name", ["A", "A0"])
def test_ranking_and_metrics(name):
    given = np.load(FIXTURES / name / "eval.npz")
    recorded = json.loads((FIXTURES / name / "metrics.json").read_text())["metrics"]
    offsets = given["history_offsets"]
    seen = Histories([given["history_items"][start:end] for start, end in itertools.pairwise(offsets)])
    excluded = [np.append(items, 0) for items in seen]  # column 0 is the reference's padding entry
    retriever = ExactRetriever(GivenScores(given["scores"]))

    assert (retriever.recommend(seen, 50, exclude=excluded).items == given["top50"]).all()
    ranks = retriever.rank(seen, given["target"], exclude=excluded)
    assert (ranks.tied == 0).all(), "the scores hold no ties"
    assert (np.where(ranks.better < 50, ranks.better + 1, 0) == given["rank"]).all()
    metrics = ranking_metrics(ranks, (5, 10, 50))
    for key, expected in recorded.items():
        assert metrics[key].mean() == pytest.approx(expected, abs=1e-9), key
