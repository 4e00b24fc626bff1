"""How far a training is: a bar on a terminal, and a line an epoch everywhere."""

import math
import time

from tnet.scripts.output import say
from tnet.scripts.progress import Live, duration, told_bar

_SHOWN = {
    "train_loss": "loss",
    "train_accuracy": "accuracy",
    "val_loss": "val loss",
    "val_accuracy": "val accuracy",
    "val_balanced_accuracy": "balanced",
    "val_auroc": "auroc",
    "val_recall": "recall",
}


class Epochs(Live):
    """Counts batches over all epochs.

    Args:
        epochs: how many there are.
        batches: of an epoch.
    """

    def __init__(self, epochs: int, batches: int) -> None:
        super().__init__(told_bar, total=epochs * batches, said="")
        self._epochs, self._batches = epochs, batches
        self._done = self._first = 0
        self._loss = math.nan

    def begin(self, epoch: int, batch: int) -> None:
        """Start counting at a batch of an epoch, both from 0.

        After an epoch's last batch an epoch is meant that has not begun.
        """
        self._done = self._first = epoch * self._batches + batch % self._batches
        self._started = time.monotonic()

    def step(self, loss: float | None) -> None:
        """Count a batch."""
        self._done += 1
        if loss is not None:
            smooth = 0.9 if math.isfinite(self._loss) else 0.0
            self._loss = smooth * (self._loss if smooth else 0.0) + (1 - smooth) * loss
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, said=self._state())
        elif self._done % self._batches and self._is_time():
            say(self._state())

    def line(self, epoch: int, values: dict[str, float], mark: str = "") -> str:
        """Return what is to be said at the end of an epoch, counted from 1.

        Args:
            epoch: the one that ended.
            values: what was measured.
            mark: what it is beside the best one so far.
        """
        shown = [f"{_SHOWN[n]} {values[n]:.3f}" for n in _SHOWN if math.isfinite(_of(values, n))]
        left = "" if epoch == self._epochs else f", about {duration(self._left())} left"
        return f"epoch {epoch}/{self._epochs}: {', '.join(shown)}{mark}{left}"

    def _state(self) -> str:
        epoch, batch = divmod(max(self._done - 1, 0), self._batches)
        return (
            f"epoch {epoch + 1}/{self._epochs}, batch {batch + 1}/{self._batches}, "
            f"loss {self._loss:.3f}, about {duration(self._left())} left"
        )

    def _left(self) -> float:
        """Return seconds, by what was done since this process began and what is left to do."""
        done = max(self._done - self._first, 1)
        whole = self._epochs * self._batches
        return (time.monotonic() - self._started) / done * (whole - self._done)


def _of(values: dict[str, float], name: str) -> float:
    return values.get(name, math.nan)
