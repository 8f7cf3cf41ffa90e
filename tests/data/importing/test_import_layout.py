"""What an imported folder remembers, and what an import says."""

import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.importing.import_layout import import_layout
from hllm.data.importing.layout import Columns
from hllm.data.reading.form import FOUND, Form
from hllm.data.schema import DataConfig
from hllm.errors import ConfigError, DataError


@pytest.fixture
def shop(tmp_path):
    """Write two tables and return a function that imports them."""
    (tmp_path / "shop").mkdir()

    def imported(interactions: str | bytes, items: str | None = "item_id,title\na,Alpha\nb,Beta\n", **options):
        data = interactions if isinstance(interactions, bytes) else interactions.encode()
        (tmp_path / "shop" / "interactions.csv").write_bytes(data)
        if items is not None:
            (tmp_path / "shop" / "items.csv").write_text(items)
        done = import_layout("table", tmp_path / "shop", out=tmp_path / "out", **options)
        return done, " | ".join(done.notes)

    return imported


def test_a_recipe_takes_the_folder_with_its_settings(shop, tmp_path):
    shop("user_id,item_id\nu,b\nu,a\n", columns=Columns(time=""))
    (tmp_path / "moved").mkdir()
    (tmp_path / "out").rename(tmp_path / "moved" / "out")
    config = DataConfig.from_dict({"from": "out", "title_col": "title"}, where="test", base=tmp_path / "moved")
    assert (config.interactions, config.items) == ("out/interactions.parquet", "out/items.parquet")
    assert (config.time_unit, config.text_cols, config.title_col) == ("none", ("title",), "title")
    recipe = tmp_path / "moved" / "data.toml"
    recipe.write_text('from = "out"\ntext_cols = ["title", "item_id"]\n')
    assert DataConfig.from_toml(recipe).text_cols == ("title", "item_id"), "what is said beside it counts"
    assert "from" not in config.model_dump()


def test_a_folder_that_was_not_imported(tmp_path):
    with pytest.raises(ConfigError, match=r"from = 'nowhere': .*data\.toml cannot be read; name a folder"):
        DataConfig.from_dict({"from": "nowhere"}, where="test")
    (tmp_path / "data.toml").write_text("[dat]\n")
    with pytest.raises(ConfigError, match=r"data\.toml has no table \[data\]"):
        DataConfig.from_dict({"from": str(tmp_path)}, where="test")
    (tmp_path / "data.toml").write_text('[data]\ninteractions = "../other.csv"\n')
    with pytest.raises(ConfigError, match=r"names interactions outside its folder: '\.\./other\.csv'"):
        DataConfig.from_dict({"from": str(tmp_path)}, where="test")
    (tmp_path / "data.toml").write_text("[data\n")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        DataConfig.from_dict({"from": str(tmp_path)}, where="test")


def test_no_items_and_no_text(shop, tmp_path):
    done, notes = shop("user_id,item_id,timestamp\nu,b,1\nu,a,2\n", None)
    assert (done.num_items, "items" in done.data) == (2, False)
    assert "no table of items: enough for models that know items by their ids" in notes
    config = DataConfig.from_dict({"from": str(tmp_path / "out")}, where="test")
    dataset = build_dataset(config.interactions, None, config)
    assert (dataset.item_ids.to_list(), dataset.text_cols, dataset.title_col) == (["a", "b"], (), "item_id")


def test_items_of_ids_alone(shop, tmp_path):
    done, notes = shop("user_id,item_id,timestamp\nu,b,1\nu,a,2\n", "item_id\na\nb\nc\n")
    assert (done.num_items, done.data["text_cols"]) == (3, [])
    assert "no column of words" in notes
    dataset = build_dataset(done.data["interactions"], done.data["items"], DataConfig(**done.data))
    assert dataset.num_items == 3


def test_the_import_says_which_columns_are_not_read(shop):
    done, notes = shop(
        ",user_id,item_id,timestamp\n0,u,a,1\n",
        ",item_id,title,price,url,about\n0,a,Alpha,9.99,http://x/a,Salt &amp; more\n1,b,Beta,5.00,http://x/b,Words\n",
    )
    assert done.data["text_cols"] == ["title", "about"]
    assert "not read as text: '' (no name), 'price' (numbers or dates), 'url' (links)" in notes
    assert "50.0% of 'about' hold HTML" in notes


