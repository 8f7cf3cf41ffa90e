"""Started by torchrun: trains the jobs of a JSON file one after another, and prints what all processes counted."""

import json
import os
import signal
import sys
from pathlib import Path

import torch.distributed as dist

from hllm.distributed import joined
from hllm.errors import Stopped
from hllm.models.item.text import TextItemEncoder
from hllm.recipe.recipe import Recipe
from hllm.training import update
from hllm.training.fit import fit


def count(counted: dict) -> None:
    """Count the items that run through a language model, those that steps need, and the bytes of each step."""
    pool_chunk, accumulate = TextItemEncoder._pool_chunk, update.accumulate

    def counting_pool(self, items, starts, chunk, prefix):
        counted["items_encoded"] += len(chunk)
        return pool_chunk(self, items, starts, chunk, prefix)

    def counting_step(model, objective, batches, autocast, *, between, parallel):
        group = parallel.group
        before = group.bytes_communicated
        counted["items_needed"] += sum(len(batch.items) for batch in batches) if group.first else 0
        result = accumulate(model, objective, batches, autocast, between=between, parallel=parallel)
        batch = batches[-1]
        counted["bytes"].append(group.bytes_communicated - before)
        counted["tokens"].append(batch.items.lengths.tolist())
        counted["weights"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return result

    TextItemEncoder._pool_chunk = counting_pool
    update.accumulate = counting_step


def kill_after(step: int) -> None:
    """Send SIGTERM to the last process alone, in the middle of a step."""
    take = update.Updates.take

    def killed(self, stage, position, batches):
        group = self.parallel.group
        if position.step == step - 1 and group.rank == group.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, stage, position, batches)

    update.Updates.take = killed


def main(jobs: Path) -> None:
    """Train, and print one JSON object for each process."""
    counted: dict = {"items_encoded": 0, "items_needed": 0, "bytes": [], "tokens": [], "weights": 0, "stopped": 0}
    count(counted)
    for job in json.loads(jobs.read_text()):
        before, original = dict(counted), update.Updates.take
        if job["kill_after"]:
            kill_after(job["kill_after"])
        recipe = Recipe.from_dict(job["recipe"], where=job["folder"])
        tables = (Path(job["interactions"]), Path(job["items"]))
        try:
            fit(*tables, recipe, Path(job["folder"]), base=Path.cwd())
        except Stopped:
            counted["stopped"] += 1
        update.Updates.take = original
        if job["name"] == "counted":
            counted["of_job"] = {name: counted[name] - before[name] for name in ("items_encoded", "items_needed")}
            counted["of_job"] |= {name: counted[name] for name in ("bytes", "tokens", "weights")}
        counted["bytes"], counted["tokens"] = [], []
    with joined() as group:
        every: list = [None] * group.size
        dist.all_gather_object(every, counted)
        if group.first:
            sys.stdout.write(json.dumps(every) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
