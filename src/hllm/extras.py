"""Extras are optional dependencies: import one, or say which extra brings it."""

import importlib
from types import ModuleType

from hllm.errors import MissingExtraError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or raise MissingExtraError naming the extra that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f'{purpose} needs the package {error.name!r}, which is not installed: pip install "hllm[{extra}]"'
        ) from error
