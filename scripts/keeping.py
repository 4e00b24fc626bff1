"""What a training writes after each epoch, and how it stops so that it can go on."""

import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning
import torch

from tnet.bundle import save
from tnet.datasets.augment import draw_seed
from tnet.datasets.checking import MOST_UNREADABLE
from tnet.datasets.entries import Entry
from tnet.errors import DataError, UsageError
from tnet.scripts.best import Best, cross_entropy_of, gentler, score_of
from tnet.scripts.config import Config
from tnet.scripts.epochs import Epochs
from tnet.scripts.learning import Averaging, current
from tnet.scripts.output import counted
from tnet.scripts.parts import unreadable_row
from tnet.scripts.runs import Run, read_rows, saving, write_table
from tnet.scripts.stopping import Stop
from tnet.task import Training

if TYPE_CHECKING:
    from tnet.datasets.loading import Images

_MINUTE = 60.0
# Draws of dropout and the like; images have those of their own.
_STREAM = 2**20


@dataclass
class Both:
    """The images of a training.

    Attributes:
        train: to learn from.
        val: to measure on.
    """

    train: "Images"
    val: "Images"

    def failed(self) -> dict[str, tuple[Entry, str]]:
        """Return the images that could not be read so far: "part index" -> row and reason."""
        return {
            f"{part} {index}": (images.entries[index], reason)
            for part, images in (("train", self.train), ("val", self.val))
            for index, reason in images.failed.items()
        }

    def fail(self, place: str, reason: str) -> None:
        """Leave an image out, as named by :meth:`failed`."""
        part, index = place.split()
        (self.train if part == "train" else self.val).failed[int(index)] = reason

    def __len__(self) -> int:
        return len(self.train) + len(self.val)


