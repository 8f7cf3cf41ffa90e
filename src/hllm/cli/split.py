"""`hllm data split` shows how a recipe divides its data."""

from pathlib import Path

from hllm.cli.options import JSON, RECIPE, overrides_option
from hllm.cli.show import echo, show_json
from hllm.reports.text import text_table

_MEANING = {"training": "training", "validation": "validation", "test": "test", "unused": "none: in histories alone"}


def split(
    recipe: Path = RECIPE,
    overrides: list[str] = overrides_option('Change one key of the recipe, such as split.kind="users"; repeatable.'),
    as_json: bool = JSON,
) -> None:
    """Divide a recipe's data as training would, and print how much is in each part; nothing is written."""
    from hllm.data.build import build_dataset
    from hllm.data.split import split_dataset
    from hllm.sources.data_sets import locate
    from hllm.training.fit import recipe_from

    chosen, base = recipe_from(recipe, overrides)
    dataset = build_dataset(*locate(chosen.data, base), chosen.data)
    divided = split_dataset(dataset, chosen.split)
    counts = divided.describe(dataset)
    if as_json:
        withheld = len(divided.withheld_items)
        show_json({"kind": divided.kind, "fingerprint": divided.fingerprint, **counts, "withheld_items": withheld})
        return
    echo(
        f"split {divided.kind} {divided.fingerprint[:12]} of {dataset.num_users:,} users, {dataset.num_items:,} items, "
        f"{dataset.num_interactions:,} interactions\n"
    )
    rows = [
        (
            meaning,
            f"{counts[part]:,}",
            f"{counts[part] / dataset.num_interactions:.1%}",
            f"{counts[f'{part}_users']:,}" if f"{part}_users" in counts else "",
        )
        for part, meaning in _MEANING.items()
    ]
    echo("\n".join(text_table(("part", "interactions", "share", "users"), rows, align="lr")))
    if withheld := len(divided.withheld_items):
        echo(f"\n{withheld:,} of {dataset.num_items:,} items are withheld: training does not see them at all")
