"""Stop on a signal without losing anything: between two steps, or at once where nothing is half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hllm.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """Remembers a signal until `check`; inside `at_once` it interrupts immediately."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._immediate = False

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.signal is not None:
            raise Stopped(self.signal, f"stopped by {signal.Signals(self.signal).name}")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal interrupt what runs inside, which must leave nothing half done: validation, say."""
        self.check()
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt  # a second signal does not wait: the last checkpoint stands
        self.signal = number
        if self._immediate:
            self.check()


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Take over SIGTERM and SIGINT while inside; in another thread than the main one, signals stay as they are."""
    state = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return
    before = {number: signal.signal(number, state._handle) for number in SIGNALS}
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
