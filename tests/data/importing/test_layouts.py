"""Every layout from its sample in tests/data/layouts/NAME, written by hand in the published format."""

import gzip
import shutil
from pathlib import Path

import polars as pl
import pytest

from hllm.config import Config
from hllm.data.build import build_dataset
from hllm.data.importing.import_layout import import_layout
from hllm.data.importing.layout import Columns
from hllm.data.importing.layouts import LAYOUTS
from hllm.data.reading.lines import price
from hllm.data.reading.records import parse, require_record
from hllm.data.schema import DataConfig
from hllm.errors import ConfigError, DataError
from tests.data.importing.test_published import FILES

SAMPLES = Path(__file__).parent / "layouts"
WITH_SAMPLE = [name for name in LAYOUTS if (SAMPLES / name).is_dir() and name != "table"]
CHOSEN = {"amazon-2014": {"interactions": SAMPLES / "amazon-2014" / "reviews_Tiny_5.json"}}
SHOP = Columns(user="visitor", item="sku", time="at", action="what", items_item="code")


def imported(name, tmp_path, **options):
    """Import the sample; return what was said, the interactions and the items."""
    done = import_layout(name, SAMPLES / name, out=tmp_path / "out", **CHOSEN.get(name, {}) | options)
    tables = [pl.read_parquet(tmp_path / "out" / f"{table}.parquet") for table in ("interactions", "items")]
    return done, *tables


def copy_of(name, tmp_path):
    return Path(shutil.copytree(SAMPLES / name, tmp_path / name))


def test_every_layout_has_a_sample():
    assert set(LAYOUTS) - set(WITH_SAMPLE) - set(FILES) == {"table", "two-parquet"}  # these two are made in their tests


@pytest.mark.parametrize("name", WITH_SAMPLE)
def test_what_is_imported_is_a_dataset_under_the_printed_table(name, tmp_path):
    done, log, _ = imported(name, tmp_path)
    path = tmp_path / "recipe.toml"
    path.write_text(done.toml())

    class Wrapper(Config):
        data: DataConfig

    config = Wrapper.from_toml(path).data
    dataset = build_dataset(Path(config.interactions), Path(config.items), config)
    whole = config.items_without_text != "drop" and config.unknown_items != "drop"
    assert (dataset.num_interactions == len(log)) == whole
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert not (tmp_path / "out" / "scratch").exists()


def test_hllm(tmp_path):
    """Columns by position; the last row of an item wins, as in the reference; unknown items have an empty text."""
    done, log, items = imported("hllm", tmp_path)
    assert log.rows() == [("u1", "i1", 1600000100), ("u1", "i0", 1600000000), ("u2", "i2", 1600000300)]
    assert items.select("item_id", "title").rows() == [("i1", "Comma, here"), ("i0", "New title")]
    assert (done.data["unknown_items"], done.data["items_without_text"]) == ("keep", "keep")
    assert done.data["text_cols"] == ["title", "tag", "description"]
    assert any("1 rows repeat an item; the last row" in note for note in done.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id,item_id,timestamp\nu,i,1\n", r"tiny\.csv, line 1: the header says user_id, item_id, timestamp, but the reference reads by position"),
        ("i1,u1,1600000100\ni2,u1,1600000101\n", r"tiny\.csv, line 1: i1, u1, 1600000100 looks like data, not a header; the reference would lose"),
        ("item_id,user_id\ni,u\n", r"tiny\.csv, line 1: found 2 columns, item_id, user_id; the reference reads exactly three"),
        ("item_id,user_id,timestamp\ni,u,1\ni,u,soon\n", r"tiny\.csv, data row 2: timestamp is 'soon', expected a whole number"),
        ("item_id,user_id,timestamp\ni,,1\n", "there is not one interaction in these files"),
        ("item_id,user_id,timestamp\ni,u,1\ni,u,1,2\n", r"tiny\.csv, line 3: found 4 fields, expected 3"),
    ],
)  # fmt: skip
def test_traps_of_the_references_csv(tmp_path, content, message):
    folder = copy_of("hllm", tmp_path)
    (folder / "dataset" / "tiny.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        import_layout("hllm", folder, out=tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hllm"]


