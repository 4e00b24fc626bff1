"""Ctrl-C and SIGTERM as a request: to stop after a step, with a checkpoint."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from tnet.scripts.output import say


class Stopped(Exception):
    """The user or the system asked the training to stop; a checkpoint was written.

    Attributes:
        code: exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"stopped with code {code}")
        self.code = code


@dataclass
class Stop:
    """Whether the training is asked to stop, and by which signal."""

    signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as a request; a second one ends at once."""
        before: dict[signal.Signals, Any] = {}

        def ask(number: int, frame: FrameType | None) -> None:
            self.signal = number
            for each in before:
                signal.signal(each, signal.default_int_handler)
            with suppress(RuntimeError):  # the signal came amid another line
                say("stopping after this step, with a checkpoint; once more to stop at once")

        try:
            for each in (signal.SIGINT, signal.SIGTERM):
                before[each] = signal.signal(each, ask)
        except ValueError:  # not the main thread: others have to care for signals
            before.clear()
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def check(self) -> None:
        """Raise :class:`Stopped` if asked to stop."""
        if self.signal is not None:
            raise Stopped(128 + self.signal)
