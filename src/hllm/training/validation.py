"""Validation: embed the catalogue, and rank it for the validation targets by the code that serves."""

# Proved by tests/training/test_catalogue.py.

from typing import final

import torch
from torch import Tensor

from hllm.errors import TrainingError
from hllm.evaluation.evaluate import mean_metrics
from hllm.evaluation.impressions import mean_ranker_metrics
from hllm.metrics import RANKING_METRICS
from hllm.models.recommender import SequentialRecommender
from hllm.ranking.ranker import ModelRanker
from hllm.recipe.recipe import Recipe
from hllm.retrieval.exact import ExactRetriever
from hllm.runs.bundle import scorer_of
from hllm.runs.position import Position
from hllm.training.catalogue import Catalogue
from hllm.training.stages import is_last_epoch


@final
class Validation:
    """Validation scores a model by the metric that a recipe selects the best checkpoint by."""

    def __init__(self, recipe: Recipe, catalogue: Catalogue) -> None:
        self.recipe = recipe
        self.catalogue = catalogue

    def due(self, position: Position) -> bool:
        """Return whether a validation follows the epoch at `position`."""
        config = self.recipe.stages[position.stage]
        every = config.validate_every
        return every > 0 and (is_last_epoch(config, position) or (position.epoch + 1) % every == 0)

    def score(self, model: SequentialRecommender) -> tuple[dict[str, float], Tensor]:
        """Return the metrics of the model as it is now, and its item embeddings."""
        model.eval()
        table = self.catalogue.embeddings(model.item_encoder)
        if not bool(torch.isfinite(table).all()):
            raise TrainingError("the item embeddings are no longer finite: lower learning_rate")
        metrics = self.metrics(model, table)
        if self.recipe.select_by not in metrics:
            raise TrainingError(
                f"the validation has no {self.recipe.select_by}: no user has impressions with label 1 and with 0; "
                'set select_by = "auc", or a split with several targets of each user (split.targets = "all")'
            )
        return metrics, table

    def judge(self, position: Position, metrics: dict[str, float]) -> Position:
        """Return the position with the validation's value counted; `validations_since_best` is 0 if it is the best."""
        value = metrics[self.recipe.select_by]
        since = 0 if value > position.best else position.validations_since_best + 1
        return position.moved(best=max(position.best, value), validations_since_best=since)

    def metrics(self, model: SequentialRecommender, table: Tensor) -> dict[str, float]:
        """Return the metrics of the validation part, computed from a table of the model's item embeddings."""
        recipe, parallel = self.recipe, self.catalogue.parallel
        dataset, split = self.catalogue.data.dataset, self.catalogue.data.split
        scorer = scorer_of(model, table, recipe, device=parallel.device)
        metrics = {}
        if model.ranker is not None:
            metrics = mean_ranker_metrics(
                ModelRanker(scorer), dataset, split, "validation", recipe.evaluation, group=parallel.group
            )
        if recipe.select_by in RANKING_METRICS:
            return metrics
        cutoff = int(recipe.select_by.partition("@")[2])
        return metrics | mean_metrics(
            ExactRetriever(scorer),
            dataset,
            split,
            "validation",
            also=cutoff,
            group=parallel.group,
            config=recipe.evaluation,
        )
