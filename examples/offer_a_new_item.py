"""Offer an item that nobody has bought yet. Usage: python examples/offer_a_new_item.py RUN.

RUN is what fit_from_two_frames.py has made.
"""

import sys

import polars as pl

from hllm import Recommender

recommender = Recommender.load(sys.argv[1])

# Before it is in the catalogue: who would want it?
customers = recommender.audience("title: new green hat", k=5)
print(customers)

# It is added by its text alone, and can be recommended at once. The run on disk stays as it is.
recommender.add_items(pl.DataFrame({"item_id": ["new-green-hat"], "title": ["new green hat"]}))
print(recommender.recommend(customers["user_id"][:2], k=5))
