"""Losses over prefixes of the vectors, and scores by the first numbers alone."""

import shutil

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from hllm.api import Recommender
from hllm.batches.negatives import NegativesConfig
from hllm.embedding.table import ItemEmbeddingTable
from hllm.errors import ConfigError
from hllm.losses.contrastive import LossConfig, contrast
from hllm.objectives.next_item import NextItemConfig
from hllm.retrieval.histories import Histories
from hllm.retrieval.index.config import IndexConfig
from hllm.retrieval.index.retriever import IndexRetriever, build_index, source_of
from hllm.runs.measure import evaluate_run
from hllm.runs.run import Run
from hllm.runs.tables import embed_run_items
from hllm.training.fit import fit

SIZES = (2, 5)


def by_hand(kind, user, positive, items, negatives, positive_ids, scale, *, similarity="cosine"):
    """The mean over prefixes of 2 and 5 numbers and the whole of 8, one query and one logit at a time."""
    total = 0.0
    for size in (2, 5, 8):
        for query in range(len(user)):
            own = negatives if negatives.ndim == 1 else negatives[query]
            rows = [int(row) for row in own if row != positive_ids[query]]

            def logit(vector, query=query, size=size):
                a, b = user[query, :size], vector[:size]
                if similarity == "cosine":
                    a, b = a / a.norm(), b / b.norm()
                return scale * (a * b).sum()

            right, wrong = logit(positive[query]), torch.stack([logit(items[row]) for row in rows])
            if kind == "info-nce":
                total = total - right + torch.logsumexp(torch.cat([right[None], wrong]), 0)
            else:
                total = total - (F.logsigmoid(right) + F.logsigmoid(-wrong).sum()) / (1 + len(wrong))
    return total / (3 * len(user))


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
@pytest.mark.parametrize(
    ("kind", "shared", "similarity"),
    [("info-nce", True, "cosine"), ("info-nce", False, "cosine"), ("bce", True, "cosine"), ("bce", False, "dot")],
)
def test_the_loss_and_its_gradients_against_a_sum_by_hand(kind, shared, similarity, chunk_size):
    torch.manual_seed(0)
    inputs = [
        torch.randn(4, 8, dtype=torch.float64),
        torch.randn(7, 8, dtype=torch.float64),
        torch.tensor(2.0).double(),
    ]
    positive_ids, negatives = torch.tensor([0, 3, 6, 3]), torch.arange(7) if shared else torch.randint(7, (4, 5))
    found, expected = [], []
    for result, ours in ((found, True), (expected, False)):
        user, items, scale = (x.clone().requires_grad_() for x in inputs)
        positive = F.embedding(positive_ids, items)
        if ours:
            config = LossConfig(kind=kind, matryoshka=SIZES)
            loss = contrast(
                config, user, positive, items, negatives, positive_ids=positive_ids, scale=scale,
                similarity=similarity, chunk_size=chunk_size,
            ).loss  # fmt: skip
        else:
            loss = by_hand(kind, user, positive, items, negatives, positive_ids, scale, similarity=similarity)
        loss.backward()
        result += [loss.detach(), user.grad, items.grad, scale.grad]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_sizes_that_do_not_fit_are_refused(recipe, interactions, items, tmp_path):
    with pytest.raises(ValueError, match=r"matryoshka is \[8, 4\]; expected sizes that rise, each once"):
        LossConfig(matryoshka=(8, 4))
    with pytest.raises(ValueError, match='matryoshka needs mask = "id"'):
        LossConfig(matryoshka=(4,), mask="cosine")
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        LossConfig(matryoshka=(0, 4))
    x = torch.randn(3, 8)
    with pytest.raises(ConfigError, match=r"loss.matryoshka is \[4, 8\], but the model's vectors have 8 numbers"):
        contrast(LossConfig(matryoshka=(4, 8)), x, x, x, torch.arange(3), positive_ids=torch.arange(3), scale=1.0)
    last = recipe.stages[1].model_copy(update={"objective": NextItemConfig(loss=LossConfig(matryoshka=(8, 32)))})
    wrong = recipe.model_copy(update={"stages": (recipe.stages[0], last)})
    with pytest.raises(
        ConfigError, match=r"\[8, 32\], but the model's vectors have 16 numbers; expected sizes below 16"
    ):
        fit(interactions, items, wrong, tmp_path / "run", base=tmp_path)
    assert not (tmp_path / "run").exists()


def test_short_vectors_rank_better_when_they_were_trained(interactions, items, id_recipe, tmp_path):
    def at_two(name: str, sizes: tuple[int, ...]) -> float:
        stage = id_recipe.stages[0].model_copy(
            update={
                "objective": NextItemConfig(
                    negatives=NegativesConfig(kind="catalogue"), loss=LossConfig(matryoshka=sizes)
                )
            }
        )
        run = fit(
            interactions, items, id_recipe.model_copy(update={"stages": (stage,)}), tmp_path / name, base=tmp_path
        )
        return Recommender.load(run.folder).at(2).evaluate(part="validation").all_items["ndcg@10"].mean

    assert at_two("with", (2, 4)) > at_two("without", ()) + 0.1


