"""Errors are all that hllm raises on purpose: each message says what was found, where, and what to do."""

# Proved by tests/test_api.py, tests/test_config.py.

import difflib
from collections.abc import Iterable


class HllmError(Exception):
    """An error whose message is meant for the person who called hllm."""


class DataError(HllmError, ValueError):
    """The caller's tables, ids or texts are not usable as they are."""


class ConfigError(HllmError, ValueError):
    """A recipe or an option is not usable as it is."""


class CheckpointError(HllmError, ValueError):
    """A directory written by hllm is missing, damaged, or belongs to something else."""


class MissingExtraError(HllmError, ImportError):
    """An optional dependency is not installed; the message ends with the command that installs it."""


class FetchError(HllmError, RuntimeError):
    """A data set or a model could not be downloaded or unpacked."""


class StorageError(HllmError, OSError):
    """Something could not be written; nothing half-written was left behind."""


class BusyError(HllmError, RuntimeError):
    """Another process is writing there; the message says who it is."""


class TrainingError(HllmError, RuntimeError):
    """Training cannot go on: the loss is not finite, or the item embeddings have collapsed."""


class HllmWarning(UserWarning):
    """Something was found wrong and could be worked round; the message says how."""


class Stopped(BaseException):
    """A signal stopped the work; what was finished is kept. Like KeyboardInterrupt it is no `Exception`."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def first_few(values: Iterable[object], limit: int = 3) -> str:
    """Return the first `limit` values, quoted and comma-separated, for an error message."""
    shown = [repr(value) for _, value in zip(range(limit), values, strict=False)]
    return ", ".join(shown)


def nearest(word: object, known: Iterable[str]) -> str:
    """Return ' (did you mean …?)' for the known word closest to `word`, or an empty string."""
    match = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""
