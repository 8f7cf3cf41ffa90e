"""The training loop: stages, epochs, steps, validations; resumed anywhere as if it had not stopped.

A step is a pure function of the weights, the optimizer's state and the position: the order of the windows, the
negatives and the random numbers of dropout are drawn from streams named by seed, stage, epoch and step. So a
checkpoint needs no random state, and may be written between any two steps.
"""

# Proved by tests/training/test_training.py, tests/training/test_resume.py.

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from jaxtyping import Float
from torch import Tensor

from hllm.distributed import Group
from hllm.errors import Stopped
from hllm.models.backbone.compiled import compile_layers
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.objective import Objective
from hllm.progress import progress
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig
from hllm.runs.position import Position
from hllm.runs.run import Run
from hllm.training.catalogue import Catalogue
from hllm.training.parallel import Parallel
from hllm.training.stages import Stage, Stages
from hllm.training.state import Checkpoints, StageState
from hllm.training.stopping import stopping
from hllm.training.training_data import TrainingData
from hllm.training.update import Pace, Updates
from hllm.training.validation import Validation


def train(
    model: SequentialRecommender,
    recipe: Recipe,
    data: TrainingData,
    objective: Callable[[StageConfig], Objective],
    run: Run,
    parallel: Parallel,
    *,
    fresh: bool = True,
) -> Float[Tensor, "num_items dim"] | None:
    """Train every stage from where the run stands; the best validation's checkpoint is kept beside the last ones.

    Return the item embeddings of the best checkpoint; None if the last validation was of another one.
    `fresh` says that the model has not been trained before, as part of another run. On SIGTERM or SIGINT the finished
    steps are saved, and Stopped is raised.
    """
    model = parallel.wrap(model)
    if recipe.compile:
        compile_layers(model, parallel.device)
    catalogue = Catalogue(data, recipe.precision, parallel)
    stages = Stages(model, recipe, catalogue, objective)
    validation = Validation(recipe, catalogue)
    checkpoints = Checkpoints(model, recipe, data, run, parallel)

    position, checkpoint = checkpoints.resume()
    if checkpoint is None and fresh:
        catalogue.fit_whitening(model)
    stage: Stage | None = None
    best_items: Float[Tensor, "num_items dim"] | None = None

    with stopping(parallel.group) as stop, ExitStack() as bar:
        updates = Updates(recipe, parallel, between=stop.between_parts)
        try:
            while position.stage < len(recipe.stages):
                # A new stage, or the rest of one.
                if stage is None:
                    with stop.at_once():
                        state = StageState.load(checkpoint) if checkpoint and position.is_inside_stage else None
                        stage = stages.prepare(position, state)
                        checkpoint = state = None
                    advance = bar.enter_context(progress(stage.config.name, stage.num_steps))
                    advance(stage.steps_before(position))

                # The epoch's steps that are still to come.
                stage.set_training_mode()
                pace, before = Pace(), position.elapsed_s
                for batches in stage.steps(position):
                    stop.check()
                    best_items = None  # they take much memory, and the next validation makes its own
                    numbers = updates.take(stage, position, batches)
                    numbers |= pace.after(batches)
                    position = position.moved(
                        step=position.step + 1,
                        step_in_epoch=position.step_in_epoch + 1,
                        elapsed_s=before + pace.seconds,
                        **stage.alarm.counts,
                    )
                    _log("step", position, numbers, run, parallel.group)
                    advance(1, pace.figures(numbers))
                    if checkpoints.due(position):
                        checkpoints.save(position, stage.state())
                stop.check()

                # Once in a while: how good is it, and is it the best?
                if validation.due(position):
                    pace, before = Pace(), position.elapsed_s
                    with stage.averaged():
                        with stop.at_once():
                            metrics, table = validation.score(stage.model)
                        position = validation.judge(position, metrics).moved(elapsed_s=before + pace.seconds)
                        _log("validation", position, metrics, run, parallel.group)
                        if position.validations_since_best == 0:
                            checkpoints.save_best(position, metrics)
                            best_items = table

                # The next epoch.
                if not stage.is_over(position):
                    position = position.moved(epoch=position.epoch + 1, step_in_epoch=0)
                    checkpoints.save(position, stage.state())
                    continue

                # The next stage.
                stage.finish()
                following = recipe.stages[position.stage + 1 :]
                if following and following[0].start == "best":
                    checkpoints.load_best()  # before saving: the next stage may come to replace the best
                position, stage = position.next_stage(), None
                checkpoints.save(position, None)
                bar.close()
            stop.check()
        except Stopped as stopped:
            if stage is not None:
                checkpoints.save(position, stage.state())
            raise Stopped(
                stopped.signal_number,
                f"{stopped}; step {position.step:,} is saved in {run.folder}: the same command goes on from there",
            ) from None
    return best_items


def _log(event: str, position: Position, numbers: dict[str, Any], run: Run, group: Group) -> None:
    if group.first:
        place = {"event": event, "stage": position.stage, "epoch": position.epoch, "step": position.step}
        run.log(place | {"elapsed_s": position.elapsed_s} | numbers)
