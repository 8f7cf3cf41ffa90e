"""Recommend from an approximate index, for large catalogues. Usage: python examples/search_an_index.py RUN.

RUN is what fit_from_two_frames.py has made. The index needs FAISS: pip install "hllm[faiss]".
"""

import sys

from hllm import Recommender
from hllm.retrieval.index.config import IndexConfig
from hllm.retrieval.index.retriever import build_index, source_of

recommender = Recommender.load(sys.argv[1])

# As `hllm index` does it. A real catalogue leaves out exact_below: small ones are searched exactly.
config = IndexConfig(kind="hnsw", exact_below=0)
source = source_of(recommender.run.table_path)
index = build_index(recommender.scorer, recommender.dataset, config, source=source, min_recall=0.95)
print(index.certificate)

# The index is kept in the run, and used from now on.
index.save(recommender.run.index_path)
print(Recommender.load(sys.argv[1]).recommend(["customer-0", "customer-1"], k=3))
