"""What a training needs beside the learning rule: averaged weights, and going on amid an epoch."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.utils.data import DataLoader

from tnet.model import TNet
from tnet.settings import Sample
from tnet.task import Training


class Averaging(WeightAveraging):
    """An exponential moving average of all weights; validation is done with it.

    Early on the decay is (1 + n) / (10 + n) after n steps, or the first weights, which know
    nothing, would stay in the average for long.

    Args:
        decay: of the average.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=lambda mean, now, n: average(decay, mean, now, n))

    @property
    def model(self) -> TNet:
        """The model with the averaged weights."""
        assert self._average_model is not None
        return cast(Training, self._average_model.module).model


def average(decay: float, mean: Tensor, now: Tensor, steps: Tensor | int) -> Tensor:
    """Return the mean moved towards a value, after a number of steps."""
    count = float(steps)
    share = min(decay, (1 + count) / (10 + count))
    if not mean.is_floating_point():  # counters
        return now
    return torch.lerp(now, mean, share)


class Ongoing:
    """Batches of a loader that can be gone on with in the midst of an epoch.

    Its state is how many batches were handed out; Lightning keeps it with the checkpoint. The
    order depends on the epoch alone, so that the rest of it is the rest of the epoch.

    Args:
        loader: with a batch sampler; what it skips is not even opened.
    """

    def __init__(self, loader: "DataLoader[Any]") -> None:
        self._loader = loader
        self._skip = 0
        self._given = 0

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[Sample]]:
        self._given, self._skip = self._skip, 0
        sampler = self._loader.batch_sampler
        assert sampler is not None
        for places in islice(iter(sampler), self._given, None):
            self._given += 1
            yield [self._loader.dataset[place] for place in places]

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of this epoch are done."""
        return {"batches": self._given % max(len(self), 1)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next epoch after the batches that are done."""
        self._skip = int(state["batches"])


def without_trainer(task: Training) -> Training:
    """Let a step be taken outside a trainer: nothing is logged."""
    task.log = task.log_dict = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    return task


def current(trainer: lightning.Trainer, averaging: Averaging | None) -> TNet:
    """Return the model that is measured and kept: the averaged one if there is one."""
    return averaging.model if averaging else cast(Training, trainer.lightning_module).model