def test_hllm_with_other_names_and_milliseconds_says_so(tmp_path):
    folder = copy_of("hllm", tmp_path)
    (folder / "dataset" / "tiny.csv").write_text("video,person,when\ni0,u,1600000000123\n")
    done = import_layout("hllm", folder, out=tmp_path / "out")
    assert done.data["time_unit"] == "ms"
    assert "columns video, person, when were read by position: item_id, user_id, timestamp" in done.notes
    assert any("the reference takes them for seconds" in note for note in done.notes)


def test_recbole(tmp_path):
    done, log, items = imported("recbole", tmp_path)
    assert log.columns == ["user_id", "item_id", "timestamp", "rating"]
    assert log.rows()[0] == ("196", "242", 881250949, 3.0)
    assert items.rows()[1] == ("302", "L.A. Confidential", "1997", "Crime Film-Noir")
    assert done.data["text_cols"] == ["movie_title", "class"]
    assert "not read as text: 'release_year' (numbers or dates)" in " ".join(done.notes)


def test_recbole_without_times_keeps_the_order_of_the_file(tmp_path):
    done, log, _ = imported("recbole", tmp_path, columns=Columns(time="when"))
    assert done.data["time_unit"] == "none"
    assert log.select("user_id", "timestamp").rows() == [("196", 0), ("196", 1), ("22", 2)]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tiny.inter", "user_id\titem_id:token\n1\t2\n", r"tiny\.inter, line 1: 'user_id' is not a field and a type"),
        ("tiny.inter", "userid:token\titem_id:token\n1\t2\n", r"no field 'user_id' \(did you mean 'userid'\?\).*--user-col"),
        ("tiny.inter", "user_id:token\titem_id:token\n1\t2\n1\n", r"tiny\.inter, line 3: found 1 fields between '\\t', expected 2"),
        ("tiny.item", "item_id:token\tprice:float\n1\tcheap\n", r"tiny\.item, data row 1: price is 'cheap', expected a number"),
    ],
)  # fmt: skip
def test_broken_atomic_files(tmp_path, file, content, message):
    folder = copy_of("recbole", tmp_path)
    (folder / file).write_text(content)
    with pytest.raises(DataError, match=message):
        import_layout("recbole", folder, out=tmp_path / "out")


def test_movielens_100k(tmp_path):
    """Flags 3, 4, 5 of u.genre are Animation, Children's, Comedy; 8 is Drama, 14 Romance; the file is Latin-1."""
    _, log, items = imported("movielens-100k", tmp_path)
    assert log.rows() == [("196", "242", 881250949, 3.0), ("186", "302", 891717742, 3.0)]
    assert items.select("item_id", "title", "year", "genres").rows() == [
        ("1", "Toy Story", "1995", "Animation, Children's, Comedy"),
        ("242", "Kolya", "1996", "Comedy"),
        ("302", "Misérables, Les", "1995", "Drama, Romance"),
        ("267", "unknown", None, "unknown"),
    ]


def test_movielens_1m(tmp_path):
    _, log, items = imported("movielens-1m", tmp_path)
    assert log.rows()[1] == ("1", "661", 978302109, 3.0)
    assert items.rows() == [
        ("661", "James and the Giant Peach", "1996", "Animation, Children's, Musical"),
        ("1193", "Café au Lait (Métisse)", "1993", "Comedy"),
    ]


def test_movielens_csv(tmp_path):
    _, log, items = imported("movielens", tmp_path)
    assert log.rows()[0] == ("1", "2", 1112486027, 3.5)
    assert items.rows()[1:] == [
        ("29", "City of Lost Children, The (Cité des enfants perdus, La)", "1995", "Adventure, Drama"),
        ("30", "Untitled", None, None),
    ]


def test_amazon_2014(tmp_path):
    """Metadata are Python literals; a product without a title or brand has none."""
    _, log, items = imported("amazon-2014", tmp_path)
    assert log.rows() == [("A2SUAM1J3GNN3B", "0000013714", 1252800000, 5.0), ("A3", "0000031852", 1252886400, 4.0)]
    assert items.columns == ["item_id", "title", "brand", "categories", "description", "price"]
    assert items.rows() == [
        (
            "0000031852",
            "Girls Ballet Tutu: it's \\d Pink",
            "Coxlures",
            "Sports & Outdoors > Other Sports > Dance; Clothing, Shoes & Jewelry > Girls",
            None,
            3.17,
        ),
        ("0000013714", None, None, "Books", "Hymn book", None),
    ]


