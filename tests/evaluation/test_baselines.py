import sys

import numpy as np
import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.schema import DataConfig
from hllm.data.split import split_dataset
from hllm.errors import ConfigError, MissingExtraError
from hllm.evaluation.baselines import (
    ALS,
    BASELINES,
    BM25,
    EASE,
    CoOccurrence,
    Embedding,
    ItemKNN,
    Markov,
    Popularity,
    Random,
    RecentPopularity,
    build_baseline,
    co_occurrence,
    ease,
)
from hllm.evaluation.evaluate import queries
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.histories import Histories
from hllm.retrieval.retriever import Scorer

NOTHING = np.array([], dtype=np.int64)
LEARNT = [Popularity, CoOccurrence, ItemKNN, EASE, ALS, Markov]


def world_of(histories: dict[str, str], titles: dict[str, str], times=None, **config):
    """A dataset of users whose items are letters, at the times 0, 1, 2 … or those given, and its leave-one-out split."""
    rows = [(u, i, times[u][n] if times else n) for u, h in histories.items() for n, i in enumerate(h)]
    dataset = build_dataset(
        pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"),
        pl.DataFrame({"item_id": list(titles), "title": list(titles.values())}),
        DataConfig(**config),
    )
    return dataset, split_dataset(dataset, LeaveOneOutSplit())


@pytest.fixture(scope="module")
def world():
    """Three users over items a … f; the last two items of each are targets, so training is ab, abc, bc."""
    return world_of({"u": "abde", "v": "abcde", "w": "bcae"}, {letter: letter.upper() for letter in "abcdef"})


@pytest.fixture(scope="module")
def crowd():
    """Forty users with 5 to 14 of 26 items, some twice; y and z are in no training history."""
    rng = np.random.default_rng(7)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return world_of(
        {f"u{n}": "".join(rng.choice(letters[:24], rng.integers(3, 13))) + "yz" for n in range(40)},
        {letter: f"{letter}{letter} word" for letter in letters},
    )


def index(letters: str) -> np.ndarray:
    return np.array(["abcdefghijklmnopqrstuvwxyz".index(letter) for letter in letters], dtype=np.int64)


def dense_training(dataset, split) -> np.ndarray:
    """Users by items, 1 where the user has the item in training: one interaction after another."""
    matrix = np.zeros((dataset.num_users, dataset.num_items))
    for user, item in zip(*split.training_log(dataset), strict=True):
        matrix[user, item] = 1
    return matrix


def test_popularity_by_hand(world):
    assert Popularity(*world).score(Histories([index("a")]))[0].tolist() == [2, 3, 2, 0, 0, 0]


def test_recent_popularity_counts_only_the_end_of_the_log():
    """Training is a at 0, b at 50, c at 90, b at 95, c at 100: the last tenth of the time is from 90 on."""
    world = world_of(
        {"u": "abde", "v": "cbcde"}, {x: x for x in "abcde"}, {"u": [0, 50, 200, 300], "v": [90, 95, 100, 200, 300]}
    )
    assert RecentPopularity(*world).score(Histories([NOTHING]))[0].tolist() == [0, 1, 2, 0, 0]
    assert RecentPopularity(*world, seconds=50.0).score(Histories([NOTHING]))[0].tolist() == [0, 2, 2, 0, 0]
    assert RecentPopularity(*world, share=1.0).score(Histories([NOTHING]))[0].tolist() == [1, 2, 2, 0, 0]


def test_recent_popularity_reads_milliseconds_as_seconds():
    world = world_of({"u": "abcde"}, {x: x for x in "abcde"}, {"u": [0, 4000, 5000, 6000, 7000]}, time_unit="ms")
    assert RecentPopularity(*world, seconds=1.0).score(Histories([NOTHING]))[0].tolist() == [0, 1, 1, 0, 0]


