"""`hllm data fetch` and `hllm model fetch` download a data set or a language model."""

# Proved by tests/sources/test_data_sets.py, tests/models/published/test_fetch.py.

import typer

from hllm.cli.options import JSON
from hllm.cli.show import echo, show_json


def data(
    name: str = typer.Argument(help='The data set: "movielens-100k".'),
    as_json: bool = JSON,
) -> None:
    """Download a public data set once, checked by SHA-256, into the cache ($HLLM_HOME or ~/.cache/hllm)."""
    from hllm.sources.data_sets import fetch_data

    folder, downloaded = fetch_data(name)
    _say(name, str(folder), downloaded, as_json)


def model(
    name: str = typer.Argument(help='The model: "smollm2-135m" (decoder, either tier) or "minilm-l6" (item tier).'),
    as_json: bool = JSON,
) -> None:
    """Download a pre-trained language model once, checked by SHA-256, as a Hugging Face directory in the cache."""
    from hllm.models.published.fetch import fetch_model

    folder, downloaded = fetch_model(name)
    _say(name, str(folder), downloaded, as_json)


def _say(name: str, folder: str, downloaded: bool, as_json: bool) -> None:
    if as_json:
        show_json({"name": name, "path": folder, "downloaded": downloaded})
    else:
        echo(f"{name}: {'fetched into' if downloaded else 'already in'} {folder}")
