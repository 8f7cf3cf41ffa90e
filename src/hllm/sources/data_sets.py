"""Locate the data sets that `hllm` knows by name: some it downloads, others a person puts in place."""

from collections.abc import Callable
from pathlib import Path

from hllm.artifacts import MANIFEST, home
from hllm.checked import check_folder
from hllm.data.schema import DataConfig
from hllm.errors import ConfigError, nearest
from hllm.sources import movielens
from hllm.sources.local import LOCAL, local_files

FETCH: dict[str, Callable[[], tuple[Path, bool]]] = {movielens.NAME: movielens.fetch}
SIZES = {movielens.NAME: movielens.SIZE} | {name: source.size for name, source in LOCAL.items()}


def fetch_data(name: str) -> tuple[Path, bool]:
    """Fetch a data set into the cache; return its folder and whether it was downloaded now."""
    if name in LOCAL:
        raise ConfigError(
            f"hllm cannot fetch {name}; put its files in place yourself. Source: {LOCAL[name].origin} (docs/data.md)"
        )
    if name not in FETCH:
        raise ConfigError(f"unknown data set {name!r}{nearest(name, FETCH)}; known: {', '.join(FETCH)}")
    return FETCH[name]()


def with_source_columns(config: DataConfig) -> DataConfig:
    """Return the config with the text columns that a set known by name is read by, if the config names none."""
    if config.text_cols is not None or config.source not in SIZES:
        return config
    text = LOCAL[config.source].text.split(", ") if config.source in LOCAL else movielens.TEXT
    return config.model_copy(update={"text_cols": tuple(text)})


def locate(config: DataConfig, base: Path) -> tuple[Path, Path | None]:
    """Return the paths of the interactions and, if there is one, of the items table; relative ones start at `base`.

    Raises ConfigError if the config names neither a source nor tables, or a source that is not at hand.
    """
    if config.source is not None:
        if config.interactions or config.items:
            raise ConfigError("data: give either source, or interactions and items, not both")
        if config.source not in SIZES:
            raise ConfigError(
                f"data.source {config.source!r} is unknown{nearest(config.source, SIZES)}; known: {', '.join(SIZES)}"
            )
        if config.source in LOCAL:
            return local_files(config.source)
        folder = home() / "data" / config.source
        if not (folder / MANIFEST).is_file():
            raise ConfigError(f"{config.source} is not on this machine yet: hllm data fetch {config.source}")
        check_folder(folder, again=f"hllm data fetch {config.source}")
        return folder / "interactions.parquet", folder / "items.parquet"
    if not config.interactions:
        raise ConfigError('data: name a source such as "movielens-100k", or the paths of interactions and items')
    return base / config.interactions, base / config.items if config.items else None
