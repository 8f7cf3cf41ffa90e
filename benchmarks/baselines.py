"""Measure every baseline on every small data set at hand. docs/results.json keeps the numbers.

Two pages are made from it: docs/results.md, and benchmarks/notes/baselines-elsewhere.md on the numbers of others.

    OMP_NUM_THREADS=1 python benchmarks/baselines.py [--settings NAME …] [--baselines NAME …] [--page]

A row is written as soon as it is made. What is not made, because its data are not on this machine or it was not asked
for, keeps its row from the last time. `--page` only writes the page again.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from closer_look import gte_rows, markov_rows

from hllm.data.build import build_dataset
from hllm.data.dataset import Dataset
from hllm.data.split import Split, split_dataset
from hllm.errors import ConfigError
from hllm.evaluation.baselines import BASELINES, build_baseline
from hllm.evaluation.evaluate import evaluate
from hllm.recipe.recipe import Recipe
from hllm.retrieval.exact import ExactRetriever
from hllm.sources.data_sets import locate
from hllm.training.fit import recipe_from

ROOT = Path(__file__).parent.parent
STORE, PAGE = ROOT / "docs" / "results.json", ROOT / "docs" / "results.md"
NOTE = ROOT / "benchmarks" / "notes" / "baselines-elsewhere.md"
WIDE, NARROW = ("recall@10", "ndcg@10"), ("recall@20", "ndcg@20", "recall@50")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One data set under one split, as a recipe has them."""

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()


SETTINGS = (
    Setting("movielens-100k, leave-one-out", "recipes/sasrec-movielens.toml"),
    Setting("movielens-100k, temporal", "recipes/sasrec-movielens.toml", ("split.kind=temporal",)),
    Setting("ml-1m, leave-one-out", "recipes/small/ml-1m/sasrec.toml"),
    Setting("amazon-beauty, leave-one-out", "recipes/small/amazon-beauty/sasrec.toml"),
    Setting("microlens-50k, leave-one-out", "recipes/small/microlens-50k/sasrec.toml"),
    # A global temporal split, in the order of times that the source kept to itself.
    Setting(
        "microlens-50k, dealrec_split",
        "recipes/small/microlens-50k/sasrec.toml",
        ("split.kind=column", "data.split_col=dealrec_split"),
    ),
)
GTE, MARKOV = "gte", "markov with validation"  # keys of the store
HEAD = """This page shows what recommenders without training by gradient reach on small data sets. One command makes it:

```
OMP_NUM_THREADS=1 python benchmarks/baselines.py
```

- Numbers are means over targets. Brackets hold 95 % intervals over users. `results.json` has all of them.
- Baselines are fitted on the **training** interactions alone, like a trained model. They are asked with the history
  before the target, validation item included.
- Their settings are the defaults of `hllm.evaluation.baselines`, chosen on no data set.
- Seconds are those to fit and to rank all users, on one core shared with other work. They differ between runs.

By recall@10 first-order Markov is the best of them, or no worse than chance allows, in all tables but the last. There
most targets are cold, and the text baselines are the best. [Two rows differ from numbers that others
publish](../benchmarks/notes/baselines-elsewhere.md): that note says why.
"""
MARKOV_TEXT = """# Why others report other numbers for two baselines

This note looks closer at two rows of [the results](../../docs/results.md). `python benchmarks/baselines.py` makes it.

## First-order Markov

Others report a recall@10 of .0765 on Amazon Beauty (on 6,000 of its users). They count transitions in everything but
the test item. If transitions are counted in the training part alone, one step is missing: from a user's last training
item to its validation item. On Beauty this is one step of seven, and the newest. With it we have .0757. In longer
histories that step is one of many, and makes no difference (.2148 on ML-1M comes out either way).

The rest comes from popularity, which breaks the ties. Most items never followed a given one. Shared out, such ties
are worth next to nothing.
"""
GTE_TEXT = """
## Co-occurrence: GTE with k = 3

Its authors' files for Amazon Beauty (22,363 × 12,101) give R@20 .0927, N@20 .0421, R@40 .1278, N@40 .0492. Nothing
says how the files (two binary matrices in `HKUDS/GTE`) were split, and they are not at hand here. The table has the
same walk on the same 198,502 interactions, under splits of our own. The metric is theirs: recall over a user's
targets, ideal DCG cut at k. Seen items are treated as theirs: score 0, not removed. There are two rules for ties.
"""
GTE_CONCLUSION = """
**One row has all four of their numbers.** Each user's last item is the target. Everything else is for training, the
item that we keep for validation included. Equal scores stand in the order of the ids. We infer from this agreement
that it is their protocol. Ties shared out alone give 2.7 % more. These are means over users. Their code averages
batches of 256 users and then the batches; in our order of users that would give R@20 .0959 and N@20 .0433.

Our leave-one-out keeps the validation item out of training (first row). That takes a quarter of the recall. It then
asks with this item in the history, which gives some of it back: the row `co-occurrence` of the table for Amazon
Beauty. Random splits are far off, and with several targets a user NDCG is too high for the recall."""