def test_titles_that_are_ids_are_read_too(shop):
    columns = Columns(user="user", item="game", items_item="Name", time="")
    done, _ = shop(
        "user,game\nu,Game One\nu,Game Two\n", "Name,Tag\nGame One,puzzle\nGame Two,shooter\n", columns=columns
    )
    assert done.data["text_cols"] == ["Name", "Tag"]


def test_codes_that_are_ids_are_not_read(shop):
    done, _ = shop("user_id,item_id,timestamp\nu,B01X,1\n", "sku,Tag\nB01X,puzzle\n", columns=Columns(items_item="sku"))
    assert done.data["text_cols"] == ["Tag"]


def test_rows_without_user_item_or_time_are_counted(shop):
    done, notes = shop("user_id,item_id,timestamp\nu,a,1\n,a,2\nu,,3\nu,b,\n,,\n")
    assert done.num_interactions == 1
    for name in ("user_id", "item_id", "timestamp"):
        assert f"1 of 4 interactions have no {name} and were left out" in notes  # ",," is no row


def test_a_condition_on_the_interactions(shop):
    done, notes = shop("user_id,item_id,timestamp,rating\nu,a,1,3.5\nu,b,2,4\nv,a,3,10\n", where="rating >= 4")
    assert done.num_interactions == 2, "by size, not by letters"
    assert "2 of 3 interactions fulfil rating >= 4" in notes
    assert pl.read_parquet(done.folder / "interactions.parquet")["rating"].to_list() == ["4", "10"]


def test_a_condition_that_cannot_be_read(shop):
    with pytest.raises(ConfigError, match="cannot be read at position 9"):
        shop("user_id,item_id,timestamp\nu,a,1\n", where="rating =")
    with pytest.raises(DataError, match="not one interaction"):
        shop("user_id,item_id,timestamp\nu,a,1\n", where="timestamp > 5")


ZEROS = "user_id,item_id,timestamp\nu,123,1\nu,17.0,2\nv,18 ,3\n"
WITH_ZEROS = "item_id,title\n0123,Hat\n17,Cup\n18,Pan\n"


def test_ids_that_lost_their_zeros_are_never_dropped(shop):
    done, notes = shop(ZEROS + "v,17,4\nv,gone,5\n", WITH_ZEROS)
    assert "unknown_items" not in done.data, "training refuses the tables until somebody has decided"
    assert "drop" not in notes
    assert "4 of 5 interactions name items that the items lack, 3 of them in spelling alone" in notes
    for part in ("'123' is '0123' in the items", "'17.0' is '17'", "'18 ' is '18'", "--match-ids loose"):
        assert part in notes


def test_nothing_is_written_where_nothing_would_be_left(shop, tmp_path):
    with pytest.raises(
        DataError, match=r"none of the 3 interactions .*'123' is '0123' in the items.*--match-ids loose"
    ) as caught:
        shop(ZEROS, WITH_ZEROS)
    assert "drop" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_one_option_mends_them(shop):
    done, _ = shop(ZEROS, WITH_ZEROS, match_ids="loose")
    assert "unknown_items" not in done.data
    dataset = build_dataset(done.data["interactions"], done.data["items"], DataConfig(**done.data))
    assert dataset.num_interactions == 3


