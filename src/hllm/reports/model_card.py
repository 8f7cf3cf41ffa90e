"""A model card says, from stored facts, what a run is, what it was trained on, and how good it is."""

# Proved by tests/cli/test_card.py.

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.evaluation.ablations import Ablations
from hllm.evaluation.evaluate import Result
from hllm.evaluation.statistics import Estimate
from hllm.reports.charts import principal_metrics
from hllm.reports.text import markdown_table


@dataclass(frozen=True)
class CardFacts:
    """The facts that a card is made of, besides the data."""

    name: str
    recipe: Mapping[str, Any]
    """Every setting of the run."""
    recipe_changes: Mapping[str, Any]
    """The settings that are not the defaults."""
    start: str | None
    """The trained or imported weights that training started with."""
    trained: Sequence[str]
    """What each stage trained, and by which losses."""
    parameters: Mapping[str, int]
    """Number of weights of each part of the model."""
    num_steps: int
    elapsed_s: float
    reads_text: bool
    reads_times: bool
    reads_actions: bool
    result: Result
    """The result of this model."""
    others: Sequence[Result]
    """The results of the recommenders that it was compared with."""
    ablations: Ablations | None
    environment: Mapping[str, str]
    """Versions, by name."""


def model_card(facts: CardFacts, dataset: Dataset, split: Split) -> str:
    """Return README.md of a model: YAML front matter with a model-index, then the card in Markdown.

    Every number is one of `facts` or counted in `dataset`. The license is left to whoever publishes the model.
    """
    parts = [
        _front_matter(facts),
        f"# {_plain(facts.name)}",
        _what_it_is(facts),
        "## Use\n\n" + _intended(facts) + "\n\n" + _usage(facts, dataset),
        "## Data\n\n" + _data(dataset, split, facts),
        "## Training\n\n" + _training(facts),
        "## Evaluation\n\n" + _evaluation(facts),
        *(["## Ablations\n\n" + _ablations(facts.ablations)] if facts.ablations is not None else []),
        "## Limits\n\n" + _limits(facts),
        "## Environment\n\nThis card was made with "
        + ", ".join(f"{name} {version}" for name, version in facts.environment.items())
        + ".",
        "## License\n\nNot stated. Whoever publishes this model names its license in the first lines of this file; the "
        "licenses of the language models it starts from and of the data have to allow it.",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> str:
    """Return the YAML head. Strings are written as JSON, which YAML reads."""
    metrics = [
        line
        for name, estimate in facts.result.all_items.items()
        for line in (
            f"    - type: {json.dumps(name)}",
            f"      name: {json.dumps(f'{name}, full catalogue ranked')}",
            f"      value: {estimate.mean!r}",
            f"      args: {{low: {estimate.low!r}, high: {estimate.high!r}, interval: 95 %}}",
        )
    ]
    return "\n".join(
        [
            "---",
            "library_name: hllm",
            "# license: to be named by whoever publishes this model",
            "tags:",
            "- recommendation",
            "- sequential-recommendation",
            "model-index:",
            f"- name: {json.dumps(facts.name)}",
            "  results:",
            "  - task:",
            "      type: other",
            "      name: Sequential recommendation (next item)",
            "    dataset:",
            f"      type: {json.dumps(_data_name(facts))}",
            f"      name: {json.dumps(_data_name(facts))}",
            f"      config: {json.dumps(facts.result.protocol.split)}",
            f"      split: {facts.result.protocol.part}",
            "    metrics:",
            *metrics,
            "---",
        ]
    )


def _data_name(facts: CardFacts) -> str:
    data = facts.recipe["data"]
    return str(data["source"] or _last_part(data["interactions"] or "tables in memory"))


def _last_part(path: str) -> str:
    """Return a model's or a file's name without the folders of this machine, which stay private."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _without_folders(settings: Any) -> Any:
    """Return settings with the names of backbones and files in place of their paths."""
    if isinstance(settings, Mapping):
        paths = ("backbone", "interactions", "items", "weights")
        return {
            key: _last_part(value) if key in paths and isinstance(value, str) else _without_folders(value)
            for key, value in settings.items()
        }
    return [_without_folders(value) for value in settings] if isinstance(settings, list) else settings


def _what_it_is(facts: CardFacts) -> str:
    model = facts.recipe["model"]
    item, user = model["item"], model["user"]
    if facts.reads_text:
        layers = f", its first {item['num_layers']} layers" if item["num_layers"] else ""
        tier = (
            f"{_code(_last_part(item['backbone']))}{layers}, which reads an item's text of at most "
            f"{item['prompt']['max_tokens']} tokens (pooling: {item['pooling']})"
        )
    else:
        tier = "one learnt vector for each item; no text is read"
    reader = _code(_last_part(user["backbone"])) if "backbone" in user else f"`{user['kind']}`"
    counts = "; ".join(f"{name} {number:,}" for name, number in facts.parameters.items())
    return (
        f"{_plain(facts.recipe['about'])}\n\nA sequential recommender of two tiers: it turns each item into a vector, "
        "reads a user's history of such vectors, and ranks the whole catalogue by what comes next.\n\n"
        f"- **Item tier**: {tier}.\n"
        f"- **User tier**: {reader}, over the latest {model['max_history']} items.\n"
        f"- **Similarity**: {model['similarity']}.\n"
        f"- **Weights**: {counts}." + (f"\n- **Start**: {_plain(facts.start)}." if facts.start else "")
    )


def _intended(facts: CardFacts) -> str:
    new = (
        "Items it has never seen can be ranked by their text."
        if facts.reads_text
        else "It knows the items of its catalogue only: a new item needs new training."
    )
    return (
        "It is meant for ranking items of this catalogue, or of one like it, for users with a history. "
        f"{new} It is not meant for decisions about people, and it was not tested on other data than those below."
    )


def _usage(facts: CardFacts, dataset: Dataset) -> str:
    """Return a program that runs from this file's folder."""
    shown = dataset.item_ids.head(2).to_list()
    lines = [
        "from hllm import Recommender",
        "",
        'recommender = Recommender.load(".")  # the folder of this file',
        "print(recommender.recommend(users=recommender.dataset.users[:1], k=10))",
    ]
    if not facts.reads_actions:
        times = ", times=[[1700000000, 1700003600]]" if facts.reads_times else ""
        lines.append(f"print(recommender.recommend(histories=[{shown!r}]{times}, k=10))")
    if facts.reads_text:
        lines.append(f"print(recommender.similar(texts=[{f'{dataset.text_cols[0]}: some words'!r}], k=10))")
    return "```python\n" + "\n".join(lines) + "\n```"


def _data(dataset: Dataset, split: Split, facts: CardFacts) -> str:
    lengths = np.diff(dataset.offsets)
    density = dataset.num_interactions / (dataset.num_users * dataset.num_items)
    rows = [
        ("source", _plain(_data_name(facts))),
        ("users", f"{dataset.num_users:,}"),
        ("items", f"{dataset.num_items:,}"),
        ("interactions", f"{dataset.num_interactions:,}"),
        ("training interactions", f"{int(split.train_counts(dataset).sum()):,}"),
        ("density", f"{density:.3%}"),
        ("items of a history", f"median {np.median(lengths):.0f}, longest {lengths.max():,}"),
        ("text", ", ".join(map(_plain, dataset.text_cols)) if facts.reads_text else "not read"),
        ("times", _times(dataset)),
        ("fingerprint", f"`{dataset.fingerprint[:12]}`"),
    ]
    return _table(["", ""], [list(row) for row in rows])


def _times(dataset: Dataset) -> str:
    if dataset.seconds_per_unit is None:
        return "order the interactions and say no more"
    first, last = (np.datetime64(int(s), "s").astype("datetime64[D]") for s in _span(dataset))
    return f"{first} to {last}"


def _span(dataset: Dataset) -> tuple[int, int]:
    return int(dataset.seconds.min()), int(dataset.seconds.max())


def _training(facts: CardFacts) -> str:
    rows = [
        [
            _plain(stage["name"]),
            str(stage["epochs"]),
            str(stage["batch_size"]),
            f"{stage['learning_rate']:g}",
            _plain(trained),
        ]
        for stage, trained in zip(facts.recipe["stages"], facts.trained, strict=True)
    ]
    head = ["stage", "epochs", "batch", "learning rate", "learnt by"]
    return (
        f"{facts.num_steps:,} optimizer steps in {facts.elapsed_s:,.0f} s, seed {facts.recipe['seed']}; the checkpoint "
        f"with the best validation {facts.recipe['select_by']} was kept.\n\n{_table(head, rows)}\n\n"
        "Every setting is in `recipe.json`; those that are not the defaults:\n\n"
        f"```json\n{json.dumps(_without_folders(facts.recipe_changes), indent=1)}\n```"
    )


def _evaluation(facts: CardFacts) -> str:
    results = [*facts.others, facts.result]
    names = list(facts.result.all_items)
    parts = [
        f"Means over {facts.result.protocol.unit} of the {facts.result.protocol.part} part, with 95 % intervals.",
        _metrics([(r.name, r.all_items) for r in results], names),
    ]
    if facts.result.cold_items:
        protocol = facts.result.protocol
        parts += [
            f"Targets with at most {protocol.evaluation.cold_at_most} training interactions "
            f"({protocol.num_cold_targets:,}):",
            _metrics([(r.name, r.cold_items) for r in results], names),
        ]
    parts += ["How these numbers were made:", "\n".join(f"- {_plain(line)}" for line in facts.result.protocol.lines())]
    meanings = facts.result.protocol.metrics.items()
    parts.append("\n".join(f"- `{name}@k`: {_plain(meaning)}" for name, meaning in meanings))
    return "\n\n".join(parts)


def _ablations(ablations: Ablations) -> str:
    names = principal_metrics(list(ablations.intact))
    rows = [["as it is", "", *(cell for name in names for cell in (_cell(ablations.intact[name]), ""))]]
    for result in ablations.results:
        if not result.not_applied:
            cells = [cell for name in names for cell in (_cell(result.values[name]), _cell(result.drop[name]))]
            rows.append([result.switch, result.what, *cells])
    head = ["switch", "what is left", *(title for name in names for title in (name, "drop"))]
    left_out = "".join(f"\n- `{r.switch}` does not apply: {r.not_applied}." for r in ablations.results if r.not_applied)
    return (
        "The trained model was asked again with part of its input taken away. A drop is each user's metric as it was "
        f"less what it is then; an interval that holds 0 shows no effect.\n\n{_table(head, rows)}\n{left_out}".rstrip()
    )


def _limits(facts: CardFacts) -> str:
    protocol = facts.result.protocol
    lines = [
        "The metrics say how well past choices are predicted, not how users would take to what is recommended.",
        "The intervals are over users; another training seed may move the numbers further.",
        f"{protocol.num_targets_seen:,} of {protocol.num_targets:,} targets had been seen before"
        + (" and cannot be found, because seen items are removed." if protocol.evaluation.seen == "removed" else "."),
        f"Only the latest {facts.recipe['model']['max_history']} items of a history are read; a user without history "
        "gets the same score for all items.",
    ]
    if facts.reads_text:
        lines.append(
            "A pre-trained language model may have read about these items, or this very data set, before; a good "
            "number on a well-known set is no proof for items it cannot know."
        )
    if facts.ablations is None:
        lines.append("Whether text or order matter to this model was not measured (`hllm ablate`).")
    return "\n".join(f"- {line}" for line in lines)


def _metrics(rows: Sequence[tuple[str, Mapping[str, Estimate]]], metrics: Sequence[str]) -> str:
    """Return a table with a row for each metric: recommenders are few, metrics are many."""
    # Results that were stored with other cut-offs have gaps.
    lines = [[m, *(_cell(values[m]) if m in values else "" for _, values in rows)] for m in metrics]
    return _table(["", *(_plain(name) for name, _ in rows)], lines)


def _cell(estimate: Estimate) -> str:
    return f"{estimate.mean:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(markdown_table(head, rows))


def _plain(value: str) -> str:
    """Return text that Markdown reads as text: not as HTML, a link, an image, code or several lines."""
    return re.sub(r"([\\`\[\]])", r"\\\1", " ".join(value.split())).replace("<", "&lt;")


def _code(value: str) -> str:
    """Return text as code in Markdown."""
    return f"`{' '.join(value.split()).replace('`', chr(39))}`"