def test_recent_popularity_refuses_times_that_only_order():
    world = world_of({"u": "abcde"}, {x: x for x in "abcde"}, time_unit="none")
    with pytest.raises(ConfigError, match=r"'popularity-recent' needs to know when things happened.*only order them"):
        build_baseline("popularity-recent", *world)


def test_random_is_the_same_for_a_user_in_whatever_company(world):
    scores = Random(*world).score(Histories([index("ab"), index("c"), NOTHING]))
    alone = Random(*world).score(Histories([index("c")]))
    assert (alone[0] == scores[1]).all()
    assert len(np.unique(scores)) == scores.size, "no two draws are equal"
    assert (Random(*world, seed=1).score(Histories([index("c")])) != alone).all()


def test_random_is_at_chance(crowd):
    """A target among n unseen items is first with chance 1/n; over 2,000 seeds the mean rank is in the middle."""
    asked = queries(*crowd, "validation")
    shares = []
    for seed in range(50):
        ranks = ExactRetriever(Random(*crowd, seed=seed)).rank(asked.histories, asked.targets, exclude=asked.histories)
        unseen = np.array([crowd[0].num_items - len(set(h.tolist())) for h in asked.histories])
        shares.append(ranks.better / (unseen - 1))
    # The share of items above is uniform: its mean over 2,000 draws is .5, with a standard deviation of .0065.
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)


def test_markov_by_hand(world):
    """b was followed by c twice, by nothing else; popularity, scaled below 1, breaks the ties."""
    scores = Markov(*world).score(Histories([index("ab"), NOTHING]))
    assert scores[0].tolist() == pytest.approx([0.5, 0.75, 2.5, 0, 0, 0])
    assert scores[1].tolist() == pytest.approx([0.5, 0.75, 0.5, 0, 0, 0])


def test_markov_against_a_dense_matrix(crowd):
    dataset, split = crowd
    follows = np.zeros((26, 26))
    users, items = split.training_log(dataset)
    for n in range(1, len(users)):
        if users[n] == users[n - 1]:
            follows[items[n - 1], items[n]] += 1
    histories = queries(dataset, split, "test").histories
    scores = Markov(dataset, split).score(histories)
    assert np.floor(scores).tolist() == [follows[h[-1]].tolist() for h in histories]
    popular = np.bincount(items, minlength=26)
    fraction = scores - np.floor(scores)
    assert (np.argsort(-fraction[0], kind="stable") == np.argsort(-popular, kind="stable")).all()


def test_co_occurrence_by_hand(world):
    """After a and c: b stands beside a in 2 training histories and beside c in 2; a and c share one; 3 for each seen."""
    assert CoOccurrence(*world).score(Histories([index("ac")]))[0].tolist() == [2 + 1 + 3, 2 + 2, 1 + 2 + 3, 0, 0, 0]


def test_co_occurrence_is_three_rounds_of_gtes_propagation(crowd):
    """Item vectors start as one-hot, users' as 0; each round adds the other side's vectors of the round before."""
    dataset, split = crowd
    matrix = dense_training(dataset, split)
    users, items = np.zeros_like(matrix), np.eye(dataset.num_items)
    for _ in range(3):
        users, items = matrix @ items + users, matrix.T @ users + items
    trained = [np.flatnonzero(row) for row in matrix]
    assert CoOccurrence(dataset, split).score(Histories(trained)).tolist() == users.tolist()


