"""HLLM: recommenders in which a language model reads the items and another reads the histories.

Public names are imported on first use, so that `import hllm` is quick and does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ConfigError", "DataError", "HllmError", "Recipe", "Recommender", "__version__"]

if TYPE_CHECKING:
    from hllm.api import Recommender
    from hllm.errors import ConfigError, DataError, HllmError
    from hllm.recipe.recipe import Recipe

_HOMES = {
    "Recommender": "hllm.api",
    "Recipe": "hllm.recipe.recipe",
    "HllmError": "hllm.errors",
    "DataError": "hllm.errors",
    "ConfigError": "hllm.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hllm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
