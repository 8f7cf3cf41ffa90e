"""Fine-tuning trains a finished run on with new interactions and new items, and measures what that changed."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from hllm import artifacts, records
from hllm.config import Config
from hllm.data.growth import Grown, grow
from hllm.data.reading.tables import Table
from hllm.data.split import Split, split_dataset
from hllm.distributed import Group, joined
from hllm.embedding.drift import Drift, measure_drift
from hllm.embedding.table import ItemEmbeddingTable
from hllm.errors import CheckpointError, ConfigError, HllmWarning
from hllm.evaluation.evaluate import Metrics, queries
from hllm.evaluation.impressions import mean_ranker_metrics
from hllm.evaluation.protocol import EvaluationConfig
from hllm.metrics import ranking_metrics
from hllm.models.checkpoint import load_checkpoint
from hllm.ranking.ranker import ModelRanker
from hllm.recipe.recipe import Recipe
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.scorer import ModelScorer
from hllm.runs.bundle import Bundle, open_run, scorer_of
from hllm.runs.run import Listener, Run
from hllm.training.fit import fit_dataset

SHARE_OF_RATES = 0.25
_SAME_DATA = ("item_col", "text_cols", "title_col", "action_col", "split_col", "targets")


class OldTargets(Config):
    """The metrics of the parent's model and of the new one on validation targets of the parent, among its items."""

    num_targets: int
    before: dict[str, float]
    after: dict[str, float]


class FineTuned(Config):
    """The report of fine-tuning, kept in the run's directory as `drift.json`."""

    parent: str
    """Fingerprint of the parent's checkpoint."""
    checkpoint: str
    """Fingerprint of the new checkpoint."""
    counts: dict[str, int]
    """The numbers of what was added, as in `data.growth.Grown.counts`."""
    drift: Drift
    """The drift of the items that the parent knew."""
    all_targets: OldTargets | None
    """The metrics on all of the parent's validation targets; some may be for training now. None for DIN, which does not
    retrieve."""
    held_out_targets: OldTargets | None
    """The metrics on those of them that are still not for training."""
    candidates: OldTargets | None = None
    """The metrics on the candidates of all of the parent's validation targets. None for a model without heads."""

    def lines(self) -> list[str]:
        """Return the report for people."""
        drift = self.drift
        return [
            "added   " + _added(self.counts),
            f"drift   of {drift.num_items:,} old items, cosine with their vector before: mean {drift.cosine_mean:.3f}, "
            f"5 % at most {drift.cosine_p5:.3f}, least {drift.cosine_min:.3f}",
            *(
                f"        {item.cosine:.3f}  {item.title}" + (" (another text)" if item.new_text else "")
                for item in drift.worst
            ),
            f"        {drift.overlap_at_10:.1%} of ten nearest neighbours are the same ({drift.num_sampled:,} items)",
            *(
                label + _changes(targets)
                for label, targets in (
                    ("targets of the validation before: ", self.all_targets),
                    ("of them not for training now:     ", self.held_out_targets),
                    ("their candidates scored:          ", self.candidates),
                )
                if targets is not None
            ),
        ]


def fine_tune(
    parent: Run,
    interactions: Table,
    items: Table | None,
    folder: Path,
    *,
    recipe: Path | None = None,
    overrides: Sequence[str] = (),
    listeners: tuple[Listener, ...] = (),
) -> tuple[Run, FineTuned]:
    """Train on from the parent's best checkpoint, on its data and the new tables, into `folder`; report the drift.

    The new run is as any other. Called again after a stop it goes on, with the same result as if it had not stopped.
    The recipe is `fine_tuning_recipe`. Raises ConfigError if `folder` holds another run or the recipe is of another
    model, DataError as `data.growth.grow` does, CheckpointError if the parent is damaged or not finished.
    """
    opened = open_run(parent, device=torch.device("cpu"))  # the accelerator is for the training
    chosen = fine_tuning_recipe(opened, recipe, overrides)
    assert chosen.parent is not None
    run = Run(folder, listeners)
    with joined() as group, run.claimed(group):
        run.require_room_for(chosen)
        grown = grow(opened.dataset, interactions, items, chosen.data, known_items=chosen.parent.known_items)
        position, _ = run.resume_point()
        fit_dataset(run, position, grown.dataset, chosen, base=Path.cwd(), group=group, start=parent.best_path)
        with group.one_by_one():  # the first makes it, the others find it
            report = _report(opened, run, grown, chosen)
    return run, report


def fine_tuning_recipe(parent: Bundle, path: Path | None, overrides: Sequence[str]) -> Recipe:
    """Return the recipe at `path`, or the parent's own with one short stage; `overrides` are laid over it.

    The short stage is the parent's last one, of a model with heads the last that trains them, for one epoch at a
    quarter of its rates. Raises ConfigError if the model,
    or what the columns mean, is another than the parent's.
    """
    if path is None:
        # What the parent did with known items was for its own tables: these are asked about anew.
        values = parent.recipe.model_dump(mode="json") | {"stages": [_short_stage(parent.recipe)], "parent": None}
        where = f"{parent.run.recipe_path}, to fine-tune"
    else:
        values, where = Recipe.from_toml(path).model_dump(mode="json"), str(path)
    ours, theirs = (recipe_values["start"] for recipe_values in (values, parent.recipe.model_dump(mode="json")))
    if path is not None and ours is not None and ours != theirs:
        raise ConfigError(f"{where}: [start] has no effect: fine-tuning starts with {parent.run.folder}; leave it out")
    values["start"] = theirs
    values["parent"] = (values["parent"] or {}) | {
        "checkpoint": parent.origin.checkpoint,
        "dataset": parent.dataset.fingerprint,
        "recipe": parent.run.recipe_fingerprint,
    }
    recipe = Recipe.from_dict(values, where=where, overrides=overrides)
    ours, theirs = recipe.model_dump(mode="json"), parent.recipe.model_dump(mode="json")
    differing = [f"model.{name}" for name in ours["model"] if ours["model"][name] != theirs["model"][name]]
    differing += [f"data.{name}" for name in _SAME_DATA if ours["data"][name] != theirs["data"][name]]
    if differing:
        raise ConfigError(
            f"{where}: {', '.join(differing)} must be as in {parent.run.folder}, whose model goes on; "
            "stages, data.user_col, data.time_col and the policies of data may differ"
        )
    return recipe