def test_tables_that_have_no_id_in_common_are_refused(shop, tmp_path):
    with pytest.raises(DataError, match=r"none of the 1 interactions names an item of the items table.*'b'.*'x'"):
        shop("user_id,item_id,timestamp\nu,x,1\n", "item_id,title\nb,B\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("times", "settings", "seconds"),
    [
        (("1600000000123", "1600000101123"), {"time_unit": "ms"}, 1600000000),
        (("1600000000123456", "1600000101123456"), {"time_unit": "us"}, 1600000000),
        (("1600000000.0", " 1600000101.0"), {}, 1600000000),
        (("20200105", "20201230"), {"time_format": "%Y%m%d"}, 1578182400),
        (("2020-01-05 00:00:00 UTC", "2020-12-30 00:00:00 UTC"), {}, 1578182400),
        (("01/05/2020 12:00 AM", "12/30/2020 3:00 PM"), {}, 1578182400),
        (("05.01.2020", "30.12.2020"), {}, 1578182400),
    ],
)
def test_units_and_forms_of_times_are_found(shop, times, settings, seconds):
    done, notes = shop(f"user_id,item_id,timestamp\nu,a,{times[0]}\nu,b,{times[1]}\n")
    assert {key: done.data[key] for key in ("time_unit", "time_format") if key in done.data} == settings
    dataset = build_dataset(done.data["interactions"], done.data["items"], DataConfig(**done.data))
    assert dataset.seconds[0] == seconds
    assert ("timestamp is read as month/day/year" in notes) == ("/" in times[0])


def test_dates_that_fit_both_orders_need_a_format(shop, tmp_path):
    rows = "user_id,item_id,timestamp\nu,a,11/10/2020\nu,b,12/2/2020\n"
    with pytest.raises(DataError, match="--time-format"):
        shop(rows)
    assert not (tmp_path / "out").exists()
    done, _ = shop(rows, time_format="%m/%d/%Y")
    assert done.data["time_format"] == "%m/%d/%Y"


@pytest.mark.parametrize("time_format", ["%m/%d/%Y", "%Y"])
def test_a_format_that_fits_no_time_is_refused(shop, time_format):
    with pytest.raises(DataError, match=r"not one time is of the format '.*': they are such as '11/10/2020 7:15'"):
        shop("user_id,item_id,timestamp\nu,a,11/10/2020 7:15\nu,b,12/2/2020 6:40\n", time_format=time_format)


def test_a_format_for_times_that_are_none_is_refused(shop):
    with pytest.raises(ConfigError, match=r"the times of table are no dates here .*leave out --time-format"):
        shop("user_id,item_id\nu,a\n", time_format="%Y", columns=Columns(time=""))


def test_times_that_are_not_of_the_format_are_said(shop):
    _, notes = shop("user_id,item_id,timestamp\nu,a,20201110\nu,b,May\n", time_format="%Y%m%d")
    assert "times such as 'May' are not of the format '%Y%m%d'" in notes


def test_the_question_for_a_format_suggests_one_that_reads_the_times(shop, tmp_path):
    rows = "user_id,item_id,timestamp\nu,a,11/10/2020 7:15\nu,b,12/2/2020 6:40\n"
    with pytest.raises(DataError, match="such as '%m/%d/%Y %H:%M' or '%d/%m/%Y %H:%M'"):
        shop(rows)
    done, _ = shop(rows, time_format="%m/%d/%Y %H:%M")
    dataset = build_dataset(tmp_path / "out/interactions.parquet", tmp_path / "out/items.parquet", DataConfig(**{"from": str(done.folder)}))  # fmt: skip
    assert dataset.seconds.tolist() == [1604992500, 1606891200]


def test_an_import_says_how_a_text_table_is_written_and_notes_what_is_odd(shop, tmp_path):
    form = Form("|", columns=("user_id", "item_id", "timestamp", "place"))
    done, notes = shop("u|a|1|Caf\xe9\nu|b|2|Bar\n".encode("latin-1"), forms=(form, FOUND))
    assert pl.read_parquet(done.folder / "interactions.parquet")["place"].to_list() == ["Café", "Bar"]
    assert "interactions.csv: 1 line is not UTF-8 and read as Western European (cp1252); first: line 1" in notes
    with pytest.raises(ConfigError, match="the form of yelp is fixed; leave out separator, encoding, header"):
        import_layout("yelp", tmp_path, out=tmp_path / "o", forms=(form, FOUND))


def test_what_is_unlike_tables_is_named_with_its_line(shop):
    with pytest.raises(DataError, match=r"items\.csv, line 3: found 3 fields, expected 2"):
        shop("user_id,item_id,timestamp\nu,a,1\n", "item_id,title\na,Alpha\nb,two,fields\n")
