"""`hllm similar` shows items like an item or a text."""

from pathlib import Path

import typer

from hllm.cli.options import JSON, RUN
from hllm.cli.show import show_frame, with_titles
from hllm.errors import ConfigError


def similar(
    run: Path = RUN,
    item: str | None = typer.Option(None, "--item", help="An item id of the catalogue."),
    text: str | None = typer.Option(None, "--text", help='The text of any item: "title: …; genres: …".'),
    k: int = typer.Option(10, "--k", "-k", min=1, help="How many to show."),
    as_json: bool = JSON,
) -> None:
    """Show the items nearest to an item or to a text."""
    if (item is None) == (text is None):
        raise ConfigError("give one of --item ID or --text TEXT")
    from hllm.api import Recommender

    recommender = Recommender.load(run)
    if text is not None:
        frame, title = recommender.similar(texts=[text], k=k), f"like {text!r}"
    else:
        frame, title = recommender.similar([item], k=k), f"like {recommender.title_of([item])[0]}"
    show_frame(with_titles(frame, recommender), title, as_json=as_json)
