"""From two tables and a recipe to a finished run on disk; picks up a run that was stopped."""

# Proved by tests/training/test_training.py.

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hllm import artifacts
from hllm.data.build import build_dataset
from hllm.data.dataset import Dataset
from hllm.data.leak import doubts
from hllm.data.prompt import PromptConfig, render
from hllm.data.reading.tables import Table
from hllm.data.split import require_two_items, split_dataset
from hllm.data.texts import require_text
from hllm.data.tokens import TokenCache, token_cache
from hllm.distributed import Group, joined
from hllm.errors import ConfigError, DataError, HllmWarning, TrainingError
from hllm.evaluation.impressions import require_both_kinds
from hllm.metrics import RANKING_METRICS
from hllm.models.backbone.content import fingerprint_of_model
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.build import build_model
from hllm.models.checkpoint import ITEM_BACKBONE, load_grown
from hllm.objectives.objective import Objective
from hllm.objectives.terms import build_objective
from hllm.precision import choose_device
from hllm.random import stream
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig
from hllm.runs.position import Position
from hllm.runs.run import Listener, Run, StopTraining
from hllm.runs.tables import embed_catalogue
from hllm.sources.language_models import resolve_backbone
from hllm.training.loop import train
from hllm.training.parallel import Replicated
from hllm.training.tracking import TensorBoard
from hllm.training.training_data import TrainingData

Resume = Literal["auto", "never"]


def fit(
    interactions: Table,
    items: Table | None,
    recipe: Recipe,
    folder: Path,
    *,
    base: Path,
    resume: Resume = "auto",
    listeners: tuple[Listener, ...] = (),
) -> Run:
    """Train as the recipe says into `folder` and return the run; what is finished there is not done again.

    Relative paths in the recipe start at `base`. `resume` = "auto" goes on from the newest checkpoint that is not
    damaged; "never" raises ConfigError if there is one. `listeners` are told every event; one may raise StopTraining.
    Raises ConfigError if `folder` belongs to another recipe, DataError if it belongs to other data, TrainingError
    if training cannot go on, BusyError if another process trains there, and Stopped on SIGTERM or SIGINT, after saving.

    Processes that torchrun started train one model together, as one process would; only the first writes and is told.
    """
    run = Run(folder, listeners)
    with joined() as group, run.claimed(group):
        run.require_room_for(recipe)
        if recipe.parent is not None:
            raise ConfigError("this recipe goes on from another run (it has a [parent]): use hllm fine-tune")
        if resume == "never" and run.checkpoints():
            raise ConfigError(f'{folder} holds a run already, and resume is "never"; give another --out')
        position, _ = run.resume_point()
        dataset = build_dataset(interactions, items, recipe.data)
        trains = recipe.start is not None and position.stage < len(recipe.stages)
        start = recipe.start.folder(base) if recipe.start is not None and trains else None
        fit_dataset(run, position, dataset, recipe, base=base, group=group, start=start)
    return run


def fit_dataset(
    run: Run,
    position: Position,
    dataset: Dataset,
    recipe: Recipe,
    *,
    base: Path,
    group: Group,
    start: Path | None = None,
) -> None:
    """Do what is still to be done of a run, on a dataset that is built; `start` is a checkpoint to begin with."""
    vectors = None
    if position.stage < len(recipe.stages):
        vectors = _train(run, dataset, recipe, position, base, group, start)
    else:
        _begin(run, recipe, dataset, group)
    embed_catalogue(run, group, vectors)