def test_item_knn_by_hand(world):
    """Users of a: u, v; of b: u, v, w; of c: v, w. cos(a, b) = 2/√6, cos(a, c) = 1/2, cos(b, c) = 2/√6.

    With one neighbour each, a keeps b, c keeps b, and b keeps a and c, which are level.
    """
    near = 2 / 6**0.5
    assert ItemKNN(*world).score(Histories([index("a"), index("ac")]))[0].tolist() == pytest.approx(
        [0, near, 0.5, 0, 0, 0]
    )
    assert ItemKNN(*world).score(Histories([index("ac")]))[0].tolist() == pytest.approx([0.5, 2 * near, 0.5, 0, 0, 0])
    one = ItemKNN(*world, neighbours=1)
    assert one.score(Histories([index("a")]))[0].tolist() == pytest.approx([0, near, 0, 0, 0, 0])
    assert one.score(Histories([index("b")]))[0].tolist() == pytest.approx([near, 0, near, 0, 0, 0])
    shrunk = ItemKNN(*world, shrinkage=2.0).score(Histories([index("a")]))[0]
    assert shrunk.tolist() == pytest.approx([0, 2 / (6**0.5 + 2), 1 / (2 + 2), 0, 0, 0])


def test_item_knn_against_dense_cosines_in_several_tiles(crowd, monkeypatch):
    monkeypatch.setattr(co_occurrence, "_ROWS", 7)
    dataset, split = crowd
    matrix = dense_training(dataset, split)
    histories = queries(dataset, split, "test").histories
    nearest = np.zeros((26, 26))
    for i in range(26):
        cosines = [
            matrix[:, i] @ matrix[:, j] / ((matrix[:, i].sum() * matrix[:, j].sum()) ** 0.5 + 1.5) if j != i else 0
            for j in range(26)
        ]
        last = sorted(cosines, reverse=True)[4]
        nearest[i] = [c if c >= last - 1e-6 else 0 for c in cosines]
    expected = [nearest[np.unique(h)].sum(0) for h in histories]
    found = ItemKNN(dataset, split, neighbours=5, shrinkage=1.5).score(histories)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_ease_leaves_no_better_weight(crowd):
    """Each item's weights solve a ridge regression on the other items, one regression after another in float64."""
    dataset, split = crowd
    matrix = dense_training(dataset, split)
    expected = np.zeros((26, 26))
    for item in range(26):
        others = np.delete(np.arange(26), item)
        x = matrix[:, others]
        expected[others, item] = np.linalg.solve(x.T @ x + 2.0 * np.eye(25), x.T @ matrix[:, item])
    scorer = EASE(dataset, split, regularization=2.0)
    np.testing.assert_allclose(scorer.weights, expected, atol=1e-5)
    history = index("abca")
    np.testing.assert_allclose(scorer.score(Histories([history]))[0], expected[index("abc")].sum(0), atol=1e-5)


def test_ease_has_items_of_the_same_users_level():
    """b and c, and d and e, have the same training users; h and i have none."""
    histories = {f"u{n}": own + "fgf" for n, own in enumerate(["abc", "adebc", "bca", "ade", "adebc", "ab" + "c" * 3])}
    dataset, split = world_of(histories, {letter: letter for letter in "abcdefghi"})
    scores = EASE(dataset, split, regularization=0.7).score(Histories([index("a"), index("ab"), index("fd")]))
    assert (scores[0, 1], scores[0, 3]) == (scores[0, 2], scores[0, 4])
    assert scores[1, 3] == scores[1, 4]
    assert scores[2, 1] == scores[2, 2]
    assert (scores[:, 7] == scores[:, 8]).all()


@pytest.mark.parametrize("num_items", [97, 1682, 5003])
@pytest.mark.parametrize("dim", [2, 63, 384])
def test_items_of_one_vector_are_level_in_whatever_company(rng, num_items, dim):
    table = np.tile(rng.standard_normal(dim), (num_items, 1))
    table[:3] = rng.standard_normal((3, dim))
    for num_users in (1, 2, 17, 300):
        histories = Histories([np.array([n % 3]) for n in range(num_users)])
        scores = Embedding(table).score(histories)
        assert (scores[:, 3:] == scores[:, 3:4]).all()
        ranks = ExactRetriever(Embedding(table)).rank(histories, np.full(num_users, 3), list(histories))
        assert set(ranks.tied.tolist()) == {num_items - 4}


