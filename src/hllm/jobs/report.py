"""The report of evaluated runs is one page, with examples of what they recommend."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hllm import artifacts
from hllm.api import Recommender
from hllm.data.describing.measure import describe
from hllm.evaluation.evaluate import Evaluated
from hllm.reports.description import describe_section
from hllm.reports.run import Example, html_report
from hllm.runs.results import ablations_of

NUM_USERS = 4
NUM_RECOMMENDED = 8
HISTORY_SHOWN = 8


def write_report(runs: Mapping[str, Recommender], evaluated: Sequence[Evaluated], target: Path) -> Path:
    """Write the page of `runs`, the first of which gives the examples and the data; return where it is.

    `evaluated` are the results of these runs and of others beside them, such as baselines.
    """
    results = [each.result for each in evaluated]
    ablations = [ablations_of(runs[result.name].run, result) for result in results if result.name in runs]
    first = next(iter(runs.values()))
    page = html_report(
        results,
        examples(first),
        {name: recommender.run.events() for name, recommender in runs.items()},
        ablations=[each for each in ablations if each is not None],
        slices=[(result.name, result.slices) for result in results],
        ranks={each.result.name: each.ranks for each in evaluated},
        sections=[("Data", describe_section(describe(first.dataset, first.split)))],
    )
    artifacts.write_text(target, page)
    return target


def examples(recommender: Recommender) -> list[Example]:
    """Return evenly chosen users with history and recommendations, and the audience of a new item.

    The new item is the catalogue's least known one, presented by its text alone.
    """
    users = recommender.dataset.users
    chosen = users.gather_every(max(1, len(users) // NUM_USERS))[:NUM_USERS]
    recommended = recommender.recommend(users=chosen, k=NUM_RECOMMENDED)
    shown = []
    for user in chosen:
        history = recommender.dataset.history(int(recommender.dataset.user_rows([user])[0]))[-HISTORY_SHOWN:]
        rows = recommended.filter(recommended["user_id"] == user)
        titles = recommender.title_of(rows["item_id"])
        history_titles = recommender.dataset.titles[history].to_list()
        shown.append(Example(f"User {user}", history_titles, list(zip(titles, rows["score"], strict=True))))
    if recommender.recipe.model.item.facts.reads_text:
        shown.append(_new_item(recommender))
    return shown


def _new_item(recommender: Recommender) -> Example:
    dataset = recommender.dataset
    row = int(recommender.split.train_counts(dataset).argmin())
    fields = {name: dataset.items[name][row] for name in dataset.text_cols}
    users = recommender.audience(fields, k=NUM_RECOMMENDED)
    text = "; ".join(f"{name}: {value}" for name, value in fields.items() if value)
    places = [f"user {user}, at place {rank}" for user, rank in zip(users["user_id"], users["rank"], strict=True)]
    return Example(f"An item known only by its text: {text}", [], list(zip(places, users["score"], strict=True)))
