"""How far a command is, on stderr: a bar on a terminal, else a line every few seconds."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tnet.scripts.output import Result, clean, say

if TYPE_CHECKING:
    from tnet.scripts.inputs import Source

_QUIET_SECONDS = 5.0
_MINUTE = 60
_MOST_NOTES = 10


class Live:
    """A bar on a terminal while something runs; elsewhere a line every few seconds.

    Args:
        bar: makes the bar.
        fields: of its task.
    """

    def __init__(self, bar: Callable[[], Any], **fields: Any) -> None:
        self._make, self._fields = bar, fields
        self._started = self._spoke = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = self._make()
            self._task = self._bar.add_task("", **self._fields)
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

    def _is_time(self) -> bool:
        """Say whether the last line was long enough ago, and count from now on."""
        now = time.monotonic()
        if now - self._spoke < _QUIET_SECONDS:
            return False
        self._spoke = now
        return True


class Progress(Live):
    """Counts images, and tells at once of every failure and note.

    Args:
        total: how many images there are.
    """

    def __init__(self, total: int) -> None:
        super().__init__(_bar, total=total)
        self._total = total
        self._done = 0
        self._failed = 0
        self._said: set[str] = set()

    def show(self, paths: "list[Source]") -> None:
        """Say which images are looked at now."""
        if self._bar is not None:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            self._bar.update(self._task, description=clean(paths[0].name) + more)

    def advance(self, result: Result) -> None:
        """Count an image that is done; tell why it failed, or what is to be known of it.

        A note that an image before had as well is not told again, nor are more than a few in
        all; they stay in the results.
        """
        self._done += 1
        if result.error is not None:
            self._failed += 1
            say(result.error)
        for note in result.notes:
            if note not in self._said:
                self._said.add(note)
                self._tell(result.image, note)
        if self._bar is not None:
            self._bar.advance(self._task)
        elif self._done < self._total and self._is_time():
            say(self._state())

    def _tell(self, image: str, note: str) -> None:
        if len(self._said) <= _MOST_NOTES:
            say(f"note: {image}: {note}")
        elif len(self._said) == _MOST_NOTES + 1:
            say("note: further notes are not shown; --json prints them, and --out keeps them")

    def _state(self) -> str:
        left = (time.monotonic() - self._started) / self._done * (self._total - self._done)
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._done} of {self._total} images{failed}, about {duration(left)} left"


def duration(seconds: float) -> str:
    """Return a time in words."""
    return f"{seconds / _MINUTE:.0f} min" if seconds >= 2 * _MINUTE else f"{seconds:.0f} s"


def told_bar() -> Any:
    """Return a bar with the field ``said`` beside it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        BarColumn(),
        TextColumn("{task.fields[said]}", markup=False),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
