"""Check-ins at places: Gowalla and Brightkite, which say where a place is, and Foursquare, which says what it is.

Formats: https://snap.stanford.edu/data/loc-Gowalla.html (user, time, latitude, longitude, place; tabs, no header);
https://sites.google.com/site/yangdingqi/home/foursquare-dataset (dataset_TSMC2014_NYC.txt with user, place, category id
and name, latitude, longitude, minutes from UTC, time; dataset_TIST2015_Checkins.txt and dataset_TIST2015_POIs.txt).
"""

# Proved by tests/data/importing/test_published.py.

from hllm.data.importing.fields import Fields, keys_first, read_log
from hllm.data.importing.layout import Source, Tables, find, matching

_FORMAT = "%a %b %d %H:%M:%S %z %Y"  # Tue Apr 03 18:00:09 +0000 2012
_NAMED = {"user_id": "user", "item_id": "venue id", "timestamp": "utc time"}
_GOWALLA = Fields(
    {"user_id": "user", "item_id": "location id", "timestamp": "check-in time", "latitude": "lat", "longitude": "lon"},
    order=("user_id", "timestamp", "latitude", "longitude", "item_id"),
    numbers=("latitude", "longitude"),
)
_CITY = Fields(
    {**_NAMED, "category": "venue category|venue category name", "latitude": "lat", "longitude": "lon"},
    order=("user_id", "item_id", "category_id", "category", "latitude", "longitude", "offset", "timestamp"),
    numbers=("latitude", "longitude"),
    time_format=_FORMAT,
)
_WORLD = Fields(_NAMED, order=("user_id", "item_id", "timestamp", "offset"), time_format=_FORMAT)
_PLACES = Fields(
    {"item_id": "venue id", "latitude": "lat", "longitude": "lon", "category": "category", "country": "country code"},
    order=("item_id", "latitude", "longitude", "category", "country"),
    numbers=("latitude", "longitude"),
)


def read_gowalla(source: Source) -> Tables:
    """Read the check-ins of Gowalla or Brightkite; nothing is known of a place but where it is."""
    log, unit, path = read_log(source, _GOWALLA, ["*otalCheckins*"])
    return Tables(log, None, files=(path,), time_unit=unit)


def read_foursquare(source: Source) -> Tables:
    """Read the check-ins of New York and Tokyo, which hold the places' categories, or of the world with its POIs."""
    if source.items is not None or matching(source.folder, ["*POIs*"]):
        log, unit, path = read_log(source, _WORLD, ["*Checkins*"])
        places = find(source, "items", ["*POIs*"])
        items = _PLACES.read(places, source)
        return Tables(log, items, files=(path, places), text_cols=("category", "country"), time_unit=unit)
    log, unit, path = read_log(source, _CITY, ["*TSMC2014*"], but_not=("*readme*",))
    of_place = ("item_id", "category", "latitude", "longitude")
    items = log.select(of_place).unique("item_id", keep="first", maintain_order=True)
    log = keys_first(log.select("user_id", "item_id", "timestamp"))
    return Tables(log, items, files=(path,), text_cols=("category",), time_unit=unit)