def test_amazon_2014_ratings_only(tmp_path):
    """user, item, rating, time; no header."""
    _, log, _ = imported("amazon-2014", tmp_path, interactions=SAMPLES / "amazon-2014" / "ratings_Tiny.csv")
    assert log.rows() == [("A2SUAM1J3GNN3B", "0000013714", 1252800000, 5.0)]


def test_amazon_2018(tmp_path):
    """A script in place of a title is no title; a range is no price; the first of two rows of an item counts."""
    done, log, items = imported("amazon-2018", tmp_path)
    assert log.rows()[0] == ("AUI6WTTT0QZYS", "5120053084", 1514764800, 5.0, True)
    assert items.rows() == [
        ("5120053084", "Slim Shirt", "Acme", "Clothing > Men", "Cotton Blue", "First. Second.", 1004.99),
        ("B0000000XX", None, None, None, None, None, None),
    ]
    assert done.data["items_without_text"] == "drop"


def test_amazon_2018_ratings_have_the_item_first(tmp_path):
    folder = copy_of("amazon-2018", tmp_path)
    (folder / "Tiny.csv").write_text("5120053084,AUI6WTTT0QZYS,5.0,1514764800\n")
    with pytest.raises(
        DataError, match=r"interactions: 2 files in .* could be meant: Tiny\.csv, Tiny_5\.json\. Name one"
    ):
        import_layout("amazon-2018", folder, out=tmp_path / "out")
    import_layout("amazon-2018", folder, out=tmp_path / "out", interactions=folder / "Tiny.csv")
    log = pl.read_parquet(tmp_path / "out" / "interactions.parquet")
    assert log.rows() == [("AUI6WTTT0QZYS", "5120053084", 1514764800, 5.0)]


def test_amazon_2023(tmp_path):
    """The item is the parent; times are milliseconds; one review names a product without metadata."""
    done, log, items = imported("amazon-2023", tmp_path)
    assert log.rows()[0] == ("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B00YQ6X8EP", 1588687728923, 5.0, "B00YQ6X8EO", True)
    assert items.row(0) == (
        "B00YQ6X8EP", "Howard LC0008 Leather Conditioner", "Howard Products", "Beauty > Care", "Soft Brown",
        "For leather.", "All Beauty", 12.5,
    )  # fmt: skip
    assert (done.data["time_unit"], done.data["unknown_items"]) == ("ms", "drop")
    assert any("1 of 2 interactions name items that the items lack" in note for note in done.notes)


def test_amazon_2023_ratings_only(tmp_path):
    folder = copy_of("amazon-2023", tmp_path)
    (folder / "Tiny.jsonl").unlink()
    text = "user_id,parent_asin,rating,timestamp\nA,B00YQ6X8EP,5.0,1588687728923\n"
    (folder / "Tiny.csv.gz").write_bytes(gzip.compress(text.encode()))
    import_layout("amazon-2023", folder, out=tmp_path / "out")
    assert pl.read_parquet(tmp_path / "out" / "interactions.parquet").rows() == [
        ("A", "B00YQ6X8EP", 1588687728923, 5.0)
    ]


def test_pixelrec(tmp_path):
    done, log, items = imported("pixelrec", tmp_path)
    assert log.rows() == [("u1", "i7", 1643990424), ("u1", "i8", 1643990500)]
    assert items.select("item_id", "title", "tag", "description", "view_number").row(0) == (
        "i7", "Cat sleeps", "pets", "A cat, asleep", "100",
    )  # fmt: skip
    assert done.data["text_cols"] == ["title", "tag", "description"]
    assert "time_unit" not in done.data


def test_microlens(tmp_path):
    """The CSV has times, in ms, and is taken before the TSV; the titles have no header."""
    done, log, items = imported("microlens", tmp_path)
    assert log.rows() == [("36121", "9580", 1583378629552), ("36121", "7315", 1584456133023)]
    assert items.rows() == [("9580", "Kittens, twelve of them"), ("7315", "Street food")]
    assert done.data["time_unit"] == "ms"


def test_microlens_sequences_have_positions(tmp_path):
    folder = copy_of("microlens", tmp_path)
    (folder / "MicroLens-tiny_pairs.csv").unlink()
    titles = folder / "MicroLens-tiny_title_en.csv"
    titles.write_text("item,title\n" + titles.read_text())
    done = import_layout("microlens", folder, out=tmp_path / "out")
    log = pl.read_parquet(tmp_path / "out" / "interactions.parquet")
    assert log.rows() == [("36121", "9580", 0), ("36121", "7315", 1), ("5", "7315", 0)]
    assert pl.read_parquet(tmp_path / "out" / "items.parquet")["item_id"].to_list() == ["9580", "7315"]
    assert done.data["time_unit"] == "none"


