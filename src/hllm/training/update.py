"""One optimizer step: its random numbers, its gradients, the change of the weights, and its numbers for the log."""

# Proved by tests/training/test_step.py.

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from hllm.batches.batch import SequenceBatch
from hllm.objectives.objective import Outcome
from hllm.precision import autocast, resolve_precision
from hllm.random import stream
from hllm.recipe.recipe import Recipe
from hllm.runs.position import Position
from hllm.training.parallel import Parallel
from hllm.training.spread import effective_rank, mean_cosine
from hllm.training.stages import Stage
from hllm.training.step import accumulate, cached

_RANK_EVERY = 50  # steps; the effective rank costs a cube of the embeddings' width


@final
class Updates:
    """The optimizer steps of a run; `between` is called between the parts of each."""

    def __init__(self, recipe: Recipe, parallel: Parallel, between: Callable[[], None]) -> None:
        self.seed = recipe.seed
        self.parallel = parallel
        self.between = between
        self.precision = resolve_precision(recipe.precision, parallel.device)

    def take(self, stage: Stage, position: Position, batches: list[SequenceBatch]) -> dict[str, Any]:
        """Take the step at `position`, unless its gradient is not finite; return its numbers."""
        self._seed(position)
        done, step = stage.steps_before(position), position.step + 1
        stage.optimizer.set_rates(stage.config, done, stage.num_steps)
        outcome, items = self._gradients(stage, [batch.to(self.parallel.device) for batch in batches])
        norm = self.parallel.clip(stage.model.parameters(), stage.config.max_gradient_norm)
        logged = {**outcome.numbers, "scale": stage.model.scale.detach(), "mean_cosine": mean_cosine(items)}
        fetched = torch.stack([value.double() for value in (outcome.loss, norm, *logged.values())])  # waits once
        loss, length, *values = fetched.tolist()
        numbers = dict(zip(logged, values, strict=True))
        if stage.alarm.is_finite(step, loss, length):
            with self._autocast():
                stage.optimizer.step()
            stage.model.clamp_scale()
            if stage.average is not None:
                stage.average.update()
            if step % _RANK_EVERY == 0:
                numbers["effective_rank"] = float(effective_rank(items))
            stage.alarm.check_spread(step, numbers["mean_cosine"], numbers.get("effective_rank"))
            stage.alarm.check_masked(step, numbers["masked_negatives"])
            if stage.alarm.is_spike(loss):
                numbers["spike"] = True
        else:
            numbers["skipped"] = True
        stage.optimizer.zero_grad()
        rates = {"learning_rate": stage.optimizer.parts[0].param_groups[-1]["lr"]}
        return {"loss": loss, "gradient_norm": length} | rates | numbers

    def _seed(self, position: Position) -> None:
        """Seed the random numbers of dropout for the step; each process draws its own."""
        group = self.parallel.group
        own = (group.rank,) if group.size > 1 else ()
        names = ("dropout", position.stage, position.epoch, position.step_in_epoch, *own)
        torch.manual_seed(int(stream(self.seed, *names).integers(2**62)))

    def _gradients(self, stage: Stage, batches: list[SequenceBatch]) -> tuple[Outcome, Float[Tensor, "item dim"]]:
        model, objective, size = stage.model, stage.objective, stage.config.micro_batch_size
        context, between, parallel = self._autocast, self.between, self.parallel
        if not stage.config.gradient_cache or size is None:
            return accumulate(model, objective, batches, context, between=between, parallel=parallel)
        (batch,) = batches
        return cached(model, objective, batch, context, size=size, between=between, parallel=parallel)

    def _autocast(self) -> AbstractContextManager[object]:
        return autocast(self.precision, self.parallel.device)


@final
class Pace:
    """Seconds since training was taken up, and the items and tokens of the steps since then."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.items = 0
        self.tokens = 0

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.start

    def after(self, batches: list[SequenceBatch]) -> dict[str, float]:
        """Count a step; return the items and tokens per second of all steps."""
        self.items += sum(len(batch.items) for batch in batches)
        self.tokens += sum(int(batch.items.lengths.sum()) for batch in batches)
        seconds = self.seconds
        return {"items_per_s": self.items / seconds, "tokens_per_s": self.tokens / seconds}

    def figures(self, numbers: dict[str, Any]) -> str:
        """Return the numbers of a step that progress shows."""
        read = f", {numbers['tokens_per_s']:,.0f} tokens/s" if self.tokens else ""
        return f"loss {numbers['loss']:.3f}, {numbers['items_per_s']:,.0f} items/s{read}"