def test_als_has_items_of_one_vector_level(crowd):
    scorer = ALS(*crowd, factors=5)
    scorer.keys[4:] = scorer.keys[3].clone()
    for histories in (Histories([index("ab")]), Histories([index("ab"), index("c"), index("acd")] * 7)):
        scores = scorer.score(histories)
        assert (scores[:, 3:] == scores[:, 3:4]).all()


def test_als_solves_for_the_user_of_a_history(crowd):
    """With the items' factors Y given, a user's are (YᵀY + (α−1)·Yₕ ᵀYₕ + λI)⁻¹ α Yₕᵀ1, after Hu et al., equation 4."""
    dataset, split = crowd
    scorer = ALS(dataset, split, factors=4, regularization=0.1, alpha=3.0)
    items = scorer.model.item_factors.astype(np.float64)
    held = items[index("ace")]
    user = np.linalg.solve(items.T @ items + 2 * held.T @ held + 0.1 * np.eye(4), 3 * held.sum(0))
    np.testing.assert_allclose(scorer.score(Histories([index("aceca")]))[0], items @ user, rtol=1e-3, atol=1e-4)


def test_als_gives_the_same_numbers_twice(crowd):
    first, second = (ALS(*crowd, factors=4).score(Histories([index("abc")])) for _ in range(2))
    assert (first == second).all()


def test_bm25_by_hand():
    """Texts "red hat", "red coat", "blue coat coat", "sea"; the query is the last item's, "red coat".

    idf(w) = ln(1 + (4 − n + ½)/(n + ½)); both words have n = 2, so ln 2. The mean length is 2. A text of length L where
    the word occurs f times gets idf · f / (f + 1.5·(1 − .75 + .75·L/2)), Lucene leaving out the factor k1 + 1.
    """
    titles = {"a": "red hat", "b": "Red coat", "c": "blue coat coat", "d": "sea"}
    scores = BM25(*world_of({"u": "abcda"}, titles)).score(Histories([index("ab"), NOTHING]))
    once = np.log(2) / (1 + 1.5)
    twice = np.log(2) * 2 / (2 + 1.5 * (0.25 + 0.75 * 1.5))
    assert scores[0].tolist() == pytest.approx([once, 2 * once, twice, 0])
    assert scores[1].tolist() == [0, 0, 0, 0]


def test_bm25_reads_the_whole_history_if_told():
    titles = {"a": "red hat", "b": "red coat", "c": "blue coat", "d": "sea", "e": "?"}
    dataset, split = world_of({"u": "abcda"}, titles)
    apart = BM25(dataset, split).score(Histories([index("a"), index("c")]))
    assert BM25(dataset, split, last=None).score(Histories([index("ac")]))[0].tolist() == pytest.approx(
        apart.sum(0).tolist()
    )
    assert BM25(dataset, split, last=2).score(Histories([index("ac")]))[0].tolist() == pytest.approx(
        apart.sum(0).tolist()
    )
    assert BM25(dataset, split).score(Histories([index("e")]))[0].tolist() == [0, 0, 0, 0, 0], "a text without words"


def test_embedding_by_hand():
    """Vectors along x, along y, between them, and none. Mean of x and y: (½, ½)."""
    table = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 3.0], [0.0, 0.0]])
    half = 0.5**0.5
    last = Embedding(table).score(Histories([index("ba"), NOTHING]))
    assert last[0].tolist() == pytest.approx([1, 0, half, 0])
    assert last[1].tolist() == [0, 0, 0, 0]
    assert Embedding(table, history="all items").score(Histories([index("ba")]))[0].tolist() == pytest.approx(
        [0.5, 0.5, half, 0]
    )


@pytest.mark.parametrize("name", ["embedding", "embedding-mean"])
def test_a_pre_trained_encoder_is_found_by_name(world, tiny_bert, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HLLM_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="hllm model fetch minilm-l6"):
        build_baseline(name, *world)
    monkeypatch.setattr("hllm.embedding.pretrained.resolve_backbone", lambda name, base: tiny_bert)
    scores = build_baseline(name, *world).score(Histories([index("ca")]))
    assert np.isfinite(scores).all()
    assert scores.shape == (1, 6)