def main() -> None:
    """Make what is asked for, then the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="*", default=[s.name for s in SETTINGS], help="beginnings of their names")
    parser.add_argument("--baselines", nargs="*", default=list(BASELINES))
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args()
    store: dict[str, Any] = json.loads(STORE.read_text()) if STORE.exists() else {}
    absent = {}
    for setting in () if asked.page else SETTINGS:
        if not setting.name.startswith(tuple(asked.settings)):
            continue
        recipe, base = recipe_from(ROOT / setting.recipe, setting.overrides)
        try:
            tables = locate(recipe.data, base)
        except ConfigError as error:
            absent[setting.name] = str(error)
            print(f"{setting.name}: {error}", flush=True)
            continue
        dataset = build_dataset(*tables, recipe.data)
        split = split_dataset(dataset, recipe.split)
        rows = store.setdefault(setting.name, {"recipe": setting.recipe, "rows": {}})
        rows["overrides"] = list(setting.overrides)
        for name in asked.baselines:
            rows["rows"][name] = row = _row(name, dataset, split, recipe, rows)
            found = row.get("refused") or f"recall@10 {row['metrics']['recall@10']['mean']:.4f}"
            print(f"{setting.name}, {name}: {found}", flush=True)
            _save(store, absent)
        if "markov" in asked.baselines and not setting.overrides:
            rows[MARKOV] = markov_rows(dataset, split, recipe.evaluation)
        if setting.name.startswith("amazon-beauty") and "co-occurrence" in asked.baselines:
            store[GTE] = gte_rows(dataset)
    _save(store, absent)


def _row(name: str, dataset: Dataset, split: Split, recipe: Recipe, rows: dict[str, Any]) -> dict[str, Any]:
    begin = time.perf_counter()
    try:
        scorer = build_baseline(name, dataset, split)
    except ConfigError as error:
        return {"refused": str(error)}
    built = time.perf_counter()
    result = evaluate(name, ExactRetriever(scorer), dataset, split, "test", recipe.evaluation)
    rows["protocol"] = result.protocol.lines()
    metrics = {key: result.all_items[key].model_dump() for key in (*WIDE, *NARROW)}
    return {"metrics": metrics, "fit_s": built - begin, "rank_s": time.perf_counter() - built}


def _save(store: dict[str, Any], absent: dict[str, str]) -> None:
    STORE.write_text(json.dumps(store, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text("\n".join(_page(store, absent)) + "\n", encoding="utf-8")
    NOTE.write_text("\n".join(_closer_look(store)) + "\n", encoding="utf-8")


def _page(store: dict[str, Any], absent: dict[str, str]) -> Iterable[str]:
    yield "# Results of the baselines\n"
    yield HEAD
    for setting in SETTINGS:
        yield f"## {setting.name}\n"
        if setting.name in absent:
            yield f"Not made again: {absent[setting.name]}\n"
        if setting.name not in store:
            yield "No rows yet.\n"
            continue
        yield from _section(store[setting.name])


def _section(rows: dict[str, Any]) -> Iterable[str]:
    yield f"Data and split of `{' '.join([rows['recipe'], *(f'--set {o}' for o in rows['overrides'])])}`.\n"
    yield from (f"- {line}" for line in rows.get("protocol", []))
    yield "\n| baseline | R@10 | N@10 | R@20 | N@20 | R@50 | fit, s | rank, s |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"
    refused = []
    for name in BASELINES:
        row = rows["rows"].get(name)
        if row is None:
            continue
        if "refused" in row:
            refused.append(f"{name}: {row['refused']}")
            continue
        m = row["metrics"]
        cells = [f"{m[k]['mean']:.4f} [{m[k]['low']:.4f}, {m[k]['high']:.4f}]" for k in WIDE]
        cells += [f"{m[k]['mean']:.4f}" for k in NARROW]
        yield f"| {name} | {' | '.join(cells)} | {row['fit_s']:.1f} | {row['rank_s']:.1f} |"
    yield ""
    yield from (f"Refused: {text}.\n" for text in refused)


def _closer_look(store: dict[str, Any]) -> Iterable[str]:
    yield MARKOV_TEXT
    yield "| data | transitions of | ties | R@10 | N@10 |"
    yield "| --- | --- | --- | ---: | ---: |"
    for setting in SETTINGS:
        for row in store.get(setting.name, {}).get(MARKOV, []):
            numbers = f"{row['recall@10']:.4f} | {row['ndcg@10']:.4f}"
            yield f"| {setting.name} | {row['fitted']} | {row['ties']} | {numbers} |"
    yield GTE_TEXT
    yield "| training | targets | test users | targets in all | ties | R@20 | N@20 | R@40 | N@40 |"
    yield "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |"
    for row in store.get(GTE, []):
        numbers = " | ".join(f"{row[key]:.4f}" for key in ("recall@20", "ndcg@20", "recall@40", "ndcg@40"))
        words = f"| {row['training']} | {row['targets']} | {row['users']:,} | {row['num_targets']:,} | {row['ties']} |"
        yield f"{words} {numbers} |"
    yield GTE_CONCLUSION


if __name__ == "__main__":
    main()