class Keeping(lightning.Callback):
    """Writes models, metrics and checkpoints into the run, and seeds what a step draws.

    Args:
        run: the folder.
        config: the training's.
        images: those to train on are told the epoch.
        averaging: whose weights are kept, if there are averaged ones.
        record: what goes into the model files.
        batches: of an epoch.
    """

    def __init__(
        self,
        run: Run,
        config: Config,
        images: Both,
        averaging: Averaging | None,
        record: dict[str, Any],
        batches: int,
    ) -> None:
        self._run, self._config, self._images = run, config, images
        self._averaging, self._record = averaging, record
        self.stop = Stop()
        self.epochs = Epochs(config.epochs, batches)
        self.best = Best()
        self.done = 0
        self._told: set[str] = set()
        self._before = 0.0
        self._since = self._saved = time.monotonic()

    @property
    def failed(self) -> int:
        """How many images broke during the training."""
        return len(self._told)

    @property
    def seconds(self) -> float:
        """How long the training took so far, over all times that it was begun."""
        return self._before + time.monotonic() - self._since

    def state_dict(self) -> dict[str, Any]:
        """Return what a training that goes on has to know, as plain values."""
        best = self.best
        return {
            "done": self.done,
            "best": [best.epoch, best.score, best.loss, dict(best.values)],
            "failed": {p: reason for p, (_, reason) in self._images.failed().items()},
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint holds."""
        self.best = Best(*state["best"])
        self._before = float(state["seconds"])
        for place, reason in state["failed"].items():
            self._images.fail(place, reason)
        self._told = set(state["failed"])
        self.done = int(state["done"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Take up an epoch, which a training that goes on does not start anew."""
        self._since = self._saved = time.monotonic()
        self._images.train.epoch = trainer.current_epoch
        pl_module.train()
        trainer.should_stop = self._is_idle()
        self.epochs.begin(trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_idx + 1)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Let the images be varied anew."""
        self._images.train.epoch = trainer.current_epoch

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Make what a step draws a function of where it stands, and of nothing before it."""
        torch.manual_seed(
            draw_seed(self._config.seed + _STREAM, trainer.current_epoch, batch_idx) % 2**63
        )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep a checkpoint now and then, and stop if asked to."""
        loss = outputs["loss"] if isinstance(outputs, dict) and "loss" in outputs else None
        self.epochs.step(None if loss is None else float(loss))
        self._tell_failed()
        last = batch_idx + 1 == trainer.num_training_batches
        # Gradients that are still gathered would be lost; an epoch's end has its own.
        if last or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        due = time.monotonic() - self._saved > _MINUTE * self._config.checkpoint_minutes
        if due or self.stop.signal is not None:
            self._checkpoint(trainer)
        self.stop.check()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Write the epoch's row, the models and the checkpoint."""
        self._tell_failed()
        epoch = self.done = trainer.current_epoch + 1
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._write_row(trainer, epoch, values)
        mark = self._write_models(trainer, epoch, values)
        self._checkpoint(trainer)
        self._run.tell(self.epochs.line(epoch, values, mark))
        if self._is_idle():
            patience = counted(self._config.patience or 0, "epoch")
            self._run.tell(f"no progress for {patience}: ends early")
            trainer.should_stop = True
        elif epoch < self._config.epochs:
            self.stop.check()

    def _is_idle(self) -> bool:
        """Say whether the last epochs were no better than one before them."""
        patience = self._config.patience
        return patience is not None and self.done - self.best.epoch >= patience

    def _write_row(self, trainer: lightning.Trainer, epoch: int, values: dict[str, float]) -> None:
        rates = {
            f"lr_{index}": float(group["lr"])
            for index, group in enumerate(trainer.optimizers[0].param_groups)
        }
        row = {"epoch": epoch, "step": trainer.global_step, "seconds": round(self.seconds, 1)}
        # A run that died between this table and its checkpoint has rows too many.
        rows: list[dict[str, Any]] = [
            dict(old) for old in read_rows(self._run.metrics) if int(old["epoch"]) < epoch
        ]
        write_table(self._run.metrics, [*rows, row | rates | dict(sorted(values.items()))])

    def _write_models(
        self, trainer: lightning.Trainer, epoch: int, values: dict[str, float]
    ) -> str:
        """Write the last model, and the best one if this is it; return what is to be said of it.

        Raises:
            DataError: if the weights are no numbers any more.
            OutputError: if a file cannot be written.
        """
        model = current(trainer, self._averaging)
        ranked = isinstance(self._images.train.targets[0], tuple) or len(model.classes) == 2
        score, loss = score_of(self._config, values, ranked=ranked), cross_entropy_of(values)
        better = self.best.beaten(score or 0.0, loss)
        mark = self.best.compared(score, loss)
        measured = {name: value for name, value in values.items() if math.isfinite(value)}
        if better:
            self.best = Best(epoch, score or 0.0, loss, measured)
        fitted = cast(Training, trainer.lightning_module).scores.calibration()
        model.calibration = fitted.temperature
        record = self._record | {"epoch": epoch, "measured": measured}
        record |= {"calibration": asdict(fitted)}
        try:
            for path in (self._run.last, self._run.model)[: 1 + better]:
                with saving(path):
                    save(model, path, training=record)
        except UsageError as error:
            raise DataError(
                f"the training went astray in epoch {epoch}: {error}; try lower learning rates "
                f"into another folder, such as {gentler(self._config)}; {self._run.folder} holds "
                "what came before"
            ) from error
        return mark

    def _tell_failed(self) -> None:
        """Name images that broke since last time.

        Raises:
            DataError: if there are too many by now.
            OutputError: if they cannot be written down.
        """
        failed = self._images.failed()
        new = [failed[place] for place in failed if place not in self._told]
        if not new:
            return
        self._told = set(failed)
        rows: list[dict[str, Any]] = [*read_rows(self._run.unreadable)]
        for entry, reason in new:
            self._run.tell(f"left out from now on: row {entry.row}, {entry.image}: {reason}")
            rows.append(unreadable_row(entry, reason))
        write_table(self._run.unreadable, rows)
        if self.failed > max(1.0, MOST_UNREADABLE * len(self._images)):
            raise DataError(
                f"{self.failed} of {len(self._images)} images became unreadable during the "
                f"training, more than {MOST_UNREADABLE:.0%}; see {self._run.unreadable}"
            )

    def _checkpoint(self, trainer: lightning.Trainer) -> None:
        """Write the checkpoint beside its place and rename it, so that there is always one.

        Raises:
            OutputError: if it cannot be written.
        """
        partial = self._run.checkpoint.with_suffix(".partial")
        try:
            with saving(self._run.checkpoint):
                trainer.save_checkpoint(partial)
                _flush(partial)
                partial.replace(self._run.checkpoint)
        finally:
            partial.unlink(missing_ok=True)
        self._saved = time.monotonic()


def _flush(path: Path) -> None:
    """Have a file on the disk before another one is replaced by it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
