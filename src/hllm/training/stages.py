"""Stages: each is made ready when its turn comes, with its view of the model, loader, optimizer, average and alarm."""

# Proved by tests/training/test_training.py.

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import final

from hllm.batches.batch import SequenceBatch
from hllm.batches.loader import TrainingLoader
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.objective import Objective
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig
from hllm.runs.position import Position
from hllm.training.alarm import Alarm
from hllm.training.catalogue import Catalogue
from hllm.training.ema import MovingAverage
from hllm.training.optimizer import StageOptimizer, build_optimizer
from hllm.training.state import StageState


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe, ready to be trained."""

    config: StageConfig
    model: SequentialRecommender
    """A view of the model that is trained: its item tier may read vectors from memory."""
    objective: Objective
    loader: TrainingLoader
    optimizer: StageOptimizer
    average: MovingAverage | None
    alarm: Alarm

    @property
    def num_steps(self) -> int:
        """Return the number of optimizer steps in all epochs."""
        return self.config.epochs * self.loader.steps_per_epoch

    def steps_before(self, position: Position) -> int:
        """Return the number of the stage's steps that were taken before a position in it."""
        return position.epoch * self.loader.steps_per_epoch + position.step_in_epoch

    def steps(self, position: Position) -> Iterator[list[SequenceBatch]]:
        """Yield the batches of each step of the epoch from `position` on; none in a stage without epochs."""
        return self.loader.steps(position.epoch, position.step_in_epoch) if self.config.epochs else iter(())

    def is_over(self, position: Position) -> bool:
        """Return whether the epoch at `position`, with its validation, was the last one."""
        patience = self.config.early_stopping
        return is_last_epoch(self.config, position) or 0 < patience <= position.validations_since_best

    def set_training_mode(self) -> None:
        """Bring what learns into training mode."""
        self.model.train()
        if self.config.user_tier == "frozen":
            self.model.user_encoder.eval()

    def averaged(self) -> AbstractContextManager[None]:
        """Put the running mean of the weights, if there is one, into the model while inside."""
        return self.average.in_place() if self.average is not None else nullcontext()

    def finish(self) -> None:
        """Leave the weights that the stage has come to: their running mean, if there is one."""
        if self.average is not None:
            self.average.load_into_module()

    def state(self) -> StageState:
        """Return what the stage needs to go on from here."""
        memory = self.model.item_encoder.remembered
        return StageState(
            optimizer=self.optimizer.state(),
            average=self.average.state() if self.average is not None else None,
            memory={"memory": memory} if memory is not None else None,
        )


def is_last_epoch(config: StageConfig, position: Position) -> bool:
    """Return whether the stage has no epoch after the one at `position`."""
    return position.epoch + 1 >= config.epochs


def set_learning(model: SequentialRecommender, stage: StageConfig, learnable: frozenset[str]) -> None:
    """Let those of the `learnable` parameters learn that the stage does not freeze."""
    frozen: set[str] = set()
    if stage.item_tier == "frozen":
        frozen.add("item_llm")
    if stage.user_tier == "frozen":
        frozen |= {"user", "inputs"}
    for part, parameters in model.parts().items():
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in learnable and part not in frozen)


@final
class Stages:
    """The stages of a recipe, each made when its turn comes."""

    def __init__(
        self,
        model: SequentialRecommender,
        recipe: Recipe,
        catalogue: Catalogue,
        objective: Callable[[StageConfig], Objective],
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.catalogue = catalogue
        self.objective = objective
        self.learnable = frozenset(name for name, p in model.named_parameters() if p.requires_grad)

    def prepare(self, position: Position, state: StageState | None) -> Stage:
        """Return the stage at `position`, with the `state` that it had if it goes on in its middle."""
        config = self.recipe.stages[position.stage]
        set_learning(self.model, config, self.learnable)
        model = self.model
        if config.item_tier == "frozen":
            model = self.catalogue.frozen(model)
        elif config.reuse.on:
            kept = state.memory if state is not None else None
            model = self.catalogue.remembering(model, kept["memory"] if kept is not None else None)
        optimizer = build_optimizer(model, config)
        average = MovingAverage(model, config.ema) if config.ema else None
        if state is not None:
            optimizer.load(state.optimizer)
            if average is not None and state.average is not None:
                average.load(state.average)
        alarm = Alarm(position.skipped, position.collapsed, position.masked)
        return Stage(
            config, model, self.objective(config), self._loader(config, position.stage), optimizer, average, alarm
        )

    def _loader(self, config: StageConfig, number: int) -> TrainingLoader:
        data = self.catalogue.data
        return TrainingLoader(
            data.dataset,
            data.split,
            None if config.item_tier == "frozen" else data.tokens,
            self.recipe.batches_in(config),
            seed=self.recipe.seed,
            stage=number,
        )
