"""`hllm import-checkpoint` turns published weights into a run, or into a checkpoint to start with."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hllm.cli.allocator import keep_freed_memory
from hllm.cli.options import JSON, overrides_option
from hllm.cli.show import echo, next_steps, show_json
from hllm.errors import ConfigError

if TYPE_CHECKING:
    from hllm.models.published.weights import ImportedWeights

SHOWN = 3


def import_checkpoint(
    weights: Path = typer.Argument(help="The published pytorch_model.bin, or a .safetensors file of the same names."),
    recipe: Path | None = typer.Option(
        None,
        "--recipe",
        help="A recipe with your tables in [data]; --out is then a run. Its [[stages]], if any, train on top.",
    ),
    backbone: str | None = typer.Option(
        None, "--backbone", help="The base model of both tiers: a directory, or a name that hllm knows."
    ),
    item_config: Path | None = typer.Option(
        None, "--item-config", help="Directory with the Item LLM's config.json and tokenizer, if it is another one."
    ),
    user_config: Path | None = typer.Option(
        None, "--user-config", help="Directory with the User LLM's config.json, if it is another one."
    ),
    out: Path = typer.Option(..., "--out", help="The run's directory; without --recipe a checkpoint's, a new one."),
    max_history: int = typer.Option(50, "--max-history", min=1, help="Most items the User LLM reads at once."),
    max_tokens: int = typer.Option(256, "--max-tokens", min=1, help="An item's text is cut to this many tokens."),
    overrides: list[str] = overrides_option("Change one key of the recipe, such as compat=none; repeatable."),
    as_json: bool = JSON,
) -> None:
    """Turn weights in the format of bytedance/HLLM into a run; every tensor must fit, or nothing is written.

    The recipe needs no more than your tables: [data] with interactions and items. Every verb takes the run. Without
    --recipe the result is a checkpoint, which recipes start with: [start] weights = "DIR".

    Example: hllm import-checkpoint pytorch_model.bin --backbone TinyLlama-1.1B --recipe shop.toml --out run
    """
    from hllm.models.published.weights import import_published
    from hllm.sources.language_models import resolve_backbone

    if backbone is not None:
        folder = resolve_backbone(backbone, Path())
        item_config, user_config = item_config or folder, user_config or folder
    if item_config is None or user_config is None:
        raise ConfigError("give --backbone, the base model of both tiers, or --item-config and --user-config")
    sizes: dict[str, Any] = {"max_history": max_history, "max_tokens": max_tokens}
    if recipe is None:
        if overrides:
            raise ConfigError("--set changes a recipe, and there is none: give --recipe, with your tables in [data]")
        done = import_published(weights, item_config=item_config, user_config=user_config, out=out, **sizes)
        facts: dict[str, Any] = {"checkpoint": str(out)}
        following = f"next: hllm train RECIPE --set start.weights={out.resolve()} --out RUN"
    else:
        from hllm.jobs.import_checkpoint import import_run

        keep_freed_memory()
        done, recommender = import_run(
            weights, recipe, out, item_config=item_config, user_config=user_config, overrides=overrides, **sizes
        )
        position, select_by = recommender.run.position(), recommender.recipe.select_by
        facts = {"run": str(out), "steps": position.step, select_by: position.best}
        following = (
            f"{position.step:,} steps; validation {select_by} {position.best:.4f}\n"
            f"next: {next_steps(out, select_by, recommender.dataset.users[0])}"
        )
    if as_json:
        show_json({**facts, **dataclasses.asdict(done), "missing": []})
        return
    _show(out, done)
    echo(following)


def _show(out: Path, done: "ImportedWeights") -> None:
    num_ignored = sum(map(len, done.ignored.values()))
    echo(f"{out}: {done.used} tensors used, {num_ignored} ignored, 0 missing")
    for reason, names in done.ignored.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        echo(f"ignored {', '.join(names[:SHOWN])}{more}: {reason}")
    if done.clamped_from is not None:
        echo(f"clamped logit_scale from {done.clamped_from:.6g} to {done.log_scale:.6g}: it lies in [0, ln 100]")
    echo(f'pooling: "{done.pooling}"; tokenizer: {done.tokenizer}')
