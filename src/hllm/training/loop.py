"""The training loop: stages, epochs, steps; validation and a checkpoint after every epoch."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from hllm.data.dataset import Dataset
from hllm.data.loader import TrainingLoader
from hllm.data.split import Split
from hllm.data.tokens import TokenCache
from hllm.embedding.encode import encode_catalogue
from hllm.errors import TrainingError
from hllm.evaluation.evaluate import mean_metrics
from hllm.models.checkpoint import load_weights, save_checkpoint
from hllm.models.item.cached import CachedItemEncoder
from hllm.models.item.text import TextItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.objective import Objective
from hllm.precision import autocast, resolve_precision
from hllm.progress import Progress, progress
from hllm.random import stream
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.model import ModelScorer
from hllm.training.alarm import CollapseAlarm
from hllm.training.optimizer import build_optimizer, load_optimizer, save_optimizer
from hllm.training.recipe import Recipe, StageConfig
from hllm.training.run import Position, Run

SELECT_BY = "ndcg@10"


@dataclass(frozen=True)
class _Stage:
    """What one stage trains, and with what."""

    number: int
    config: StageConfig
    model: SequentialRecommender
    loader: TrainingLoader
    optimizer: torch.optim.AdamW
    schedule: torch.optim.lr_scheduler.LRScheduler
    alarm: CollapseAlarm


@dataclass(frozen=True)
class Trainer:
    """What stays the same over all stages of one run."""

    model: SequentialRecommender
    recipe: Recipe
    dataset: Dataset
    split: Split
    tokens: TokenCache | None
    tokenizer: Path | None
    objective: Objective
    run: Run
    device: torch.device

    def train(self) -> None:
        """Run every stage from where the run stands; the best validation checkpoint is kept beside the last."""
        self.model.to(self.device)
        position = self.run.position()
        self.run.forget_after(position.step)
        if position.step:
            load_weights(self.model, self.run.last)
        else:
            self._fit_whitening()
        for number in range(position.stage, len(self.recipe.stages)):
            position = self._train_stage(number, position)

    def _train_stage(self, number: int, position: Position) -> Position:
        stage = self._prepare_stage(number, position)
        done = position.epoch * stage.loader.steps_per_epoch
        with progress(stage.config.name, stage.config.epochs * stage.loader.steps_per_epoch) as advance:
            advance(done)
            for epoch in range(position.epoch, stage.config.epochs):
                start = time.monotonic()
                self._train_epoch(stage, epoch, position, advance)
                metrics = self._validate(stage.model)
                finished = epoch + 1 == stage.config.epochs
                position = Position(
                    stage=number + finished,
                    epoch=0 if finished else epoch + 1,
                    step=position.step + stage.loader.steps_per_epoch,
                    elapsed_s=position.elapsed_s + time.monotonic() - start,
                    best=max(position.best, metrics[SELECT_BY]),
                )
                event = {"event": "validation", "stage": number, "epoch": epoch, "step": position.step}
                self.run.log(event | {"elapsed_s": position.elapsed_s} | metrics)
                if metrics[SELECT_BY] == position.best:
                    self._save(self.run.best, position, metrics, None)
                self._save(self.run.last, position, metrics, None if finished else stage.optimizer)
        return position

    def _prepare_stage(self, number: int, position: Position) -> _Stage:
        config = self.recipe.stages[number]
        frozen = config.item_tier == "frozen"
        model = self._frozen_items() if frozen else self.model
        loader = TrainingLoader(
            self.dataset,
            self.split,
            None if frozen else self.tokens,
            windows=self.recipe.model,
            batch_size=config.batch_size,
            negatives=config.negatives,
            seed=self.recipe.seed,
            stage=number,
        )
        steps, done = (epochs * loader.steps_per_epoch for epochs in (config.epochs, position.epoch))
        optimizer, schedule = build_optimizer(model, config, steps, steps_done=done)
        if position.epoch:
            load_optimizer(optimizer, self.run.last / "optimizer.safetensors")
        return _Stage(number, config, model, loader, optimizer, schedule, CollapseAlarm())

    def _train_epoch(self, stage: _Stage, epoch: int, position: Position, advance: Progress) -> None:
        torch.manual_seed(int(stream(self.recipe.seed, "dropout", stage.number, epoch).integers(2**62)))
        stage.model.train()
        precision = resolve_precision(self.recipe.precision, self.device)
        start, items_done, tokens_done = time.monotonic(), 0, 0
        for step, (batch,) in enumerate(stage.loader.steps(epoch), start=position.step + 1):
            batch = batch.to(self.device)
            with autocast(precision, self.device):
                outcome = self.objective(stage.model, stage.model.item_encoder(batch.items), batch)
            stage.optimizer.zero_grad()
            outcome.loss.backward()
            norm = float(nn.utils.clip_grad_norm_(stage.model.parameters(), stage.config.max_gradient_norm))
            loss = float(outcome.loss.detach())
            numbers = {name: float(value) for name, value in outcome.numbers.items()}
            stage.alarm.check(step, loss, norm, numbers["mean_cosine"], numbers["masked_negatives"])
            stage.optimizer.step()
            stage.model.clamp_scale()
            stage.schedule.step()

            items_done += len(batch.items)
            tokens_done += int(batch.items.lengths.sum())
            seconds = time.monotonic() - start
            rates = {"items_per_s": items_done / seconds, "tokens_per_s": tokens_done / seconds}
            event = {"event": "step", "stage": stage.number, "epoch": epoch, "step": step}
            event |= {"elapsed_s": position.elapsed_s + seconds, "loss": loss, "gradient_norm": norm}
            self.run.log(event | {"learning_rate": stage.schedule.get_last_lr()[-1]} | numbers | rates)
            read = f", {rates['tokens_per_s']:,.0f} tokens/s" if tokens_done else ""
            advance(1, f"loss {loss:.3f}, {rates['items_per_s']:,.0f} items/s{read}")

    def _validate(self, model: SequentialRecommender) -> dict[str, float]:
        """Embed the catalogue and rank it for the validation targets, by the code that serves."""
        model.eval()
        table = encode_catalogue(
            model.item_encoder, self.dataset.num_items, self.tokens,
            device=self.device, precision=self.recipe.precision, label="validate",
        )  # fmt: skip
        if not bool(torch.isfinite(table).all()):
            raise TrainingError("the item embeddings are no longer finite: lower learning_rate")
        scorer = ModelScorer(
            model,
            table,
            max_history=self.recipe.model.max_history,
            device=self.device,
            precision=self.recipe.precision,
        )
        return mean_metrics(ExactRetriever(scorer), self.dataset, self.split, "validation")

    def _pooled(self, encoder: TextItemEncoder) -> torch.Tensor:
        encoder.eval()
        return encode_catalogue(
            encoder.pool, self.dataset.num_items, self.tokens,
            device=self.device, precision=self.recipe.precision, label="encode items once",
        )  # fmt: skip

    def _fit_whitening(self) -> None:
        encoder = self.model.item_encoder
        if isinstance(encoder, TextItemEncoder) and encoder.projector is not None and encoder.projector.whiten:
            encoder.projector.fit_whitening(self._pooled(encoder))

    def _frozen_items(self) -> SequentialRecommender:
        """Return the same model with its language model replaced by the vectors it gives now."""
        encoder = self.model.item_encoder
        if not isinstance(encoder, TextItemEncoder):
            return self.model
        return self.model.with_items(CachedItemEncoder(encoder, self._pooled(encoder))).to(self.device)

    def _save(
        self, path: Path, position: Position, metrics: dict[str, float], optimizer: torch.optim.AdamW | None
    ) -> None:
        def extra_files(folder: Path) -> None:
            if optimizer is not None:
                save_optimizer(optimizer, folder / "optimizer.safetensors")

        save_checkpoint(
            path,
            self.model,
            self.recipe.model,
            num_items=self.dataset.num_items,
            num_actions=len(self.dataset.action_names),
            tokenizer=self.tokenizer,
            details={
                "position": position.model_dump(),
                "validation": metrics,
                "dataset": self.dataset.fingerprint,
                "recipe": self.recipe.fingerprint,
            },
            extra_files=extra_files,
        )
