"""Last.fm of HetRec 2011: how often people listened to artists, without times.

Format and files: https://grouplens.org/datasets/hetrec-2011/ (user_artists.dat, artists.dat: tabs and a header).
"""

# Proved by tests/data/importing/test_published.py.

from hllm.data.importing.fields import Fields, keys_first
from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import numbered

_LISTENED = Fields({"user_id": "userID", "item_id": "artistID", "weight": "weight"}, numbers=("weight",))
_ARTISTS = Fields({"item_id": "id", "title": "name", "url": "url"}, optional=("url",))


def read(source: Source) -> Tables:
    """Read who listened to whom, and the artists' names."""
    log, artists = find(source, "interactions", ["user_artists.dat*"]), find(source, "items", ["artists.dat*"])
    return Tables(
        keys_first(numbered(_LISTENED.read(log, source))), _ARTISTS.read(artists, source), files=(log, artists),
        text_cols=("title",), time_unit="none",
        notes=("there are neither times nor an order: timestamp is the row; weight counts how often",),
    )  # fmt: skip
