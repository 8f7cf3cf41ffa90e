"""Goal C9: an epoch of SASRec against RecBole 1.2.1's, same data, width, layers, heads and history.

    python -m venv recbole && recbole/bin/pip install --no-deps recbole==1.2.1
    recbole/bin/pip install "numpy<2" "pandas<2.3" "scipy<1.14" torch==2.13.0 tqdm colorlog==4.7.2 colorama thop
    recbole/bin/pip install scikit-learn pyyaml tensorboard tabulate plotly texttable psutil setuptools
    hllm data fetch movielens-100k
    OMP_NUM_THREADS=1 python benchmarks/sasrec.py --recbole recbole/bin/python

Both train on MovieLens-100K, leave-one-out, on the same targets with a softmax over all items: RecBole takes each
target with a copy of what came before it, ours all targets of a window of 50 at once. A step has 2,048 targets on both
sides, the rate is 1e-3. A sample is a target; seconds are of the CPU. Goal: five times the samples a second. A window's
targets share a step's work and its gradient, so an epoch of ours teaches less: quality is compared at like CPU time,
RecBole after one epoch, ours after 20. It is of the validation part, all items ranked, seen ones removed.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import in_process, span, written

EPOCHS = {"recbole": 1, "hllm": 20}
DIM, HISTORY, TARGETS = 64, 50, 2048


def write_log(folder: Path) -> None:
    """Write the interactions as RecBole reads them."""
    import polars as pl

    from hllm.data.reading.files import scan_file
    from hllm.data.schema import DataConfig
    from hllm.sources.data_sets import locate

    interactions, _ = locate(DataConfig(source="movielens-100k"), folder)
    log = scan_file(interactions).select("user_id", "item_id", pl.col("timestamp").cast(pl.Float64)).collect()
    names = {"user_id": "user_id:token", "item_id": "item_id:token", "timestamp": "timestamp:float"}
    (folder / "log").mkdir()
    log.rename(names).write_csv(folder / "log" / "log.inter", separator="\t")


def recbole(folder: Path) -> dict[str, Any]:
    """Train RecBole's in this process, which has no hllm."""
    import numpy as np
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    sys.argv = sys.argv[:1]  # RecBole reads them
    os.chdir(folder)  # and writes its logs where it stands
    settings = {
        "data_path": str(folder), "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "TIME_FIELD": "timestamp",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "MAX_ITEM_LIST_LENGTH": HISTORY,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "train_neg_sample_args": None, "loss_type": "CE", "train_batch_size": TARGETS, "eval_batch_size": 256,
        "hidden_size": DIM, "inner_size": 4 * DIM, "n_layers": 2, "n_heads": 2, "hidden_dropout_prob": 0.2,
        "attn_dropout_prob": 0.2, "learning_rate": 1e-3, "use_gpu": False, "show_progress": False, "state": "ERROR",
        "worker": 0, "checkpoint_dir": str(folder),
    }  # fmt: skip
    config = Config(model="SASRec", dataset="log", config_dict=settings)
    init_seed(1, True)
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    model = SASRec(config, train.dataset)
    trainer = Trainer(config, model)
    seconds = []
    for epoch in range(EPOCHS["recbole"]):
        start = time.process_time()
        trainer._train_epoch(train, epoch)
        seconds.append(time.process_time() - start)
    model.eval()
    history: dict[int, set[int]] = {}
    log = train.dataset.inter_feat
    for user, item, read in zip(*(log[name].tolist() for name in ("user_id", "item_id", "item_id_list")), strict=True):
        history.setdefault(user, set()).update((item, read[0]))  # of a user's oldest item no target is made
    ranks = []
    with torch.no_grad():
        for interaction, *_ in valid:
            scores = model.full_sort_predict(interaction)
            scores[:, 0] = -torch.inf  # padding
            asked = (interaction[name].tolist() for name in ("user_id", "item_id"))
            for row, user, target in zip(scores, *asked, strict=True):
                best = float(row[target])
                row[list(history[user] - {target})] = -torch.inf
                ranks.append(int((row > best).sum()))
    found = np.array(ranks)
    return {
        "cpu_s": seconds, "samples": len(train.dataset), "users": len(found), "items": dataset.item_num - 1,
        "ndcg@10": float(np.mean((found < 10) / np.log2(found + 2))), "recall@10": float(np.mean(found < 10)),
    }  # fmt: skip


