"""Tables of a run's items and users, on the tiny world: shards of 8, so that 30 items make 4."""

import shutil
from fractions import Fraction

import polars as pl
import pytest
import torch

from hllm.api import Recommender
from hllm.embedding import shards
from hllm.embedding.shards import Share
from hllm.embedding.table import ItemEmbeddingTable, UserEmbeddingTable
from hllm.errors import CheckpointError, ConfigError, DataError, HllmWarning, TrainingError
from hllm.jobs.embed_users import embed_run_users
from hllm.retrieval.scorer import ModelScorer
from hllm.runs import tables
from hllm.runs.run import Run
from hllm.runs.tables import embed_run_items


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "ROWS_PER_SHARD", 8)


@pytest.fixture
def run(trained_folder, tmp_path) -> Run:
    """A finished run without its own table of items: nothing is there to be reused."""
    shutil.copytree(trained_folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "table")
    return Run(tmp_path / "run")


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """How many items each call of the encoder got."""
    counts: list[int] = []
    original = tables.encode_in_batches

    def counting(encode, num_items, *arguments, **named):
        counts.append(num_items)
        return original(encode, num_items, *arguments, **named)

    monkeypatch.setattr(tables, "encode_in_batches", counting)
    return counts


def contents(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def table_of(path) -> ItemEmbeddingTable:
    return ItemEmbeddingTable.load(path, checkpoint=None)


def test_the_table_holds_what_the_recommender_encodes(run, trained, tmp_path):
    found = embed_run_items(run, tmp_path / "out")
    table = table_of(tmp_path / "out")
    texts = trained.dataset.items.select("title", "kind").to_dicts()
    assert table.vectors.numpy() == pytest.approx(trained.encode(texts), abs=1e-5)
    assert table.ids.to_list() == [f"i{n}" for n in range(30)]
    assert (found.num_rows, found.num_encoded, found.shards_missing) == (30, 30, 0)
    assert not list(tmp_path.glob(".out*")), "the shards are gone"


@pytest.mark.reliability("verb killed")
@pytest.mark.parametrize("place", ["between two shards", "inside a shard"])
def test_a_killed_call_goes_on_to_the_same_bytes(run, tmp_path, monkeypatch, encoded, place):
    embed_run_items(run, tmp_path / "whole")
    assert encoded == [8, 8, 8, 6]
    encoded.clear()
    counting = tables.encode_in_batches

    def killed(*arguments, **named):
        if len(encoded) == 2 and place == "between two shards":
            raise KeyboardInterrupt
        vectors = counting(*arguments, **named)
        if len(encoded) == 3:
            raise KeyboardInterrupt
        return vectors

    monkeypatch.setattr(tables, "encode_in_batches", killed)
    with pytest.raises(KeyboardInterrupt):
        embed_run_items(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(tables, "encode_in_batches", counting)
    encoded.clear()
    embed_run_items(run, tmp_path / "out")
    assert encoded == [8, 6], "the first two shards are kept"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_damaged_shard_is_said_and_made_again(run, tmp_path, encoded):
    embed_run_items(run, tmp_path / "whole")
    embed_run_items(run, tmp_path / "out", share=Share(1, 2))
    (first, _) = sorted(tmp_path.glob(".out.shards-*/*.bin"))
    first.write_bytes(first.read_bytes()[:-1] + b"\x01")
    encoded.clear()
    with pytest.warns(HllmWarning, match=r"shard-000000\.bin is damaged; it is made again"):
        embed_run_items(run, tmp_path / "out")
    assert encoded == [8, 8, 6]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_three_processes_make_the_bytes_of_one(run, tmp_path, encoded, dtype):
    embed_run_items(run, tmp_path / "one", dtype=dtype)
    encoded.clear()
    missing = [embed_run_items(run, tmp_path / "out", dtype=dtype, share=Share(i, 3)).shards_missing for i in (3, 1, 2)]
    assert missing == [3, 1, 0]
    assert not (tmp_path / "out").exists()
    assert encoded == [8, 8, 6, 8]
    encoded.clear()
    embed_run_items(run, tmp_path / "out", dtype=dtype)
    assert encoded == [], "the last call puts together what is there"
    assert contents(tmp_path / "out") == contents(tmp_path / "one")


def test_only_new_and_changed_items_are_encoded(run, items, tmp_path, encoded):
    embed_run_items(run, tmp_path / "out")
    before = table_of(tmp_path / "out").vectors.clone()
    changed = pl.concat(
        [
            items[5:]
            .reverse()
            .with_columns(title=pl.when(pl.col("item_id") == "i7").then(pl.lit("summer red coat")).otherwise("title")),
            pl.DataFrame(
                {"item_id": ["n1", "n2", "n3"], "title": ["big summer hat", "red summer", "red summer"]}
            ).with_columns(kind=pl.lit("hat")),
        ]
    )
    encoded.clear()
    found = embed_run_items(run, tmp_path / "out", items=changed)
    assert encoded == [3], "i7, n1, and once the text of n2 and n3"
    assert (found.num_rows, found.num_encoded) == (28, 3)
    after = table_of(tmp_path / "out")
    assert after.ids.to_list() == changed["item_id"].to_list()
    kept = [n for n in range(29, 4, -1) if n != 7]
    rows = [row for row, name in enumerate(changed["item_id"]) if name in {f"i{n}" for n in kept}]
    assert torch.equal(after.vectors[rows], before[kept])
    assert torch.equal(after.vectors[-1], after.vectors[-2])
    assert not torch.equal(after.vectors[22], before[7])
    encoded.clear()
    embed_run_items(run, tmp_path / "out", items=changed)
    assert encoded == []


def test_the_runs_own_table_spares_the_encoder_and_gives_int8(trained_folder, tmp_path, encoded):
    embed_run_items(Run(trained_folder), tmp_path / "out", dtype="int8")
    assert encoded == []
    exact, stored = table_of(trained_folder / "table").vectors, table_of(tmp_path / "out")
    cosine = torch.cosine_similarity(exact.double(), stored.vectors.double())
    error = stored.details["cosine_error"]
    assert stored.dtype == "int8"
    assert error["max"] == pytest.approx(float((1 - cosine).max()), abs=1e-7)
    assert error["mean"] == pytest.approx(float((1 - cosine).mean()), abs=1e-7)
    assert 0 < error["max"] < 1e-3


def test_vectors_in_int8_are_kept_but_never_made_into_others(run, items, tmp_path, encoded):
    embed_run_items(run, tmp_path / "out", dtype="int8")
    before = table_of(tmp_path / "out")
    encoded.clear()
    embed_run_items(run, tmp_path / "out", dtype="int8", items=items[:20])
    after = table_of(tmp_path / "out")
    assert encoded == []
    assert (after.rows.values == before.rows.values[:20]).all()
    assert after.details["cosine_error"]["max"] == before.rows.errors[:20].max()
    embed_run_items(run, tmp_path / "out", dtype="fp32")
    assert sum(encoded) == 30


def test_a_damaged_table_is_made_again(run, tmp_path):
    embed_run_items(run, tmp_path / "out")
    whole = contents(tmp_path / "out")
    (tmp_path / "out" / "vectors.npy").write_bytes(whole["vectors.npy"][:-4] + b"\0\0\0\0")
    with pytest.raises(CheckpointError, match=r"vectors\.npy is damaged"):
        table_of(tmp_path / "out")
    with pytest.warns(HllmWarning, match="damaged.*Its vectors are made again"):
        embed_run_items(run, tmp_path / "out")
    assert contents(tmp_path / "out") == whole


def test_what_is_no_table_is_not_replaced(run, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    for path, message in ((tmp_path / "photos", "is no item embedding table"), (run.dataset_path, "holds a dataset")):
        with pytest.raises(ConfigError, match=f"{message}.*would be replaced: give another --out"):
            embed_run_items(run, path)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: items.drop("kind"), "items have no column 'kind'"),
        (lambda items: pl.concat([items, items[:1]]), "repeat the item_id of an earlier row"),
        (lambda items: items.with_columns(title=pl.lit(""), kind=pl.lit(" ")), "have no text"),
        (lambda items: items.with_columns(title=pl.lit([[1.5]])), "do not have the catalogue's types"),
    ],
)
def test_wrong_items_are_explained(run, items, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        embed_run_items(run, tmp_path / "out", items=change(items))


def test_vectors_that_are_not_finite_are_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "encode_in_batches", lambda encode, count, *a, **k: torch.full((count, 16), torch.nan))
    with pytest.raises(TrainingError, match="shard 0 holds vectors that are not finite"):
        embed_run_items(run, tmp_path / "out")


