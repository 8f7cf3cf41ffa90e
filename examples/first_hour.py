"""A first hour with hllm, as a program; `first-hour.ipynb` is made from it by `python docs/generate.py`."""

# %% [markdown]
# # A first hour with `hllm`
#
# A shop sells 27 clothes to 300 customers. All that is known of an item is its text, and of a customer what was bought.
# Fetch the two small language models first: `hllm model fetch minilm-l6` and `hllm model fetch smollm2-135m`.

# %%
import random
from itertools import product

import polars as pl

from hllm import Recommender
from hllm.jobs.evaluate import evaluate_all

words = product(["big", "small", "old"], ["red", "green", "blue"], ["hat", "coat", "shoe"])
clothes = pl.DataFrame({"item_id": range(27), "title": [" ".join(each) for each in words]})

# %% [markdown]
# Each customer stays with one colour and buys six things of it, one a day.

# %%
random.seed(1)
colours = {f"customer {n}": random.choice(["red", "green", "blue"]) for n in range(300)}
shelf = clothes.with_columns(colour=pl.col("title").str.split(" ").list.get(1))
sales = [
    {"user_id": customer, "item_id": item, "timestamp": 86_400 * day}
    for customer, colour in colours.items()
    for day, item in enumerate(random.sample(shelf.filter(colour=colour)["item_id"].to_list(), k=6))
]

# %% [markdown]
# Training takes about a minute. The run is a directory: `Recommender.load("first-hour")` opens it again.

# %%
recommender = Recommender.fit(pl.DataFrame(sales), clothes, out="first-hour")
lists = recommender.recommend(["customer 0", "customer 1"], k=3)
print(lists.join(clothes, on="item_id", maintain_order="left"))

# %% [markdown]
# How good is that? Each customer's last purchase was kept apart. The intervals are over customers.

# %%
for evaluated in evaluate_all({"hllm": recommender}, ["popularity"]):
    print(evaluated.result.name, evaluated.result.all_items["recall@10"])

# %% [markdown]
# A new coat is sewn. Its text is enough: it is offered before anyone has bought it.

# %%
recommender.add_items(pl.DataFrame({"item_id": [27], "title": ["new green coat"]}))
fans = recommender.audience("title: new green coat", k=3)
print(recommender.recommend(fans["user_id"], k=4))
