"""Exit codes say how a verb ended; 0 is success. A signal ends a verb with its own."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from hllm.errors import Stopped

EXIT_FAILURE = 1
EXIT_WRONG_INPUT = 2
EXIT_SIGNAL = 128
"""Plus the signal's number."""


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT raise Stopped inside, so that what is half written is removed as after an error.

    Training takes both over while its steps run. In another thread than the main one signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number, f"stopped by {signal.Signals(number).name}; what was finished is kept")