def test_a_model_of_ids_embeds_the_items_it_knows(tmp_path, interactions, items, id_recipe):
    short = id_recipe.model_copy(update={"stages": (id_recipe.stages[0].model_copy(update={"epochs": 1}),)})
    recommender = Recommender.fit(interactions, items, recipe=short, out=tmp_path / "run")
    learnt = recommender.model.item_encoder.embedding.weight.detach()
    assert torch.equal(table_of(tmp_path / "run" / "table").vectors, learnt)
    chosen = pl.DataFrame({"item_id": ["i9", "i3"]})
    embed_run_items(recommender.run, tmp_path / "out", items=chosen)
    assert torch.equal(table_of(tmp_path / "out").vectors, learnt[[9, 3]])
    with pytest.raises(DataError, match="1 of 1 items asked for are not in the catalogue; first: 'new'"):
        embed_run_items(recommender.run, tmp_path / "out", items=pl.DataFrame({"item_id": ["new"]}))


@torch.no_grad()
def test_user_vectors_are_those_that_recommend(trained_folder, trained, tmp_path):
    """The products of the two tables, after normalising, are the scores of the lists."""
    embed_run_users(Run(trained_folder), tmp_path / "out")
    users = UserEmbeddingTable.load(tmp_path / "out", checkpoint=None)
    assert users.ids.to_list() == trained.dataset.users.to_list()
    assert users.details["similarity"] == "cosine"
    items = table_of(trained_folder / "table")
    cosine = torch.cosine_similarity(users.vectors[:, None], items.vectors[None], dim=-1)
    lists = trained.recommend(k=30, exclude_seen=False)
    for row, user in enumerate(users.ids):
        own = lists.filter(pl.col("user_id") == user)
        places = [int(item[1:]) for item in own["item_id"]]
        assert own["score"].to_numpy() == pytest.approx(cosine[row, places].numpy(), abs=1e-5)


