"""Evaluate a run, and compare it with recommenders that need no training.

Usage: python examples/compare_with_baselines.py RUN. RUN is what fit_from_two_frames.py has made.
"""

import sys

from hllm import Recommender
from hllm.jobs.evaluate import evaluate_all

recommender = Recommender.load(sys.argv[1])

# The full catalogue is ranked for each user's last item. All rows share one protocol.
evaluated = evaluate_all({"hllm": recommender}, ["popularity", "markov"])
results = [each.result for each in evaluated]
print("\n".join(results[0].protocol.lines()))

for result in results:
    ndcg = result.all_items["ndcg@10"]
    print(f"{result.name:12} ndcg@10 {ndcg.mean:.3f}, 95 % interval {ndcg.low:.3f} to {ndcg.high:.3f}")
