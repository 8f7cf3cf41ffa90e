"""A finished run, opened: its dataset, model and item table."""

from dataclasses import dataclass

from hllm import artifacts
from hllm.data.dataset import Dataset
from hllm.embedding.table import ItemEmbeddingTable
from hllm.errors import CheckpointError
from hllm.models.checkpoint import load_checkpoint
from hllm.models.recommender import SequentialRecommender
from hllm.recipe.recipe import Recipe
from hllm.runs.run import Run


def require_trained(run: Run) -> None:
    """Raise CheckpointError if the run has no checkpoint to embed with."""
    if not run.best_path.exists():
        raise CheckpointError(f"{run.folder} is not finished: it has no best checkpoint; run hllm train again to go on")


@dataclass(frozen=True)
class OpenedRun:
    """A finished run, checked: its parts belong together."""

    run: Run
    recipe: Recipe
    dataset: Dataset
    model: SequentialRecommender
    table: ItemEmbeddingTable
    checkpoint: artifacts.Manifest


def open_run(run: Run) -> OpenedRun:
    """Open a finished run; CheckpointError if it is damaged, mixed up, or training has not finished an epoch."""
    recipe = run.read_recipe()
    if not run.table_path.exists():
        raise CheckpointError(f"{run.folder} is not finished: it has no item vectors; run hllm train again to go on")
    model, _, manifest = load_checkpoint(run.best_path)
    table = ItemEmbeddingTable.load(run.table_path, checkpoint=manifest.fingerprint)
    dataset = Dataset.load(run.dataset_path)
    for name, found in (("dataset", dataset.fingerprint), ("recipe", run.recipe_fingerprint)):
        if found != manifest.details[name]:
            raise CheckpointError(
                f"the {name} in {run.folder} is not the one its checkpoint was trained with: fingerprint "
                f"{found[:12]}…, expected {manifest.details[name][:12]}…; restore it from a copy, or train again"
            )
    return OpenedRun(run, recipe, dataset, model, table, manifest)
