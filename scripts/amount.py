"""How far a long job on one thing is, on stderr: share, speed and time left."""

import time

from tnet.scripts.output import clean, say
from tnet.scripts.progress import Live, duration, told_bar


class Amount(Live):
    """Counts how much of a job is done.

    Args:
        what: is worked on.
        total: how much there is to do.
        unit: of that.
    """

    def __init__(self, what: str, total: float, unit: str) -> None:
        super().__init__(told_bar, total=total, said=clean(what))
        self._what = what
        self._total = total
        self._unit = unit
        self._done = 0.0

    def add(self, amount: float) -> None:
        """Count what is done since last time."""
        self._done += amount
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, said=clean(self._state()))
        elif self._done < self._total and self._is_time():
            say(self._state())

    def _state(self) -> str:
        speed = self._done / max(time.monotonic() - self._started, 1e-3)
        left = duration((self._total - self._done) / max(speed, 1e-9))
        share = 100 * self._done / max(self._total, 1e-9)
        return f"{self._what}: {share:.0f} %, {speed:.3g} {self._unit}/s, about {left} left"