def test_mind(tmp_path):
    """U2's first impression by time is the third row, at 1573689600; the two items before it get the seconds before."""
    done, log, items = imported("mind", tmp_path)
    by_user = {user: part.drop("user_id").rows() for (user,), part in log.group_by("user_id", maintain_order=True)}
    assert by_user["U2"] == [
        ("N9", 1573689598, "history", None),
        ("N3", 1573689599, "history", None),
        ("N7", 1573808122, "click", "2"),
        ("N4", 1573689600, "click", "3"),
    ]
    assert [row[0] for row in by_user["U1"]] == ["N3", "N9", "N5", "N7", "N8"]
    assert "U3" not in by_user  # saw two news, clicked none
    shown = pl.read_parquet(tmp_path / "out" / "impressions.parquet")
    assert shown["action"].value_counts().sort("action").rows() == [("click", 4), ("skip", 4)]
    assert items.row(1) == ("N4", 'A "quote" four', "news", "world", "", "https://assets.msn.com/N4.html")
    assert done.data["action_col"] == "action"


@pytest.mark.parametrize("line", ["1\tU1\tyesterday\tN3\tN7-1\n", "1\tU1\t11/11/2019 9:05:58 PM\tN3\tN7-1 N4\n"])
def test_mind_without_times_or_labels(tmp_path, line):
    folder = copy_of("mind", tmp_path)
    with (folder / "behaviors.tsv").open("a") as file:
        file.write(line)
    with pytest.raises(DataError, match=r"behaviors\.tsv, data row 5: time .* expected a time such as .* labels"):
        import_layout("mind", folder, out=tmp_path / "out")


def test_steam(tmp_path):
    """2017-12-17 is 1513468800; "Free To Play" is no number; a game without an id is counted."""
    done, log, items = imported("steam", tmp_path)
    assert log.rows() == [
        ("Chaos Syren", "725280", 1513468800, 0.1, False, None),
        ("Ariman's", "328100", 1501632000, 13.2, True, "76561198086496980"),
    ]
    assert items.rows() == [
        ("725280", "Lost Summoner Kitty", "Action, Indie", "Strategy, Action", "Kotoshiro", "Kotoshiro", "2018-01-04", 4.99),
        ("328100", "Free One", None, None, None, None, None, None),
    ]  # fmt: skip
    assert any("1 records of steam_games.json were left out; the first is line 3" in note for note in done.notes)


def test_goodbooks(tmp_path):
    done, log, items = imported("goodbooks-10k", tmp_path)
    assert log.rows() == [("1", "258", 0, 5.0), ("2", "4081", 1, 4.0), ("2", "258", 2, 3.0)]
    assert items.select("item_id", "title", "authors", "year").rows() == [
        ("258", "Harry Potter (Harry Potter, #1)", "J.K. Rowling, Mary GrandPré", "1997"),
        ("4081", "Untitled", "Someone", None),
    ]
    assert "average_rating" not in items.columns
    assert done.data["time_unit"] == "none"


def test_yelp(tmp_path):
    """2016-03-09 00:00:01 UTC is 1457481601."""
    _, log, items = imported("yelp", tmp_path)
    assert log.rows() == [
        ("Ha3iJu77CxlrFm-vQRs_8g", "tnhfDv5Il8EaGSXZGiuQGg", 1457481601, 4.0),
        ("u2", "b2", 86400, 1.0),
    ]
    assert items.row(0) == (
        "tnhfDv5Il8EaGSXZGiuQGg", "Garaje", "Mexican, Burgers", "San Francisco", "CA", "475 3rd St", True,
    )  # fmt: skip


@pytest.mark.parametrize(("times", "unit"), [([1, 0, 0], "none"), ([1, 0, 1], None), ([0, 2, 0], None)])
def test_two_parquet_recognises_positions(tmp_path, times, unit):
    """A user's times 0, 1, 2 … without a gap are positions; anything else may be times."""
    log = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": [7, 8, 7], "timestamp": times, "split": ["x", "y", "x"]})
    items = pl.DataFrame(
        {
            "item_id": [7, 8, 9],
            "asin": ["A", "B", "C"],
            "title": ["t", "u", "v"],
            "in_interactions": [True, True, False],
        }
    )
    folder = tmp_path / "set"
    folder.mkdir()
    log.write_parquet(folder / "interactions.parquet")
    items.write_parquet(folder / "items.parquet")
    done = import_layout("two-parquet", folder, out=tmp_path / "out")
    assert pl.read_parquet(tmp_path / "out" / "interactions.parquet").equals(log)
    assert done.data.get("time_unit") == unit
    assert done.data["text_cols"] == ["title", "asin"]
    assert done.data["items_without_interactions"] == "drop"


