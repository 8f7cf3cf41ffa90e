"""The examples that a report shows: a few users, and a brand-new item."""

from hllm.api import Recommender
from hllm.models.item.text import TextItemConfig
from hllm.reports.run import Example

NUM_USERS = 4
HISTORY_SHOWN = 8


def examples(recommender: Recommender) -> list[Example]:
    """Return evenly chosen users with history and recommendations, and the audience of a new item.

    The new item is the catalogue's least known one, presented by its text alone.
    """
    dataset = recommender.dataset
    chosen = dataset.users.gather_every(max(1, len(dataset.users) // NUM_USERS))[:NUM_USERS]
    offered = recommender.recommend(users=chosen, k=8)
    shown = []
    for user in chosen:
        history = dataset.history(int(dataset.user_rows([user])[0]))[-HISTORY_SHOWN:]
        rows = offered.filter(offered["user_id"] == user)
        titles = recommender.title_of(rows["item_id"])
        shown.append(
            Example(f"User {user}", dataset.titles[history].to_list(), list(zip(titles, rows["score"], strict=True)))
        )
    if isinstance(recommender.recipe.model.item, TextItemConfig):
        shown.append(_new_item(recommender))
    return shown


def _new_item(recommender: Recommender) -> Example:
    dataset = recommender.dataset
    row = int(recommender.split.train_counts(dataset).argmin())
    fields = {name: dataset.items[name][row] for name in dataset.text_cols}
    users = recommender.audience(fields, k=8)
    text = "; ".join(f"{name}: {value}" for name, value in fields.items() if value)
    named = [f"user {user}, at place {rank}" for user, rank in zip(users["user_id"], users["rank"], strict=True)]
    return Example(f"An item known only by its text: {text}", [], list(zip(named, users["score"], strict=True)))