def ours(folder: Path) -> dict[str, Any]:
    """Train ours in this process."""
    from hllm.api import Recommender
    from hllm.data.schema import DataConfig
    from hllm.recipe.recipe import Recipe
    from hllm.sources.data_sets import locate
    from hllm.training.fit import fit

    recipe = Recipe.from_dict(
        {
            "about": "SASRec as RecBole's defaults have it",
            "precision": "fp32",
            "data": {"items_without_interactions": "drop"},
            "model": {
                "max_history": HISTORY,
                "similarity": "dot",
                "item": {"kind": "id"},
                "user": {"kind": "sasrec", "dim": DIM, "inner": 4, "norm": "post", "norm_eps": 1e-12},
            },
            "stages": [
                {
                    "epochs": EPOCHS["hllm"], "validate_every": EPOCHS["hllm"], "batch_size": TARGETS // HISTORY,
                    "learning_rate": 1e-3, "warmup": 0.0,
                    "schedule": "constant", "weight_decay": 0.0, "betas": (0.9, 0.999),
                    "objective": {"negatives": {"kind": "catalogue"}},
                }
            ],
        },
        where="sasrec.py",
    )  # fmt: skip
    ends: dict[int, float] = {}  # of each epoch's steps
    begins: dict[int, float] = {}  # after its first one
    steps: dict[int, int] = {}

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            ends[event["epoch"]] = time.process_time()
            begins.setdefault(event["epoch"], ends[event["epoch"]])
            steps[event["epoch"]] = steps.get(event["epoch"], 0) + 1

    run = fit(
        *locate(DataConfig(source="movielens-100k"), folder), recipe, folder / "run", base=folder, listeners=(listen,)
    )
    recommender = Recommender.load(run.folder)
    samples = int((recommender.split.training_lengths(recommender.dataset) - 1).sum())
    seconds = [(ends[epoch] - begins[epoch]) * count / (count - 1) for epoch, count in steps.items()]
    last = [event for event in run.events() if event["event"] == "validation"][-1]
    found = {"cpu_s": seconds, "samples": samples, "users": len(recommender.dataset.users)}
    return found | {name: last[name] for name in ("ndcg@10", "recall@10")} | {"items": recommender.dataset.num_items}


def main(python: str) -> dict[str, Any]:
    """Let both take turns, print what each did, and return the ratio of the rates."""
    with tempfile.TemporaryDirectory() as name:
        write_log(Path(name))
        found = {"recbole": in_process([__file__, "--side", "recbole", "--folder", name], python=python)}
        found["hllm"] = in_process([__file__, "--side", "hllm", "--folder", name])
    rates = {side: [values["samples"] / s for s in values["cpu_s"]] for side, values in found.items()}
    for side, values in found.items():
        said = f"{written(span(rates[side]), 0)} samples a second, {sum(values['cpu_s']):.0f} s of CPU"
        print(f"{side}: {said}, ndcg@10 {values['ndcg@10']:.4f} after {len(values['cpu_s'])} epochs")
    faster = span([rate / statistics.median(rates["recbole"]) for rate in rates["hllm"]])
    print(f"{written(faster)} times as fast")
    return found | {"ratio": faster}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--recbole", help="a Python that has RecBole")
    parser.add_argument("--side", choices=["recbole", "hllm"])
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.side:
        print(json.dumps({"recbole": recbole, "hllm": ours}[given.side](given.folder)))
    else:
        print(json.dumps(main(given.recbole)))
