"""Recommend for people the model has never seen. Usage: python examples/recommend_for_a_history.py RUN.

RUN is what fit_from_two_frames.py has made.
"""

import sys

from hllm import Recommender

recommender = Recommender.load(sys.argv[1])

# A visitor is known by what was looked at, oldest first.
print(recommender.recommend(histories={"visitor": ["big-red-hat", "old-red-shoe"]}, k=3))

# Another one has only said what is wanted.
print(recommender.recommend(texts=["a small blue coat"], k=3))

# A third one says it after a history, and wants none but these.
on_sale = ["small-blue-coat", "small-blue-hat", "old-green-shoe"]
print(recommender.recommend(histories=[["big-blue-hat"]], texts=["something small"], items=on_sale, k=2))