def test_scores_are_cosines_of_the_first_numbers_and_histories_are_read_whole(trained):
    cut, user = trained.at(5), trained.scorer.users(Histories([np.array([3, 4, 5])]))
    table = trained.scorer.table
    expected = F.cosine_similarity(user[:, :5], table[:, :5])
    np.testing.assert_allclose(cut.scorer.score(Histories([np.array([3, 4, 5])]))[0], expected.numpy(), atol=1e-6)
    found = cut.recommend(histories=[["i3", "i4", "i5"]], k=30, exclude_seen=False)
    assert found["item_id"].to_list() == [f"i{row}" for row in np.argsort(-expected.numpy(), kind="stable")]
    alike = cut.similar(["i3"], k=1)
    own = F.cosine_similarity(table[3:4, :5], table[:, :5])
    own[3] = -1
    assert alike["item_id"].to_list() == [f"i{int(own.argmax())}"]
    with pytest.raises(ConfigError, match="the vectors have 16 numbers; dim is 17, expected 1 to as many"):
        trained.at(17)


def test_the_curves_full_size_is_the_ordinary_evaluation(trained):
    ordinary, full = (evaluate_run(r.bundle, part="validation") for r in (trained, trained.at(16)))
    assert full.ranks.better.tolist() == ordinary.ranks.better.tolist()
    assert full.result.all_items == ordinary.result.all_items
    assert torch.equal(trained.at(16).scorer.keys, trained.scorer.keys)


def test_a_cut_table_is_made_from_the_whole_one_and_never_the_other_way(trained, tmp_path):
    run, out = trained.run, tmp_path / "items"
    assert embed_run_items(run, out, dim=6).num_encoded == 0
    short = ItemEmbeddingTable.load(out, checkpoint=None)
    assert torch.equal(short.vectors, trained.scorer.table[:, :6])
    assert embed_run_items(run, out, dim=4).num_encoded == 0
    assert torch.equal(ItemEmbeddingTable.load(out, checkpoint=None).vectors, trained.scorer.table[:, :4])
    embed_run_items(run, out, dim=6)
    assert torch.equal(ItemEmbeddingTable.load(out, checkpoint=None).vectors, trained.scorer.table[:, :6])
    embed_run_items(run, out, dtype="int8")
    assert ItemEmbeddingTable.load(out, checkpoint=None).vectors.shape == (30, 16)
    embed_run_items(run, out, dtype="int8", dim=6)
    assert ItemEmbeddingTable.load(out, checkpoint=None).vectors.shape == (30, 6)


def test_a_cut_table_encodes_only_what_is_needed(trained_folder, tmp_path):
    run = Run(shutil.copytree(trained_folder, tmp_path / "run"))
    shutil.rmtree(run.table_path)
    report = embed_run_items(run, tmp_path / "items", dim=6)
    assert (report.num_rows, report.num_encoded) == (30, 30)
    cut = ItemEmbeddingTable.load(tmp_path / "items", checkpoint=None).vectors
    torch.testing.assert_close(cut, Recommender.load(trained_folder).scorer.table[:, :6])


def test_sizes_of_tables_that_do_not_fit_are_refused(trained, tmp_path):
    with pytest.raises(ConfigError, match="dim is 17, the model's vectors have 16 numbers"):
        embed_run_items(trained.run, tmp_path / "items", dim=17)
    with pytest.raises(ConfigError, match="the run's own table is read by its user tier, whole vectors"):
        embed_run_items(trained.run, trained.run.table_path, dim=4)


def test_an_index_of_short_vectors_serves_the_run(trained_folder, tmp_path):
    folder = shutil.copytree(trained_folder, tmp_path / "run")
    trained = Recommender.load(folder)
    index = build_index(trained.scorer, trained.dataset, IndexConfig(dim=5), source=source_of(trained.run.table_path))
    index.save(folder / "index")
    opened = Recommender.load(folder)
    assert isinstance(opened.retriever, IndexRetriever)
    short = Recommender.load(trained_folder).at(5)
    assert opened.recommend(["u2"], k=8).drop("score").equals(short.recommend(["u2"], k=8).drop("score"))
    assert opened.at(4).bundle.index is None
    assert opened.at(5).bundle.index is not None
    opened.add_items(pl.DataFrame({"item_id": ["new"], "title": ["red hat"], "kind": ["hat"]}))
    assert "new" in opened.recommend(["u2"], k=31)["item_id"].to_list()
    more, others = opened.at(None), [opened.at(4), opened.at(4).at(5)]
    assert isinstance(more.retriever, IndexRetriever), (
        "at after add_items opened the index on disk, which lacks the item"
    )
    more.add_items(pl.DataFrame({"item_id": ["newer"], "title": ["blue hat"], "kind": ["hat"]}))
    assert "newer" in more.recommend(["u2"], k=32)["item_id"].to_list()
    for other in (opened, opened.at(5), *others):
        assert other.recommend(["u2"], k=32, exclude_seen=False)["item_id"].n_unique() == 31
    assert others[0].bundle.index is None, "exact search"
    assert others[1].bundle.index.num_items == 31
    again = build_index(short.scorer, short.dataset, source="s")
    assert again.config.dim == 5
