"""Find items that are like another one, or like a description. Usage: python examples/find_similar_items.py RUN.

RUN is what fit_from_two_frames.py has made.
"""

import sys

from hllm import Recommender

recommender = Recommender.load(sys.argv[1])

print(recommender.similar(["old-green-coat"], k=3))
print(recommender.similar(texts=["title: new green coat", "title: big shoe"], k=3))

# The vectors themselves, for a program of your own: one row for each text.
vectors = recommender.encode(["title: old green coat", "title: big shoe"])
print(vectors.shape)
