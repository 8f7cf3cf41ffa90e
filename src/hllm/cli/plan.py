"""`hllm train --dry-run` prints what training would cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hllm.cli.show import echo, show_json
from hllm.reports.text import text_table

if TYPE_CHECKING:
    from hllm.jobs.planning.plan import Plan, StagePlan

_HEADINGS = (
    "stage",
    "epochs",
    "windows",
    "steps",
    "items/step",
    "tokens/step",
    "negatives",
    "FLOP/step",
    "FLOP",
    "memory",
    "time",
)


def dry_run(recipe: Path, overrides: Sequence[str], *, as_json: bool) -> None:
    """Estimate what training a recipe costs, print it, and write nothing."""
    from hllm.jobs.planning.plan import plan_recipe
    from hllm.training.fit import recipe_from

    chosen, base = recipe_from(recipe, overrides)
    plan = plan_recipe(chosen, base)
    if as_json:
        totals = {"flops": plan.flops, "parameters": plan.parameters, "seconds": plan.seconds}
        show_json(plan.model_dump(mode="json") | totals)
    else:
        echo("\n".join(plan_lines(plan, str(recipe))))


def plan_lines(plan: "Plan", name: str) -> list[str]:
    """Return the plan as lines for people."""
    read = "" if plan.tokens_per_item is None else f", {plan.tokens_per_item:.1f} tokens an item"
    lines = [
        f"{name}: {plan.about}",
        "An estimate; nothing was trained or written.",
        "",
        f"data    {plan.data}, {'counted' if plan.counted else 'published sizes'}: {plan.num_users:,} users, "
        f"{plan.num_items:,} items, {plan.num_interactions:,} interactions{read}",
    ]
    lines += [f"{tier.name:<11} {tier.parameters:>15,} parameters, {tier.trained:>15,} learn" for tier in plan.tiers]
    lines += ["", *text_table(_HEADINGS, map(_row, plan.stages), align="lr"), ""]
    fullest = max(plan.stages, key=lambda stage: sum(stage.memory_bytes.values()))
    parts = ", ".join(f"{what} {_bytes(size)}" for what, size in fullest.memory_bytes.items())
    lines += [
        f"memory  {_bytes(sum(fullest.memory_bytes.values()))} in {fullest.name!r}: {parts}",
        f"disk    {_bytes(plan.checkpoint_bytes)} of checkpoints, {_bytes(plan.table_bytes)} of item vectors",
    ]
    if plan.seconds is not None and plan.flops_per_second is not None:
        lines.append(
            f"time    {_duration(plan.seconds)} on this machine's {plan.device} in {plan.precision}, at "
            f"{plan.efficiency:.0%} of the {_flops(plan.flops_per_second)}/s that it was just measured to do in "
            "products of matrices"
        )
    lines += [f"assumes {sentence}" for sentence in plan.assumed]
    lines += [f"MISSING {sentence}" for sentence in plan.missing]
    return lines


def _row(stage: "StagePlan") -> tuple[str, ...]:
    return (
        stage.name,
        str(stage.epochs),
        f"{stage.windows:,.0f}",
        f"{stage.steps:,}",
        f"{stage.items_per_step:,.0f}",
        f"{stage.tokens_per_step:,.0f}",
        f"{stage.negatives_per_target:,.0f}",
        _flops(stage.flops_per_step),
        _flops(stage.flops),
        _bytes(sum(stage.memory_bytes.values())),
        "" if stage.seconds is None else _duration(stage.seconds),
    )


def _flops(value: float) -> str:
    return _scaled(value, 1000, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"))


def _bytes(value: float) -> str:
    return _scaled(value, 1000, ("B", "kB", "MB", "GB", "TB"))


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if value < step:
            return f"{value:.3g} {unit}"
        value /= step
    return f"{value:,.3g} {units[-1]}" if value < step else f"{value:,.0f} {units[-1]}"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400 * 365, "years"), (86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