def _added(counts: dict[str, int]) -> str:
    more = {
        "known_interactions": "interactions were known already",
        "late_interactions": "are older than the latest that was known of their user",
        "updated_items": "known items have another text",
        "conflicting_items": "known items keep their old text",
    }
    new = [f"{counts[name]:,} {name}" for name in ("interactions", "users", "items")]
    return ", ".join(new) + "".join(f"; {counts[name]:,} {text}" for name, text in more.items() if counts[name])


def _changes(targets: OldTargets) -> str:
    changes = [f"{name} {value:.4f} -> {targets.after[name]:.4f}" for name, value in targets.before.items()]
    return ", ".join([f"{targets.num_targets:,}", *changes])


def _short_stage(recipe: Recipe) -> dict[str, Any]:
    stages = [stage for stage in recipe.stages if recipe.model.ranking is None or stage.ranks]
    last = stages[-1].model_dump(mode="json")
    rates = ("learning_rate", "item_learning_rate", "user_learning_rate")
    slower = {name: last[name] * SHARE_OF_RATES for name in rates if last[name] is not None}
    return last | slower | {"name": "fine-tune", "epochs": 1, "start": "last"}


def _report(parent: Bundle, run: Run, grown: Grown, recipe: Recipe) -> FineTuned:
    """Return the report of a finished run: the stored one if it is of this checkpoint, else made and stored."""
    file = run.drift_path
    model, _, manifest = load_checkpoint(run.best_path)
    if (stored := _stored_report(file)) is not None and stored.checkpoint == manifest.fingerprint:
        return stored
    old, split = parent.dataset, split_dataset(parent.dataset, parent.recipe.split)
    after = ItemEmbeddingTable.load(run.table_path, checkpoint=manifest.fingerprint).vectors[: old.num_items]
    now = split_dataset(grown.dataset, recipe.split)
    held_out = ~now.training[grown.positions[split.validation]]
    before = parent.scorer.table
    scorers = [scorer_of(*each, parent.recipe) for each in ((parent.model, before), (model, after))]
    retrieves = parent.recipe.model.user.facts.retrieves
    ranks = [_found(each, parent, split) for each in scorers] if retrieves else []
    report = FineTuned(
        parent=parent.origin.checkpoint,
        checkpoint=manifest.fingerprint,
        counts=grown.counts,
        drift=measure_drift(before, after, old.item_ids, old.titles, new_text=grown.updated),
        all_targets=_old_targets(ranks, np.ones_like(held_out)) if retrieves else None,
        held_out_targets=_old_targets(ranks, held_out) if retrieves else None,
        candidates=_candidates(scorers, parent, split) if parent.recipe.model.ranking is not None else None,
    )
    artifacts.write_text(file, json.dumps(records.sealed(report.model_dump(mode="json")), indent=1))
    return report


def _stored_report(file: Path) -> FineTuned | None:
    """Return the report that is kept; None, with a warning, for a damaged one."""
    if not file.is_file():
        return None
    try:
        values = records.read_one(file, again="hllm fine-tune")
        return FineTuned.from_dict(values, where=str(file))
    except CheckpointError as error:
        warnings.warn(f"{error}. It is made again", HllmWarning, stacklevel=2)
        return None


def _found(scorer: ModelScorer, parent: Bundle, split: Split) -> Metrics:
    """Return the metrics of each validation target of the parent, among its items, by one model."""
    seen = EvaluationConfig(seen=parent.recipe.evaluation.seen)  # each target by itself, whoever's it is
    asked = queries(parent.dataset, split, "validation", seen)
    ranks = ExactRetriever(scorer).rank(asked.histories, asked.targets, exclude=asked.excluded)
    metrics = ranking_metrics(ranks, (10, 50))
    return {name: metrics[name] for name in ("recall@10", "recall@50", "ndcg@10")}


def _candidates(scorers: Sequence[ModelScorer], parent: Bundle, split: Split) -> OldTargets:
    """Return the means of a ranker's metrics, before and after, on the candidates that the parent was validated by."""
    config = parent.recipe.evaluation
    before, after = (
        mean_ranker_metrics(ModelRanker(each), parent.dataset, split, "validation", config, group=Group())
        for each in scorers
    )
    return OldTargets(num_targets=len(split.validation), before=before, after=after)


def _old_targets(ranks: list[Metrics], chosen: Bool[np.ndarray, " target"]) -> OldTargets:
    count = int(chosen.sum())
    means = [{name: float(values[chosen].mean()) for name, values in each.items()} if count else {} for each in ranks]
    return OldTargets(num_targets=count, before=means[0], after=means[1])
