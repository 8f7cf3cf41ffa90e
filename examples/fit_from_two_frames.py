"""Train a recommender on two data frames. Usage: python examples/fit_from_two_frames.py RUN.

The two small language models are fetched once: hllm model fetch minilm-l6; hllm model fetch smollm2-135m.
"""

import random
import sys
from itertools import product

import polars as pl

from hllm import Recommender

run = sys.argv[1]

# A shop sells 27 clothes: all that is known of one is its text.
clothes = pl.DataFrame(
    [
        {"item_id": f"{age}-{colour}-{kind}", "title": f"{age} {colour} {kind}"}
        for age, colour, kind in product(["big", "small", "old"], ["red", "green", "blue"], ["hat", "coat", "shoe"])
    ]
)

# Each of 300 customers has a colour, and buys six things of it.
random.seed(1)
sales = []
for customer in range(300):
    colour = random.choice(["red", "green", "blue"])
    liked = [item for item in clothes["item_id"] if colour in item]
    for day, item in enumerate(random.sample(liked, k=6)):
        sales.append({"user_id": f"customer-{customer}", "item_id": item, "timestamp": 86_400 * day})

recommender = Recommender.fit(pl.DataFrame(sales), clothes, out=run)

print(recommender.recommend(["customer-0"], k=3))
