"""Stop on a signal without losing anything: between two steps, or at once where nothing is half done."""

# Proved by tests/training/test_resume.py.

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hllm.distributed import Group
from hllm.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """Remembers a signal until `check`; inside `at_once` it interrupts immediately.

    Several processes stop after the same step: where one would interrupt alone, the others would wait for it in vain.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.signal: int | None = None
        self._immediate = False

    def check(self) -> None:
        """Raise Stopped if any process has got a signal; all of them call this after the same steps."""
        (self.signal,) = (number or None for number in self.group.highest(self.signal or 0))
        self._raise()

    def between_parts(self) -> None:
        """Raise Stopped, in the middle of a step, if a signal has come and there are no other processes."""
        if self.group.size == 1:
            self._raise()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal interrupt the work inside, such as a validation, unless there are other processes.

        The work must leave nothing half done.
        """
        self.between_parts()
        self._immediate = self.group.size == 1
        try:
            yield
        finally:
            self._immediate = False

    def _raise(self) -> None:
        if self.signal is not None:
            raise Stopped(self.signal, f"stopped by {signal.Signals(self.signal).name}")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            name = signal.Signals(number).name  # a second signal does not wait
            raise Stopped(number, f"stopped by {name} at once; the same command goes on from the last checkpoint")
        self.signal = number
        if self._immediate:
            self._raise()


@contextmanager
def stopping(group: Group) -> Iterator[Stopping]:
    """Take over SIGTERM and SIGINT while inside; in another thread than the main one, signals stay as they are."""
    state = Stopping(group)
    if threading.current_thread() is not threading.main_thread():
        yield state
        return
    before = {number: signal.signal(number, state._handle) for number in SIGNALS}
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