def test_any_two_tables(tmp_path):
    files = {"interactions": SAMPLES / "table" / "clicks.csv", "items": SAMPLES / "table" / "goods.jsonl"}
    done, log, items = imported("table", tmp_path, columns=SHOP, **files)
    assert log.columns == ["user_id", "item_id", "timestamp", "what", "price"]
    assert log.row(0) == ("v1", "007", "2024-05-31 12:00:00", "view", "9.5")
    assert items.rows() == [("007", "Hat", "red, warm"), ("8", "Coat", "")]
    assert (done.data["action_col"], done.data["text_cols"]) == ("what", ["name", "tags"])
    config = DataConfig(**done.data)
    dataset = build_dataset(Path(config.interactions), Path(config.items), config)
    assert dataset.action_names == ("buy", "view")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": "visitors"}, r"clicks\.csv has no column 'visitors' \(did you mean 'visitor'\?\).*--user-col"),
        ({"item": "skuu"}, r"did you mean 'sku'.*--item-col"),
        ({"time": "att"}, r"did you mean 'at'.*--time-col"),
        ({"action": "whta"}, r"did you mean 'what'.*--action-col"),
        ({"items_item": "codes"}, r"goods\.jsonl has no column 'codes' \(did you mean 'code'\?\).*--items-item-col"),
        ({"text": ("name", "tag")}, r"goods\.jsonl has no column 'tag' \(did you mean 'tags'\?\).*--text-cols"),
    ],
)  # fmt: skip
def test_wrong_column_names_are_met_with_the_nearest(tmp_path, change, message):
    files = {"interactions": SAMPLES / "table" / "clicks.csv", "items": SAMPLES / "table" / "goods.jsonl"}
    with pytest.raises(DataError, match=message):
        import_layout("table", tmp_path, out=tmp_path / "out", columns=Columns(**(vars(SHOP) | change)), **files)
    assert list(tmp_path.iterdir()) == []


def test_a_column_that_has_the_default_name_already(tmp_path):
    (tmp_path / "interactions.csv").write_text("user_id,visitor,item_id,timestamp\na,b,i,1\n")
    (tmp_path / "items.csv").write_text("item_id,title\ni,x\n")
    with pytest.raises(DataError, match="has both 'visitor', named with --user-col, and a column 'user_id'"):
        import_layout("table", tmp_path, out=tmp_path / "out", columns=Columns(user="visitor"))


BROKEN = {  # file, the line put last, and what is said of it
    "movielens-100k": ("u.data", "1\t2\t3", r"u\.data, line 3: found 3 fields between '\\t', expected 4: user_id, item_id"),
    "movielens-1m": ("ratings.dat", "1::x::5::soon", r"ratings\.dat, data row 4: timestamp is 'soon', expected a whole"),
    "movielens": ("ratings.csv", "1,2,3.5,1,1", r"ratings\.csv, line 5: found 5 fields, expected 4"),
    "amazon-2014": ("meta_Tiny.json", "{'asin': __import__('os').getcwd()}", r"meta_Tiny\.json, line 3: neither JSON .* nor a Python"),
    "amazon-2018": ("Tiny_5.json", '{"reviewerID": "u", "asin": "a", "overall": "x", "unixReviewTime": 1}', r"line 3: 'overall' is 'x'"),
    "amazon-2023": ("Tiny.jsonl", '{"user_id": "u", "parent_asin": "p", "timestamp": "x"}', r"line 3: 'timestamp' is 'x', expected a whole"),
    "pixelrec": ("Pixel200K.csv", "i,u,soon", r"Pixel200K\.csv, data row 3: timestamp is 'soon', expected a whole number"),
    "microlens": ("MicroLens-tiny_pairs.csv", "1,2,x", r"pairs\.csv, data row 3: timestamp is 'x'"),
    "mind": ("news.tsv", "N1\tsports", r"news\.tsv, line 7: found 2 fields between '\\t', expected 8"),
    "steam": ("steam_reviews.json", "{'username': 'a', 'product_id': '1', 'date': 'May'}", r"line 3: 'date' is 'May', expected a day"),
    "goodbooks-10k": ("ratings.csv", "2,258,good", r"ratings\.csv, data row 4: rating is 'good', expected a number"),
    "yelp": ("yelp_academic_dataset_review.json", '{"user_id": "u", "business_id": ', r"review\.json, line 3: neither JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_named_and_nothing_is_left(name, tmp_path):
    folder = copy_of(name, tmp_path)
    file, line, message = BROKEN[name]
    with (folder / file).open("a") as out:
        out.write(line + "\n")
    chosen = {"interactions": folder / "reviews_Tiny_5.json"} if name == "amazon-2014" else {}
    with pytest.raises(DataError, match=message):
        import_layout(name, folder, out=tmp_path / "out", **chosen)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_lines_may_be_compressed_and_are_written_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("hllm.data.reading.lines._BATCH", 2)
    folder = tmp_path / "yelp"
    folder.mkdir()
    for path in (SAMPLES / "yelp").iterdir():
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes() * 5))
    done = import_layout("yelp", folder, out=tmp_path / "out")
    assert (done.num_interactions, done.num_items) == (10, 2)


