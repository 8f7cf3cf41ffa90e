"""The training loop: stages, epochs, steps, validations; resumed anywhere as if it had not stopped.

What a step does is a pure function of the weights, the optimizer's state and the position: the order of the
windows, the negatives and the random numbers of dropout are drawn from streams named by seed, stage, epoch and
step. So a checkpoint needs no random state, and may be written between any two steps.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hllm.batches.batch import SequenceBatch
from hllm.batches.loader import TrainingLoader
from hllm.batches.points import PointSampler, points_of
from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.data.tokens import TokenCache
from hllm.distributed import Group
from hllm.errors import Stopped, TrainingError
from hllm.evaluation.evaluate import mean_metrics
from hllm.evaluation.impressions import mean_ranker_metrics
from hllm.models.backbone.compiled import compile_layers
from hllm.models.checkpoint import load_weights, save_checkpoint
from hllm.models.item.remembered import RememberingItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.objective import Objective, Outcome
from hllm.precision import autocast, resolve_precision
from hllm.progress import Progress, progress
from hllm.random import stream
from hllm.ranking.ranker import ModelRanker
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import RANKING_METRICS, StageConfig
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.scorer import ModelScorer
from hllm.runs.position import Position
from hllm.runs.run import Run
from hllm.training.alarm import Alarm
from hllm.training.catalogue import Catalogue
from hllm.training.ema import MovingAverage
from hllm.training.optimizer import StageOptimizer, build_optimizer
from hllm.training.spread import effective_rank, mean_cosine
from hllm.training.stages import set_learning
from hllm.training.step import accumulate, cached
from hllm.training.stopping import Stopping, stopping

_RANK_EVERY = 50  # steps; the effective rank costs a cube of the embeddings' width
_OPTIMIZER, _AVERAGE, _MEMORY = "optimizer.safetensors", "average.safetensors", "item-memory.safetensors"


@dataclass(frozen=True)
class _Stage:
    """What one stage trains, and with what."""

    number: int
    config: StageConfig
    model: SequentialRecommender
    objective: Objective
    loader: TrainingLoader
    optimizer: StageOptimizer
    average: MovingAverage | None
    alarm: Alarm


class Trainer:
    """Trains one run, stage by stage."""

    def __init__(
        self,
        model: SequentialRecommender,
        recipe: Recipe,
        dataset: Dataset,
        split: Split,
        tokens: TokenCache | None,
        tokenizer: Path | None,
        objective: Callable[[StageConfig], Objective],
        run: Run,
        device: torch.device,
        group: Group,
        *,
        fresh: bool = True,
    ) -> None:
        """`fresh` says that the model has not been trained before, as part of another run."""
        self.model = model
        self.recipe = recipe
        self.dataset = dataset
        self.split = split
        self.catalogue = Catalogue(dataset, tokens, device=device, precision=recipe.precision, group=group)
        self.tokenizer = tokenizer
        self.objective = objective
        self.run = run
        self.device = device
        self.group = group
        self.fresh = fresh
        self.autocast = partial(autocast, resolve_precision(recipe.precision, device), device)
        self.trainable = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
        self.position = Position()
        self.stop = Stopping()
        self.saved_s = 0.0
        self.best_items: Tensor | None = None
        """The item embeddings of the best checkpoint; dropped where training goes on, as they take much memory."""

    def train(self) -> None:
        """Run every stage from where the run stands; the best validation checkpoint is kept beside the last ones.

        On SIGTERM or SIGINT the steps that are finished are saved, and Stopped is raised.
        """
        self.model.to(self.device)
        if self.recipe.compile:
            compile_layers(self.model, self.device)
        with self.group.one_by_one():
            self.position, checkpoint = self.run.resume_point()
        if self.group.first:
            self.run.set_aside_after(self.position)
            self.run.forget_after(self.position)
        if checkpoint is not None:
            load_weights(self.model, checkpoint)
        elif self.fresh:
            self.catalogue.fit_whitening(self.model, self.split)
        with self.group.one_by_one():
            lost = self.position.best >= 0 and not self.run.best_is_good()
        if lost:
            self._move(best=-1.0)
        with stopping() as self.stop:
            stage = None
            try:
                while self.position.stage < len(self.recipe.stages):
                    stage = None  # what was finished is saved already
                    with self._stopped_at_once():
                        stage = self._prepare_stage(checkpoint)
                    self._train_stage(stage)
                    checkpoint = None
                self._check_stop()
            except Stopped as stop:
                if stage is not None and stage.number == self.position.stage:
                    self._save_to_resume(stage)
                raise Stopped(stop.signal_number, f"{stop}; step {self.position.step:,} is saved in "
                              f"{self.run.folder}: the same command goes on from there") from None  # fmt: skip

    def _prepare_stage(self, checkpoint: Path | None) -> _Stage:
        """Build what the stage needs, from `checkpoint` if it goes on in the middle."""
        number, recipe = self.position.stage, self.recipe
        config = recipe.stages[number]
        inside = self.position.epoch > 0 or self.position.step_in_epoch > 0
        set_learning(self.model, config, self.trainable)
        model = self.model
        if config.item_tier == "frozen":
            model = self.catalogue.frozen(model)
        elif config.reuse.on:
            kept = load_file(checkpoint / _MEMORY)["memory"] if inside and checkpoint is not None else None
            model = self.catalogue.remembering(model, kept)
        loader = TrainingLoader(
            self.dataset,
            self.split,
            None if config.item_tier == "frozen" else self.catalogue.tokens,
            windows=recipe.windows_in(config),
            batch_size=config.batch_size,
            micro_batch_size=None if config.gradient_cache else config.micro_batch_size,
            negatives=config.negatives,
            seed=recipe.seed,
            stage=number,
            points=self._points(config),
            reuse=config.reuse,
        )
        optimizer = build_optimizer(model, config)
        average = MovingAverage(model, config.ema) if config.ema else None
        if inside and checkpoint is not None:
            optimizer.load(checkpoint / _OPTIMIZER)
            if average is not None:
                average.load(load_file(checkpoint / _AVERAGE))
        alarm = Alarm(self.position.skipped, self.position.collapsed, self.position.masked)
        return _Stage(number, config, model, self.objective(config), loader, optimizer, average, alarm)

    def _train_stage(self, stage: _Stage) -> None:
        config, steps = stage.config, stage.loader.steps_per_epoch
        with progress(config.name, config.epochs * steps) as advance:
            advance(self.position.epoch * steps + self.position.step_in_epoch)
            finished = config.epochs == 0
            if finished:
                self._validate(stage)
            while not finished:
                self._train_epoch(stage, advance)
                epochs = self.position.epoch + 1
                finished = epochs == config.epochs
                if config.validate_every and (finished or epochs % config.validate_every == 0):
                    self._validate(stage)
                    patience = config.early_stopping
                    finished |= 0 < patience <= self.position.validations_since_best
                if not finished:
                    self._move(epoch=epochs, step_in_epoch=0)
                    self._save_to_resume(stage)
        if stage.average is not None:
            stage.average.load_into_module()
        following = self.recipe.stages[stage.number + 1 :]
        if following and following[0].start == "best":
            load_weights(self.model, self.run.best_path)  # before saving: the next stage may come to replace the best
            self.catalogue.forget()
        self._move(
            stage=stage.number + 1, epoch=0, step_in_epoch=0, validations_since_best=0, skipped=0, collapsed=0, masked=0
        )
        self._save_to_resume(None)

    def _train_epoch(self, stage: _Stage, advance: Progress) -> None:
        """Take the steps of the epoch that are still to come."""
        self.best_items = None
        if stage.config.item_tier == "train":
            self.catalogue.forget()
        stage.model.train()
        if stage.config.user_tier == "frozen":
            stage.model.user_encoder.eval()
        every = self.recipe.checkpoints
        start, before, items_done, tokens_done = time.monotonic(), self.position.elapsed_s, 0, 0
        self.saved_s = before
        for batches in stage.loader.steps(self.position.epoch, self.position.step_in_epoch):
            self._check_stop()
            numbers = self._step(stage, batches)
            items_done += sum(len(batch.items) for batch in batches)
            tokens_done += sum(int(batch.items.lengths.sum()) for batch in batches)
            seconds = time.monotonic() - start
            self._move(
                step_in_epoch=self.position.step_in_epoch + 1, step=self.position.step + 1, elapsed_s=before + seconds
            )
            numbers |= {"items_per_s": items_done / seconds, "tokens_per_s": tokens_done / seconds}
            self._log("step", stage, numbers)
            read = f", {numbers['tokens_per_s']:,.0f} tokens/s" if tokens_done else ""
            advance(1, f"loss {numbers['loss']:.3f}, {numbers['items_per_s']:,.0f} items/s{read}")
            due = every.every_steps is not None and self.position.step % every.every_steps == 0
            if due or self._any(self.position.elapsed_s - self.saved_s >= every.every_s):
                self._save_to_resume(stage)
        self._check_stop()

    def _check_stop(self) -> None:
        """Raise Stopped if a signal has come; of several processes, all after the same step."""
        (self.stop.signal,) = (number or None for number in self.group.highest(self.stop.signal or 0))
        self.stop.check()

    def _stopped_at_once(self) -> AbstractContextManager[None]:
        """Let a signal interrupt what runs inside; not where other processes would wait for this one in vain."""
        return self.stop.at_once() if self.group.size == 1 else nullcontext()

    def _any(self, here: bool) -> bool:
        return bool(self.group.highest(int(here))[0])

    def _step(self, stage: _Stage, batches: list[SequenceBatch]) -> dict[str, Any]:
        """Take one optimizer step, unless its gradient is not finite; return its numbers."""
        config, place = stage.config, self.position
        names = ("dropout", stage.number, place.epoch, place.step_in_epoch)
        own = (self.group.rank,) if self.group.size > 1 else ()
        torch.manual_seed(int(stream(self.recipe.seed, *names, *own).integers(2**62)))
        steps = stage.loader.steps_per_epoch
        stage.optimizer.set_rates(config, place.epoch * steps + place.step_in_epoch, config.epochs * steps)
        outcome, items = self._gradients(stage, [batch.to(self.device) for batch in batches])
        norm = nn.utils.clip_grad_norm_(stage.model.parameters(), config.max_gradient_norm)
        logged = {**outcome.numbers, "scale": stage.model.scale.detach(), "mean_cosine": mean_cosine(items)}
        fetched = torch.stack([value.double() for value in (outcome.loss, norm, *logged.values())])  # waits once
        loss, norm, *values = fetched.tolist()
        numbers, step = dict(zip(logged, values, strict=True)), place.step + 1
        if stage.alarm.is_finite(step, loss, norm):
            with self.autocast():
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
        self._move(skipped=stage.alarm.skipped, collapsed=stage.alarm.collapsed, masked=stage.alarm.masked)
        stage.optimizer.zero_grad()
        rates = {"learning_rate": stage.optimizer.parts[0].param_groups[-1]["lr"]}
        return {"loss": loss, "gradient_norm": norm} | rates | numbers

    def _gradients(self, stage: _Stage, batches: list[SequenceBatch]) -> tuple[Outcome, Tensor]:
        context = self.autocast
        between = self.stop.check if self.group.size == 1 else _nothing
        size = stage.config.micro_batch_size
        if not stage.config.gradient_cache or size is None:
            return accumulate(stage.model, stage.objective, batches, context, between=between, group=self.group)
        (batch,) = batches
        return cached(stage.model, stage.objective, batch, context, size=size, between=between, group=self.group)

    def _validate(self, stage: _Stage) -> None:
        """Embed the catalogue and rank it for the validation targets, by the code that serves; keep the best."""
        start, before = time.monotonic(), self.position.elapsed_s
        with stage.average.in_place() if stage.average is not None else torch.no_grad():
            with self._stopped_at_once():
                stage.model.eval()
                table = self.catalogue.embeddings(stage.model.item_encoder)
                metrics = self._metrics(stage, table)
            if self.recipe.select_by not in metrics:
                raise TrainingError(
                    f"the validation has no {self.recipe.select_by}: no user has impressions with label 1 and with 0; "
                    'set select_by = "auc", or a split with several targets of each user (split.targets = "all")'
                )
            value = metrics[self.recipe.select_by]
            since = 0 if value > self.position.best else self.position.validations_since_best + 1
            seconds = before + time.monotonic() - start
            self._move(best=max(self.position.best, value), validations_since_best=since, elapsed_s=seconds)
            self._log("validation", stage, metrics)
            if since == 0:
                self._save(self.run.best_path, metrics, None)
                self.best_items = table
        if stage.average is not None and stage.config.item_tier == "train":
            self.catalogue.forget()  # it was of the averaged weights

    def _metrics(self, stage: _Stage, table: Tensor) -> dict[str, float]:
        if not bool(torch.isfinite(table).all()):
            raise TrainingError("the item embeddings are no longer finite: lower learning_rate")
        scorer = ModelScorer(
            stage.model, table,
            max_history=self.recipe.model.max_history, device=self.device, precision=self.recipe.precision,
        )  # fmt: skip
        metrics = {}
        if self.model.ranker is not None:
            ranker, config = ModelRanker(scorer), self.recipe.evaluation
            metrics = mean_ranker_metrics(ranker, self.dataset, self.split, "validation", config, group=self.group)
        if self.recipe.select_by in RANKING_METRICS:
            return metrics
        cutoff = int(self.recipe.select_by.partition("@")[2])
        return metrics | mean_metrics(
            ExactRetriever(scorer), self.dataset, self.split, "validation", also=cutoff, group=self.group
        )

    def _points(self, config: StageConfig) -> PointSampler | None:
        """Return what draws the points of a ranking stage."""
        if config.objective != "ranking":
            return None
        assert self.recipe.model.ranking is not None, "the recipe has seen to it"
        return points_of(config.ranking, self.dataset, self.split, self.recipe.model.ranking.targets)

    def _move(self, **changed: int | float) -> None:
        self.position = self.position.model_copy(update=changed)

    def _log(self, event: str, stage: _Stage, numbers: dict[str, Any]) -> None:
        if not self.group.first:
            return
        place = {"event": event, "stage": stage.number, "epoch": self.position.epoch, "step": self.position.step}
        self.run.log(place | {"elapsed_s": self.position.elapsed_s} | numbers)

    def _save_to_resume(self, stage: _Stage | None) -> None:
        """Write a checkpoint to go on from, with the state of the stage that it is in the middle of."""
        self._save(self.run.checkpoint(self.position.step), {}, stage)
        if self.group.first:
            self.run.forget_checkpoints(self.recipe.checkpoints.keep)
        self.saved_s = self.position.elapsed_s

    def _save(self, path: Path, metrics: dict[str, float], stage: _Stage | None) -> None:
        def extra_files(folder: Path) -> None:
            if stage is not None:
                stage.optimizer.save(folder / _OPTIMIZER)
                if stage.average is not None:
                    save_file({k: v.contiguous().cpu() for k, v in stage.average.state().items()}, folder / _AVERAGE)
                if isinstance(stage.model.item_encoder, RememberingItemEncoder):
                    save_file({"memory": stage.model.item_encoder.memory.cpu()}, folder / _MEMORY)

        if self.group.first:
            self._write(path, metrics, extra_files)
        self.group.wait()

    def _write(self, path: Path, metrics: dict[str, float], extra_files: Callable[[Path], None]) -> None:
        save_checkpoint(
            path,
            self.model,
            self.recipe.model,
            num_items=self.dataset.num_items,
            num_actions=len(self.dataset.action_names),
            tokenizer=self.tokenizer,
            details={
                "position": self.position.model_dump(),
                "validation": metrics,
                "dataset": self.dataset.fingerprint,
                "recipe": self.run.recipe_fingerprint,
            },
            extra_files=extra_files,
        )


def _nothing() -> None:
    """Do nothing between the parts of a step: several processes stop together, after it."""