def _train(
    run: Run, dataset: Dataset, recipe: Recipe, position: Position, base: Path, group: Group, start: Path | None
) -> Float[Tensor, "num_items dim"] | None:
    """Run the stages that are still to come, with the numbers in TensorBoard if the recipe wants them there.

    Return the item embeddings of the best checkpoint if the last validation was of it.
    """
    split = split_dataset(dataset, recipe.split)
    require_two_items(dataset, split)
    if group.first:
        for sentence in doubts(dataset, split, "validation", "test", seen_removed=recipe.evaluation.seen == "removed"):
            warnings.warn(sentence, HllmWarning, stacklevel=2)
    torch.manual_seed(int(stream(recipe.seed, "weights").integers(2**62)))
    items, actions = dataset.num_items, len(dataset.action_names)
    if start is None:
        model = build_model(recipe.model, num_items=items, num_actions=actions, base=base, fast=recipe.fast)
    else:
        model = load_grown(start, recipe.model, num_items=items, num_actions=actions, fast=recipe.fast)

    offered = int((~split.withheld(dataset)).sum())

    def objective(stage: StageConfig) -> Objective:
        sizes = {"num_items": offered, "dim": model.user_encoder.dim}
        return build_objective(stage.objective, stage.terms, **sizes)

    for stage in recipe.stages:
        objective(stage)  # a ConfigError if it does not fit the vectors
    if recipe.model.item.text_prompt is not None:
        require_text(dataset.text_cols, dataset.items)
    if recipe.model.ranking is not None and recipe.select_by in RANKING_METRICS:
        require_both_kinds(dataset, split, "validation", recipe.model.ranking.names)
    if model.reads_times:
        seconds = dataset.seconds  # a DataError if the times only order
        if model.fusion is not None:
            model.fusion.require_known_years(seconds)
    backbones = {} if start is not None else _backbones(run, recipe, position, base)
    _begin(run, recipe, dataset, group)  # only now: what is wrong with the recipe has shown itself
    tokenizer, tokens = None, None
    prompt, reader = recipe.model.item.text_prompt, recipe.model.item.language_model
    if prompt is not None and reader is not None:
        tokenizer = resolve_backbone(reader.backbone, base) if start is None else start / ITEM_BACKBONE
        with group.one_by_one():  # the first makes them, the others find them
            tokens = catalogue_tokens(run, dataset, prompt, tokenizer)

    with_board = recipe.tracking.tensorboard and group.first
    board = TensorBoard(run.folder / "tensorboard", step=position.step) if with_board else None
    board_run = run if board is None else Run(run.folder, (*run.listeners, board.write))
    data, parallel = TrainingData(dataset, split, tokens, tokenizer, backbones), Replicated(group, choose_device())
    try:
        return train(model, recipe, data, objective, board_run, parallel, fresh=start is None)
    except StopTraining as stopped:
        if not run.has_best:
            raise TrainingError(f"stopped before the first validation: {stopped}") from None
        return None
    finally:
        if board is not None:
            board.close()


def _backbones(run: Run, recipe: Recipe, position: Position, base: Path) -> dict[str, str]:
    """Return the content of each tier's language model; ConfigError if the run was begun with another one."""
    tiers, begun = {"item": recipe.model.item, "user": recipe.model.user}, {}
    if (checkpoint := run.checkpoint(position.step)).exists():
        begun = artifacts.read_manifest(checkpoint, "checkpoint").details.get("backbones", {})
    backbones = {}
    for name, tier in tiers.items():
        if tier.language_model is not None:
            folder = resolve_backbone(tier.language_model.backbone, base)
            backbones[name] = fingerprint_of_model(folder)
            if begun.get(name, backbones[name]) != backbones[name]:
                raise ConfigError(
                    f"{run.folder} was begun with another {name} language model than the one that is in {folder} now: "
                    "its settings, tokenizer or weights differ; restore that one, or give another --out"
                )
    return backbones


def catalogue_tokens(run: Run, dataset: Dataset, prompt: PromptConfig, tokenizer: Path) -> TokenCache:
    """Return the token cache of the catalogue, made if need be."""
    tokenize, fingerprint = load_tokenizer(tokenizer, prompt.max_tokens, cut_closing=prompt.cut_closing)
    texts = render(dataset.items, dataset.text_cols, prompt)
    return token_cache(run.tokens_path, texts, tokenize, tokenizer=fingerprint)


def _begin(run: Run, recipe: Recipe, dataset: Dataset, group: Group) -> None:
    """Put recipe and dataset into the run; DataError if it has been trained on other data."""
    if run.checkpoints():
        digest = artifacts.verify(run.dataset_path, "dataset").details["fingerprint"]
        if digest != dataset.fingerprint:
            raise DataError(
                f"{run.folder} was begun on other data (fingerprint {digest[:12]}…, now {dataset.fingerprint[:12]}…); "
                "give another --out, or remove that directory"
            )
        if group.first and run.recipe_fingerprint == recipe.fingerprint and run.read_recipe() != recipe:
            run.write_recipe(recipe)  # other prose, or other places
        return
    group.wait()
    if group.first:
        run.write_recipe(recipe)
        dataset.save(run.dataset_path)
    group.wait()


def recipe_from(recipe: Recipe | Path | str, overrides: Sequence[str] = ()) -> tuple[Recipe, Path]:
    """Return a recipe and the folder that its relative paths start at: the file's own, or the working folder."""
    if isinstance(recipe, Recipe):
        return recipe, Path.cwd()
    path = Path(recipe)
    return Recipe.from_toml(path, overrides), path.parent.resolve()
