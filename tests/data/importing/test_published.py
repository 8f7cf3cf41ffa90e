"""Published layouts from a few made-up rows in their format, and copies of the listed sets with other headers."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.importing.import_layout import import_layout
from hllm.data.schema import DataConfig
from hllm.errors import DataError

NEW_YEAR = 1577836800  # 2020-01-01 00:00:00 UTC
FILMS = "movieId,title,genres\n10,Alien (1979),Horror|Sci-Fi\n"

# Files of each layout, and what must come out: interactions, items, and keys of the [data] table.
FILES = {
    "sasrec": (
        {"tiny.txt": "1 501\n1 502\n2 501\n"},
        [("1", "501", 0), ("1", "502", 1), ("2", "501", 2)],
        None,
        {"time_unit": "none"},
    ),
    "gowalla": (
        {"Gowalla_totalCheckins.txt": "0\t2020-01-01T00:00:00Z\t30.2\t-97.7\t22847\n1\t2020-01-02T01:00:00Z\t3\t4\t9\n"},
        [("0", "22847", "2020-01-01T00:00:00Z", 30.2, -97.7), ("1", "9", "2020-01-02T01:00:00Z", 3.0, 4.0)],
        None,
        {},
    ),
    "foursquare": (
        {"dataset_TSMC2014_NYC.txt": (
            "470\t49bbd\t4bf58\tCaf\xe9\t40.7\t-74.0\t-240\tWed Jan 01 00:00:05 +0000 2020\n"
            "979\t49bbd\t4bf58\tCaf\xe9\t40.7\t-74.0\t-240\tWed Jan 01 00:00:07 +0000 2020\n").encode("latin-1")},
        [("470", "49bbd", NEW_YEAR + 5), ("979", "49bbd", NEW_YEAR + 7)],
        [("49bbd", "Café", 40.7, -74.0)],
        {"text_cols": ["category"]},
    ),
    "lastfm-hetrec": (
        {"user_artists.dat": "userID\tartistID\tweight\n2\t51\t13883\n2\t52\t11690\n",
         "artists.dat": 'id\tname\turl\tpictureURL\n51\tDuran "The" Duran\thttp://x/1\t\n52\tMorcheeba\thttp://x/2\thttp://p\n'},
        [("2", "51", 0, 13883.0), ("2", "52", 1, 11690.0)],
        [("51", 'Duran "The" Duran', "http://x/1"), ("52", "Morcheeba", "http://x/2")],
        {"text_cols": ["title"], "time_unit": "none"},
    ),
    "retailrocket": (
        {"events.csv": "timestamp,visitorid,event,itemid,transactionid\n1577836800123,7,view,9,\n1577836800456,7,transaction,9,4\n"},
        [("7", "9", 1577836800123, "view", None), ("7", "9", 1577836800456, "transaction", "4")],
        None,
        {"time_unit": "ms", "action_col": "action"},
    ),
    "hm": (
        {"transactions_train.csv": "t_dat,customer_id,article_id,price,sales_channel_id\n2020-01-01,0f,0108775015,0.05,2\n",
         "articles.csv": "article_id,product_code,prod_name,product_type_name,colour_group_name,department_name,section_name,detail_desc\n"
                         '0108775015,108775,Strap top,Vest top,Black,Jersey Basic,Womens,"Top, narrow straps"\n'},
        [("0f", "0108775015", "2020-01-01", 0.05, "2")],
        [("0108775015", "Strap top", "Vest top", "Black", "Jersey Basic", "Womens", "Top, narrow straps")],
        {"text_cols": ["title", "kind", "colour", "department", "section", "description"]},
    ),
    "yoochoose": (
        {"yoochoose-clicks.dat": "1,2020-01-01T00:00:00.277Z,214536502,0\n",
         "yoochoose-buys.dat": "1,2020-01-01T00:05:00.277Z,214536502,12462,1\n"},
        [("1", "214536502", "2020-01-01T00:00:00.277Z", "0", "click", None, None),
         ("1", "214536502", "2020-01-01T00:05:00.277Z", None, "buy", 12462.0, 1.0)],
        None,
        {"action_col": "action"},
    ),
    "diginetica": (
        {"train-item-views.csv": "session_id;user_id;item_id;timeframe;eventdate\n1;NA;81766;526309;2020-01-01\n1;NA;9;1;2020-01-02\n"},
        [("1", "81766", NEW_YEAR * 1000 + 526309), ("1", "9", (NEW_YEAR + 86400) * 1000 + 1)],
        None,
        {"time_unit": "ms"},
    ),
    "book-crossing": (
        {"BX-Book-Ratings.csv": '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n"276726";"0155061224";"5"\n',
         "BX-Books.csv": ('"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"Image-URL-S"\n'
                          '"034545104X";"Flesh; \\"Tones\\" &amp; Co";"M. J. Ros\xe9";"2002";"Ballantine";"http://x"\n'
                          '"0155061224";"Rites";"J. A.";"2001";"Heinle";"http://x"\n').encode("latin-1")},
        [("276725", "034545104X", 0, 0.0), ("276726", "0155061224", 1, 5.0)],
        [("034545104X", 'Flesh; "Tones" &amp; Co', "M. J. Rosé", "2002", "Ballantine"),
         ("0155061224", "Rites", "J. A.", "2001", "Heinle")],
        {"text_cols": ["title", "author", "year", "publisher"], "time_unit": "none"},
    ),
    "goodreads": (
        {"goodreads_interactions_tiny.json": json.dumps(
            {"user_id": "8842", "book_id": "24", "is_read": True, "rating": 5, "date_added": "Tue Dec 31 17:00:05 -0700 2019"}) + "\n",
         "goodreads_books_tiny.json": json.dumps(
            {"book_id": "24", "title": "Rites", "publisher": "H", "publication_year": "2001", "description": "", "average_rating": "4"}) + "\n"},
        [("8842", "24", NEW_YEAR + 5, 5.0, True)],
        [("24", "Rites", "H", "2001", None, None)],
        {"text_cols": ["title", "publisher", "year", "description"]},
    ),
    "merrec": (
        {},  # Parquet, written by `written`
        [(7, 1, "2020-01-01 00:00:05", "item_view", 3, 9.5), (7, 1, "2020-01-02 00:00:05", "buy_comp", 4, 9.5)],
        [(1, "Red hat", "Acme", "Women", "Hats", "Caps")],
        {"text_cols": ["title", "brand", "department", "category", "subcategory"], "action_col": "action"},
    ),
}  # fmt: skip


def written(folder: Path, files: dict[str, str | bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if not files:
        row = {"user_id": 7, "session_id": 3, "item_id": 1, "event_id": "item_view", "stime": "2020-01-01 00:00:05", "price": 9.5,
               "name": "Red hat", "brand_name": "Acme", "c0_name": "Women", "c1_name": "Hats", "c2_name": "Caps"}  # fmt: skip
        later = row | {"session_id": 4, "event_id": "buy_comp", "stime": "2020-01-02 00:00:05", "name": "Red hat, sold"}
        for day, event in (("20200101", row), ("20200102", later)):
            (folder / day).mkdir()
            pl.DataFrame([event]).write_parquet(folder / day / "0.parquet")
    return folder


def imported(layout, tmp_path, files, **options):
    done = import_layout(layout, written(tmp_path / "files", files), out=tmp_path / "out", **options)
    items = done.folder / "items.parquet"
    log = pl.read_parquet(done.folder / "interactions.parquet")
    return done, log, pl.read_parquet(items) if items.exists() else None


@pytest.mark.parametrize("layout", FILES)
def test_every_cell_is_where_it_belongs(layout, tmp_path):
    files, interactions, items, data = FILES[layout]
    done, log, catalogue = imported(layout, tmp_path, files)
    assert log.columns[:3] == ["user_id", "item_id", "timestamp"]
    assert log.rows() == interactions
    assert (None if catalogue is None else catalogue.rows()) == items
    keys = ("text_cols", "time_unit", "action_col")
    assert {key: done.data[key] for key in keys if key in done.data} == data
    config = DataConfig.from_dict({"from": str(done.folder)}, where="test")
    dataset = build_dataset(config.interactions, config.items, config)
    assert dataset.num_interactions == len(interactions)
    if "time_unit" not in data or data["time_unit"] != "none":
        assert 0 <= dataset.seconds[0] - NEW_YEAR < 86_400


def test_s3_rec_has_a_user_and_all_items_in_a_line(tmp_path):
    _, log, _ = imported("sasrec", tmp_path, {"Tiny.txt": "1 501 502 503\n2  501\t7 \n"})
    assert log.select("user_id", "item_id").rows() == [
        ("1", "501"),
        ("1", "502"),
        ("1", "503"),
        ("2", "501"),
        ("2", "7"),
    ]
    with pytest.raises(DataError, match=r"the line '3' has a user and no item"):
        import_layout("sasrec", written(tmp_path / "more", {"T.txt": "1 2\n3\n"}), out=tmp_path / "other")


def test_foursquare_of_the_world(tmp_path):
    files = {"dataset_TIST2015_Checkins.txt": "50756\t4f5e\tWed Jan 01 00:00:05 +0000 2020\t240\n",
             "dataset_TIST2015_POIs.txt": "4f5e\t55.69\t12.58\tCocktail Bar\tDK\nother\t1\t2\tGym\tUS\n"}  # fmt: skip
    done, log, items = imported("foursquare", tmp_path, files)
    assert log.rows() == [("50756", "4f5e", NEW_YEAR + 5)]
    assert items.rows() == [("4f5e", 55.69, 12.58, "Cocktail Bar", "DK"), ("other", 1.0, 2.0, "Gym", "US")]
    assert done.data["text_cols"] == ["category", "country"]


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("movielens", {"rating.csv": '"userId","movieId","rating","timestamp"\n1,10,3.5,"2020-01-01 00:00:05"\n', "movie.csv": FILMS}),
        ("movielens", {"ratings.csv": "user_id,movie_id,rating,timestamp\n1,10,3.5,1577836805\n", "movies.csv": FILMS.replace("movieId", "movie_id")}),
        ("movielens", {"ratings.csv": "userId;movieId;rating;timestamp\n1;10;3.5;1577836805.0\n", "movies.csv": FILMS}),
        ("movielens", {"ratings.csv": "1,10,3.5,1577836805\n", "movies.csv": FILMS}),
        ("movielens", {"ratings.csv": "userId,movieId,rating,timestamp\n1,10,3.5,1577836805000\n", "movies.csv": FILMS}),
        ("movielens-1m", {"ratings.dat": "1::10::3.5::1577836805\n", "movies.dat": "10::Alien (1979)::Horror|Sci-Fi\n"}),
        ("movielens-1m", {"ratings.dat": "UserID::MovieID::Rating::Timestamp\n1::10::3.5::1577836805\n", "movies.dat": "10::Alien (1979)::Horror|Sci-Fi\n"}),
        ("movielens-100k", {"u.data": "user id\titem id\trating\ttimestamp\n1\t10\t3.5\t1577836805\n", "u.item": "10|Alien (1979)|||" + "|0" * 11 + "|1|0|0|0|1|0|0|0"}),
    ],
)  # fmt: skip
def test_copies_of_movielens(layout, files, tmp_path):
    done, log, items = imported(layout, tmp_path, files)
    assert log.select("user_id", "item_id", "rating").rows() == [("1", "10", 3.5)]
    assert items.select("item_id", "title", "year", "genres").rows() == [("10", "Alien", "1979", "Horror, Sci-Fi")]
    dataset = build_dataset(done.data["interactions"], done.data["items"], DataConfig(**done.data))
    assert dataset.seconds.tolist() == [NEW_YEAR + 5]


def test_ratings_of_amazon_with_a_header(tmp_path):
    files = {
        "ratings_Beauty.csv": "UserId,ProductId,Rating,Timestamp\nA1,B1,5.0,1577836805\n",
        "meta_Beauty.json": "{'asin': 'B1', 'title': 'T'}\n",
    }
    _, log, _ = imported("amazon-2014", tmp_path, files)
    assert log.rows() == [("A1", "B1", 1577836805, 5.0)]


def test_goodbooks_of_kaggle_join_on_the_id(tmp_path):
    files = {"books.csv": "id,book_id,authors,original_publication_year,title\n1,900001,One,2001.0,First\n2,3,Two,2002.0,Second\n27,1,Two,2003.0,Another\n",
             "ratings.csv": "book_id,user_id,rating\n1,11,5\n1,12,3\n2,11,4\n"}  # fmt: skip
    done, log, items = imported("goodbooks-10k", tmp_path, files)
    assert log.select("user_id", "item_id").rows() == [("11", "1"), ("12", "1"), ("11", "2")]
    assert dict(items.select("item_id", "title").iter_rows())["1"] == "First"
    assert "there is no order in time" in " ".join(done.notes)
    assert "in time order" not in " ".join(done.notes)


def test_the_published_splits_of_amazon_2023(tmp_path):
    head = "user_id,parent_asin,rating,timestamp\n"
    rows = {part: f"{head}U,P{n},5.0,160000000011{n}\n" for n, part in enumerate(("train", "valid", "test"))}
    meta = "".join(json.dumps({"parent_asin": f"P{n}", "title": f"T{n}"}) + "\n" for n in range(3))
    files = {f"X.{part}.csv": text for part, text in rows.items()} | {"meta_X.jsonl": meta}
    done, log, _ = imported("amazon-2023", tmp_path, files)
    assert log.select("item_id", "timestamp", "split").rows() == [
        ("P0", 1600000000110, "train"), ("P1", 1600000000111, "valid"), ("P2", 1600000000112, "test"),
    ]  # fmt: skip
    assert (done.data["split_col"], done.data["time_unit"]) == ("split", "ms")
    folder = written(
        tmp_path / "gz", {f"X.{p}.csv.gz": gzip.compress(t.encode()) for p, t in rows.items()} | {"meta_X.jsonl": meta}
    )
    assert import_layout("amazon-2023", folder, out=tmp_path / "again").num_interactions == 3
    (folder / "X.valid.csv.gz").unlink()
    with pytest.raises(DataError, match=r"0 files in .* are called \*\.valid\.csv\*, expected one"):
        import_layout("amazon-2023", folder, out=tmp_path / "third")


def test_the_published_splits_of_recbole(tmp_path):
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    files = {f"x.{part}.inter": f"{head}u\t{part}\t1577836805000\n" for part in ("train", "valid", "test")}
    done, log, items = imported("recbole", tmp_path, files)
    assert log["split"].to_list() == ["train", "valid", "test"]
    assert log["item_id"].to_list() == ["train", "valid", "test"]
    assert (items, done.data["split_col"], done.data["time_unit"]) == (None, "split", "ms")
    lists = {name: text.replace("item_id:token", "item_id_list:token_seq") for name, text in files.items()}
    with pytest.raises(DataError, match="'item_id_list' holds whole histories"):
        import_layout("recbole", written(tmp_path / "lists", lists), out=tmp_path / "other")


def test_numbers_that_recbole_writes_as_missing(tmp_path):
    files = {"x.inter": "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1\n",
             "x.item": "item_id:token\ttitle:token_seq\tprice:float\turl:token\na\tAlpha\tNone\thttp://x/a\nb\tBeta\t5.5\tnan\n"}  # fmt: skip
    done, _, items = imported("recbole", tmp_path, files)
    assert items["price"].to_list() == [None, 5.5]
    assert done.data["text_cols"] == ["title"]
    assert "1 rows of x.item have no price" in done.notes


def test_records_without_an_id_or_a_time_are_counted(tmp_path):
    whole = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1400000000}
    records = [whole, whole | {"reviewerID": None}, whole | {"unixReviewTime": None}, whole | {"asin": ""}]
    files = {
        "X.json": "\n".join(map(json.dumps, records)),
        "meta_X.json": '{"asin":"B1","title":"T"}\n{"title":"no id"}\n',
    }
    done, log, items = imported("amazon-2018", tmp_path, files)
    assert (len(log), len(items)) == (1, 1)
    notes = " ".join(done.notes)
    assert "3 records of X.json were left out; the first is line 2: the record has no 'reviewerID'" in notes
    assert "1 records of meta_X.json were left out; the first is line 2: the record has no 'asin'" in notes
    with pytest.raises(DataError, match="not one of the 1 records can be used"):
        import_layout(
            "amazon-2018", written(tmp_path / "none", files | {"X.json": json.dumps(records[1])}), out=tmp_path / "o"
        )


@pytest.mark.parametrize(
    ("layout", "file", "content", "message"),
    [
        ("yoochoose", "yoochoose-clicks.dat", "1,soon\n", "no column 'session'.*expected session, item, timestamp; found 1, soon"),
        ("retailrocket", "events.csv", "timestamp,visitor,event,itemid\n1,2,view,3\n", r"no column 'visitorid' \(did you mean 'visitor'\?\)"),
        ("hm", "transactions_train.csv", "t_dat,customer_id,article_id,price\n2020-01-01,a,b,cheap\n", "data row 1: price is 'cheap', expected a number"),
        ("foursquare", "dataset_TSMC2014_NYC.txt", "1\t2\t3\tBar\t1\t2\t0\tyesterday\n", "data row 1: timestamp is 'yesterday', expected a time like"),
        ("diginetica", "train-item-views.csv", "session_id;user_id;item_id;timeframe;eventdate\n1;NA;2;3;May\n", "eventdate is 'May', expected a day"),
        ("goodreads", "goodreads_interactions_tiny.json", '{"user_id": "1", "book_id": "2", "date_added": "May"}', "line 1: 'date_added' is 'May'"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named(layout, file, content, message, tmp_path):
    folder = written(tmp_path / "files", FILES[layout][0] | {file: content})
    with pytest.raises(DataError, match=message):
        import_layout(layout, folder, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parts_may_be_named_by_a_pattern(tmp_path):
    head = "user_id,parent_asin,rating,timestamp\n"
    files = {
        f"X.{part}.csv": f"{head}U,P{n},5.0,{1600000000110 + n}\n" for n, part in enumerate(("train", "valid", "test"))
    }
    files |= {"X.csv": f"{head}V,P0,1.0,1600000000000\n", "meta_X.jsonl": '{"parent_asin":"P0","title":"T"}\n'}
    folder = written(tmp_path / "files", files)
    done = import_layout("amazon-2023", folder, out=tmp_path / "out", interactions=folder / "X.t*.csv")
    rows = pl.read_parquet(done.folder / "interactions.parquet").select("user_id", "item_id", "split").rows()
    assert rows == [("U", "P0", "train"), ("U", "P2", "test")]
    with pytest.raises(DataError, match=r"interactions: there is no file .*X\.\*"):
        import_layout("amazon-2023", folder, out=tmp_path / "other", interactions=folder / "X.*")
