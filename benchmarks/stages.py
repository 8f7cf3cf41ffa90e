"""Full training, stored items and ids, in the shape of table 8 of arXiv 2409.12740, on two small data sets.

    OMP_NUM_THREADS=1 python benchmarks/stages.py --out RUNS [--data ml-1m …] [--rows hllm-full …] [--set A.B=VALUE …]

Each row is a recipe that trains in 25 minutes at most on one CPU core with AMX. Runs stay in RUNS/DATA/ROW: one that
was stopped goes on, a finished one is only evaluated, and its evaluation is kept. Prints the table as Markdown, with
95 % intervals over users. `--set` cuts a row down for a trial, in a RUNS of its own.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from hllm import artifacts
from hllm.api import Recommender, fit_recipe
from hllm.evaluation.evaluate import Result

FOLDER = Path(__file__).parent.parent / "recipes" / "small"
ROWS = {
    "ml-1m": {
        "sasrec-history-50": "SASRec, ids",
        "hllm-cached": "HLLM, stored items",
        "hllm-full": "HLLM",
    },
    "microlens-50k": {
        "sasrec-history-10": "SASRec, ids",
        "hllm-cached": "HLLM, stored items",
        "hllm-full": "HLLM",
    },
}
METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")


def main() -> None:
    """Train and evaluate what is asked for, then print the table of all rows that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--rows", nargs="*", help="names of recipes; default: all")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="A.B=VALUE")
    asked = parser.parse_args()
    for data in asked.data:
        for row in ROWS[data]:
            if asked.rows is None or row in asked.rows:
                result = _result(FOLDER / data / f"{row}.toml", asked.out / data / row, asked.overrides)
                sys.stderr.write(f"{data}, {row}: ndcg@10 {result.all_items['ndcg@10'].mean:.4f}\n")
    sys.stdout.write("\n".join(_table(asked.out, asked.data)) + "\n")


def _result(recipe: Path, out: Path, overrides: list[str]) -> Result:
    """Train if need be, and evaluate on the test part if that was not done for this checkpoint."""
    fit_recipe(recipe, out, overrides)
    recommender = Recommender.load(out)
    stored = _stored(out)
    if (
        stored is None
        or stored.facts.checkpoint != artifacts.read_manifest(recommender.run.best_path, "checkpoint").fingerprint
    ):
        stored = recommender.evaluate(name=out.name)
        artifacts.write_text(out / "stages.json", stored.model_dump_json(indent=1))
    return stored


def _stored(out: Path) -> Result | None:
    file = out / "stages.json"
    return Result.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None


def _table(out: Path, data: list[str]) -> Iterable[str]:
    yield "| data | model | R@5 | R@10 | N@5 | N@10 | training, min | epochs |"
    yield "| --- | --- | --- | --- | --- | --- | ---: | ---: |"
    for name in data:
        for row, words in ROWS[name].items():
            if (result := _stored(out / name / row)) is not None:
                found = [result.all_items[metric] for metric in METRICS]
                cells = [f"{e.mean:.4f} [{e.low:.4f}, {e.high:.4f}]" for e in found]
                minutes = (result.facts.training_s or 0) / 60
                yield f"| {name} | {words} | {' | '.join(cells)} | {minutes:.1f} | {result.facts.epochs} |"


if __name__ == "__main__":
    main()