def test_users_are_chosen_by_table_and_by_time(trained_folder, tmp_path):
    """User u stops at 100 (5 + u) + u seconds: u9 at 1409, u10 at 1510, u11 at 1611."""
    run, three = Run(trained_folder), pl.DataFrame({"user_id": ["u10", "u2", "u9", "u2"]})
    embed_run_users(run, tmp_path / "active", active_since=Fraction(1510))
    assert UserEmbeddingTable.load(tmp_path / "active", checkpoint=None).ids.to_list() == ["u10", "u11"]
    embed_run_users(run, tmp_path / "both", active_since=Fraction(1409), users=three)
    assert sorted(UserEmbeddingTable.load(tmp_path / "both", checkpoint=None).ids) == ["u10", "u9"]
    with pytest.raises(
        DataError, match=r"none of the 12 users is active since 1612 .* the latest interaction is of 1611"
    ):
        embed_run_users(run, tmp_path / "late", active_since=Fraction(1612))
    with pytest.raises(DataError, match="1 of 1 users asked for are not in the interactions; first: 'nobody'"):
        embed_run_users(run, tmp_path / "late", users=pl.DataFrame({"user_id": ["nobody"]}))
    with pytest.raises(DataError, match="users have no column 'user_id'"):
        embed_run_users(run, tmp_path / "late", users=pl.DataFrame({"user": ["u1"]}))


@pytest.mark.reliability("verb killed")
def test_embedding_users_goes_on_after_a_kill_and_in_shares(trained_folder, tmp_path, monkeypatch):
    run = Run(trained_folder)
    embed_run_users(run, tmp_path / "whole", dtype="int8")
    original, asked = ModelScorer.users, []

    def killed(self, histories):
        asked.append(len(histories))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return original(self, histories)

    monkeypatch.setattr(ModelScorer, "users", killed)
    with pytest.raises(KeyboardInterrupt):
        embed_run_users(run, tmp_path / "out", dtype="int8")
    embed_run_users(run, tmp_path / "out", dtype="int8", share=Share(2, 2))
    embed_run_users(run, tmp_path / "out", dtype="int8")
    assert asked == [8, 4, 4], "the first shard is kept"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_a_wrong_share_is_explained(text):
    with pytest.raises(ConfigError, match='expected "2/8" for the second of eight processes'):
        Share.parse(text)
    assert Share.parse("2/8") == Share(2, 8)


def test_a_run_that_is_not_finished_has_nothing_to_embed_with(run, tmp_path):
    shutil.rmtree(run.best_path)
    for embed in (embed_run_items, embed_run_users):
        with pytest.raises(CheckpointError, match="is not finished: it has no best checkpoint"):
            embed(run, tmp_path / "out")


def test_users_without_clock_times_cannot_be_chosen_by_time(tmp_path, interactions, items, id_recipe):
    short = id_recipe.model_copy(
        update={
            "stages": (id_recipe.stages[0].model_copy(update={"epochs": 1}),),
            "data": id_recipe.data.model_copy(update={"time_unit": "none"}),
        }
    )
    run = Recommender.fit(interactions, items, recipe=short, out=tmp_path / "run").run
    with pytest.raises(DataError, match="times only order them"):
        embed_run_users(run, tmp_path / "out", active_since=Fraction(0))
