"""`hllm import-checkpoint` turns published weights into a checkpoint."""

import dataclasses
from pathlib import Path

import typer

from hllm.cli.options import JSON
from hllm.cli.show import echo, show_json

SHOWN = 3


def import_checkpoint(
    weights: Path = typer.Argument(help="The published pytorch_model.bin, or a .safetensors file of the same names."),
    item_config: Path = typer.Option(
        ..., "--item-config", help="Directory with the Item LLM's config.json and, to read new text, its tokenizer."
    ),
    user_config: Path = typer.Option(..., "--user-config", help="Directory with the User LLM's config.json."),
    out: Path = typer.Option(..., "--out", help="The checkpoint's directory; it must not exist."),
    max_history: int = typer.Option(50, "--max-history", min=1, help="Most items the User LLM reads at once."),
    max_tokens: int = typer.Option(256, "--max-tokens", min=1, help="An item's text is cut to this many tokens."),
    as_json: bool = JSON,
) -> None:
    """Turn weights in the format of bytedance/HLLM into a checkpoint; every tensor must fit, or nothing is written."""
    from hllm.models.published.weights import import_published

    done = import_published(
        weights,
        item_config=item_config,
        user_config=user_config,
        out=out,
        max_history=max_history,
        max_tokens=max_tokens,
    )
    if as_json:
        show_json({"checkpoint": str(out), **dataclasses.asdict(done), "missing": []})
        return
    num_ignored = sum(map(len, done.ignored.values()))
    echo(f"{out}: {done.used} tensors used, {num_ignored} ignored, 0 missing")
    for reason, names in done.ignored.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        echo(f"ignored {', '.join(names[:SHOWN])}{more}: {reason}")
    if done.clamped_from is not None:
        echo(f"clamped logit_scale from {done.clamped_from:.6g} to {done.log_scale:.6g}: it lies in [0, ln 100]")
    echo(f'pooling: "{done.pooling}"; tokenizer: {done.tokenizer}')
