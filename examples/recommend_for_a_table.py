"""Recommend for a whole table of users. Usage: python examples/recommend_for_a_table.py RUN OUTPUT.parquet.

RUN is what fit_from_two_frames.py has made. A job that is stopped goes on when it is started again.
"""

import sys
from pathlib import Path

import polars as pl

from hllm import Recommender
from hllm.jobs.recommend_table import TableOptions, recommend_table

run, output = Path(sys.argv[1]), Path(sys.argv[2])

# Two customers of the log, and a visitor with a history of his own.
users = run.with_name("users.parquet")
pl.DataFrame(
    {
        "user_id": ["customer-0", "customer-1", "visitor"],
        "history": [None, None, ["big-red-hat", "old-red-shoe"]],
    }
).write_parquet(users)

report = recommend_table(Recommender.load(run), users, output, TableOptions(k=5))

print(f"{report.rows} rows for {report.counts.rows} users")
print(pl.read_parquet(output))
