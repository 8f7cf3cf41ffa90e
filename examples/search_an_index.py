"""Recommend from an approximate index, for large catalogues. Usage: python examples/search_an_index.py RUN.

RUN is what fit_from_two_frames.py has made. The index needs FAISS: pip install "hllm[faiss]".
"""

import sys
from pathlib import Path

from hllm import Recommender
from hllm.jobs.index import index_run
from hllm.retrieval.index.config import IndexConfig
from hllm.runs.run import Run

run = Path(sys.argv[1])

# As `hllm index` does it. A real catalogue leaves out exact_below: small ones are searched exactly.
indexed = index_run(Run(run), IndexConfig(kind="hnsw", exact_below=0), min_recall=0.95)
print(indexed.certificate)

# The index is kept in the run, and used from now on.
print(Recommender.load(run).recommend(["customer-0", "customer-1"], k=3))
