"""How far a long job on one thing is, on stderr: share, speed and time left."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from tnet.scripts.report import clean, say

_QUIET_SECONDS = 5.0
_MINUTE = 60


class Amount:
    """Counts how much of a job is done: a bar on a terminal, else a line every few seconds.

    Args:
        what: is worked on.
        total: how much there is to do.
        unit: of that.
    """

    def __init__(self, what: str, total: float, unit: str) -> None:
        self._what = what
        self._total = total
        self._unit = unit
        self._done = 0.0
        self._started = self._spoke = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task("", total=self._total, said=clean(self._what))
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, amount: float) -> None:
        """Count what is done since last time."""
        self._done += amount
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, said=clean(self._state(now)))
        elif now - self._spoke >= _QUIET_SECONDS and self._done < self._total:
            self._spoke = now
            say(self._state(now))

    def _state(self, now: float) -> str:
        speed = self._done / max(now - self._started, 1e-3)
        left = (self._total - self._done) / max(speed, 1e-9)
        time_left = f"{left / _MINUTE:.0f} min" if left >= 2 * _MINUTE else f"{left:.0f} s"
        share = 100 * self._done / max(self._total, 1e-9)
        return f"{self._what}: {share:.0f} %, {speed:.3g} {self._unit}/s, about {time_left} left"


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        BarColumn(),
        TextColumn("{task.fields[said]}", markup=False),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
