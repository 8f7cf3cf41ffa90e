import polars as pl
import pytest

from hllm.data.prompt import PromptConfig, render, render_fields, render_text
from hllm.errors import DataError

FIELDS = ("title", "year")


def test_fields_become_one_text_and_empty_ones_are_left_out():
    items = pl.DataFrame({"year": [1979, None], "title": [" Alien ", "Heat"], "x": ["no", "no"]})
    assert render(items, FIELDS, PromptConfig()) == ["title: Alien year: 1979", "title: Heat"]
    paper = PromptConfig(prefix="Compress the following sentence into embedding: ", separator="")
    assert render(items, FIELDS, paper)[0] == "Compress the following sentence into embedding: title: Alienyear: 1979"
    assert render(items, FIELDS, PromptConfig(field_names=False))[0] == "Alien 1979"


@pytest.mark.parametrize(
    "text", ["title: Alien; year: 1979", "year: 1979\ntitle: Alien", "Alien; year: 1979", "Alien;year:1979"]
)
def test_a_new_items_text_is_read_like_the_catalogue(text):
    assert render_text(text, FIELDS, PromptConfig()) == "title: Alien year: 1979"


def test_a_text_with_colons_and_semicolons_of_its_own_is_kept_whole():
    assert render_text("title: Star Wars: A New Hope; or not", FIELDS, PromptConfig()) == (
        "title: Star Wars: A New Hope; or not"
    )


def test_a_new_item_without_text_is_refused():
    message = 'a new item needs text, such as "title: …", in at least one of title, year'
    for text in ("  ", "title: ", ";", "title: ; year:"):
        with pytest.raises(DataError, match=message):
            render_text(text, FIELDS, PromptConfig())
    with pytest.raises(DataError, match=message):
        render_fields({"title": None}, FIELDS, PromptConfig())
    assert render_fields({"year": 0}, FIELDS, PromptConfig()) == "year: 0", "0 is a value"
    with pytest.raises(
        DataError, match=r"unknown field 'titel' \(did you mean 'title'\?\); items are read by title, year"
    ):
        render_fields({"titel": "x"}, FIELDS, PromptConfig())