@pytest.mark.parametrize("name", [name for name in BASELINES if not name.startswith("embedding")])
def test_every_baseline_is_a_scorer_with_new_finite_scores(crowd, name):
    scorer = build_baseline(name, *crowd)
    assert isinstance(scorer, Scorer)
    histories = Histories([index("abca"), NOTHING, index("z")])
    first = scorer.score(histories)
    assert first.shape == (3, scorer.num_items) == (3, 26)
    assert np.isfinite(first).all()
    kept = first.copy()
    first[:] = -np.inf  # what a retriever does with seen items
    assert (scorer.score(histories) == kept).all()
    assert scorer.score(Histories([])).shape == (0, 26)


@pytest.mark.parametrize("kind", LEARNT)
def test_items_that_no_one_has_in_training_are_level(crowd, kind):
    scores = kind(*crowd).score(Histories([index("abc"), index("yz")]))
    assert scores[0, 24] == scores[0, 25] == 0.0
    assert kind is Markov or kind is Popularity or (scores[1, :24] == 0).all(), "they say nothing about others"
    if kind not in (EASE, ALS):
        assert scores[0].min() == 0.0, "nothing is below them"


@pytest.mark.parametrize("kind", [k for k in LEARNT if k not in (Popularity, Markov)])
def test_an_empty_history_leaves_all_items_level(crowd, kind):
    assert (kind(*crowd).score(Histories([NOTHING])) == 0.0).all()


@pytest.mark.parametrize("kind", LEARNT)
def test_nothing_after_training_is_read(kind):
    """Other validation and test items of the same users change no score."""
    titles = {x: x for x in "abcdef"}
    one = kind(*world_of({"u": "abcde", "v": "bacef", "w": "cabfe"}, titles))
    two = kind(*world_of({"u": "abcfd", "v": "bacde", "w": "cabdf"}, titles))
    assert (one.score(Histories([index("ab"), index("c")])) == two.score(Histories([index("ab"), index("c")]))).all()


def test_unknown_names_and_settings(world, monkeypatch):
    with pytest.raises(
        ConfigError, match=r"unknown baseline 'popular' \(did you mean 'popularity'\?\); known: random, "
    ):
        build_baseline("popular", *world)
    with pytest.raises(ConfigError, match="neighbours 0 must be at least 1"):
        ItemKNN(*world, neighbours=0)
    with pytest.raises(ConfigError, match=r"ease: regularization 0\.0 must be above 0"):
        EASE(*world, regularization=0.0)
    with pytest.raises(ConfigError, match="bm25: last is 0"):
        BM25(*world, last=0)
    with pytest.raises(ConfigError, match=r"share 1\.5 must be in \(0, 1\]"):
        RecentPopularity(*world, share=1.5)


def test_matrices_that_do_not_fit_are_refused_before_they_are_made(world, monkeypatch):
    monkeypatch.setattr(ease, "MAX_BYTES", 400.0)
    with pytest.raises(ConfigError, match=r"'ease' solves a matrix of items by items: .* for 6 items. Leave it out"):
        build_baseline("ease", *world)
    monkeypatch.setattr(co_occurrence, "MAX_PAIRS", 16)
    with pytest.raises(ConfigError, match=r"'co-occurrence' holds .* up to 17 pairs"):  # 2² + 3² + 2²
        build_baseline("co-occurrence", *world)


@pytest.mark.parametrize(("name", "module"), [("als", "implicit"), ("bm25", "bm25s")])
def test_a_missing_library_is_named_with_its_extra(world, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"'{name}' needs the package '{module}'.*hllm\[baselines\]"):
        build_baseline(name, *world)