def test_a_download_that_was_cut_short(tmp_path):
    folder = tmp_path / "yelp"
    folder.mkdir()
    for path in (SAMPLES / "yelp").iterdir():
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    with pytest.raises(DataError, match=r"review\.json\.gz, the compressed data is damaged: it ends in the middle"):
        import_layout("yelp", folder, out=tmp_path / "out")


def test_python_literals_are_never_run():
    path = Path("reviews.json")
    line = "{'a': [1, (2.5, None)], 'b': {'c': True}}"
    assert parse(line, path, 1, literals=True) == {"a": [1, (2.5, None)], "b": {"c": True}}
    for line in ("__import__('os').system('true')", "{'a': open('x')}", "{'a': 1 if True else 2}", "(" * 10_000):
        with pytest.raises(DataError, match=r"reviews\.json, line 7: neither JSON"):
            parse(line, path, 7, literals=True)
    with pytest.raises(DataError, match=r"reviews\.json, line 2: expected one JSON object a line, found '\[1, 2\]'"):
        require_record(parse("[1, 2]", path, 2), path, 2)


def test_prices():
    assert [price(v) for v in (4.99, 5, "$1,004.99", "12.5")] == [4.99, 5.0, 1004.99, 12.5]
    assert [price(v) for v in (None, True, "", "$9.99 - $19.99", "Free To Play", "from 3")] == [None] * 6


def test_wrong_uses_of_import(tmp_path):
    with pytest.raises(
        ConfigError, match=r"unknown layout 'movielens-10m' \(did you mean 'movielens-1m'\?\); known: table"
    ):
        import_layout("movielens-10m", tmp_path, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="the columns of yelp are fixed"):
        import_layout("yelp", tmp_path, out=tmp_path / "out", columns=Columns(user="u"))
    with pytest.raises(ConfigError, match="exists already; name a new directory"):
        import_layout("yelp", tmp_path, out=tmp_path)
    with pytest.raises(DataError, match=r"none is not a directory; name the one with ratings\.csv, books\.csv"):
        import_layout("goodbooks-10k", tmp_path / "none", out=tmp_path / "out")
    with pytest.raises(DataError, match=r"interactions: no file in .* is called ratings\.csv\*; it is empty"):
        import_layout("goodbooks-10k", tmp_path, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"interactions: there is no file .*x\.csv"):
        import_layout("goodbooks-10k", tmp_path, out=tmp_path / "out", interactions=tmp_path / "x.csv")
    shutil.copytree(SAMPLES / "goodbooks-10k", tmp_path / "books")
    (tmp_path / "books" / "ratings.csv").write_text("user_id,book_id,rating\n")
    with pytest.raises(DataError, match="there is not one interaction in these files; nothing was written"):
        import_layout("goodbooks-10k", tmp_path / "books", out=tmp_path / "out")
    (tmp_path / "books" / "ratings.csv").write_text("user,book_id,rating\n1,1,1\n")
    with pytest.raises(
        DataError, match=r"ratings\.csv, line 1: no column 'user_id' .*; expected user_id, book_id, rating"
    ):
        import_layout("goodbooks-10k", tmp_path / "books", out=tmp_path / "out")
