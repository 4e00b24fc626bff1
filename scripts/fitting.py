"""The training itself: settings from the configuration, Lightning's trainer, and its end."""

import copy
import importlib.util
import logging
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from tnet.datasets.loading import Images, loader
from tnet.model import TNet
from tnet.objective import Rule
from tnet.scripts.config import Config
from tnet.scripts.keeping import Both, Keeping
from tnet.scripts.learning import Averaging, Ongoing, without_trainer
from tnet.scripts.parts import Parts, class_weights
from tnet.scripts.rules import Learning, learning
from tnet.scripts.runs import Run
from tnet.scripts.stopping import Stopped
from tnet.settings import Sample, Settings
from tnet.task import Training

if TYPE_CHECKING:
    from tnet.datasets.augment import Augment
    from tnet.memory import Memory

_CHATTY = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning")
_RULE = (
    *("main_reinforce", "cap", "contrastive", "margin", "l2"),
    *("reward", "baseline", "normalise", "label_smoothing"),
)
_SAME = (
    *("samples", "lr", "head_lr", "weight_decay", "supervise"),
    *("temperature", "tiles_share", "schedule", "warmup", "optimizer"),
)


@dataclass(frozen=True)
class Task:
    """What is trained, on what.

    Attributes:
        model: it learns.
        freeze: what of it does not.
        parts: the images.
        config: how.
        augment: name of how images are varied; numbers of ``config.vary`` go before its own.
        absent: class of a glimpse that shows no box; -100 is none.
    """

    model: TNet
    freeze: str
    parts: Parts
    config: Config
    augment: str
    absent: int = -100

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.parts.train) // self.config.batch)

    @property
    def steps(self) -> int:
        """Steps of the optimiser in the whole training."""
        return self.config.epochs * -(-self.batches // self.config.accumulate)

    @property
    def chooses(self) -> bool:
        """Whether there are choices that can be learned."""
        return bool(self.model.plan.steps) and self.config.model != "random"

    @property
    def learning(self) -> Learning:
        """The learning rule."""
        return learning(self.config, self.model.aggregate, self.model.plan)

    @property
    def remembers(self) -> bool:
        """Whether a view's feature stays what it is, so that looks can be remembered."""
        from tnet.datasets.augment import Augment

        return self.freeze == "backbone" and self.variation == Augment()

    @property
    def variation(self) -> "Augment":
        """How far images are changed while training."""
        from tnet.datasets.augment import Augment

        return Augment.named(self.augment).but(self.config.vary or {})

    @property
    def varied(self) -> str:
        """How images are changed, in a few words."""
        numbers = ", ".join(f"{name} {value}" for name, value in (self.config.vary or {}).items())
        return f"{self.augment}, but {numbers}" if numbers else self.augment

    def images(self, *, train: bool) -> Images:
        """Return the images to learn from, or those to measure on."""
        return Images(
            self.parts.train if train else self.parts.val,
            self.parts.manifest,
            seed=self.config.seed,
            augment=self.variation if train else None,
            expects=self.model.expects,
            keep_open=max(self.config.keep_open, self.config.batch),
            mpp=self.config.mpp,
        )

    def settings(self) -> Settings:
        """Return how the learning rule is to be applied."""
        config = self.config
        learned = self.learning
        values: dict[str, Any] = {name: getattr(config, name) for name in _SAME}
        rule: dict[str, Any] = {name: getattr(config, name) for name in _RULE}
        rule |= {"main_ce": learned.main_ce, "reinforce": learned.reinforce}
        values |= {"distill": learned.distill, "entropy": learned.entropy}
        anneal = learned.anneal
        if not self.chooses:
            # Nothing is chosen, so that there is no choice to learn.
            rule["reinforce"] = values["distill"] = values["supervise"] = values["entropy"] = 0.0
            values["temperature"] = 1.0
            anneal = None
        weights = class_weights(self.parts) if config.class_weights == "balanced" else None
        return Settings(
            rule=Rule(**rule),
            policy="uniform" if config.model == "random" else cast(Any, config.policy),
            steps=self.steps,
            absent=self.absent,
            anneal=anneal,
            freeze=cast(Any, self.freeze),
            class_weights=weights,
            multilabel=self.parts.manifest.multilabel,
            **values,
        )


@dataclass(frozen=True)
class Measure:
    """What steps of training took, before the training.

    Attributes:
        first, later: seconds of the first step, and of one after it.
        memory: the most bytes in use: of the GPU, or of the process; None if unknown.
    """

    first: float
    later: float
    memory: int | None

    def whole(self, batches: int, epochs: int, *, remembered: bool) -> float:
        """Return about how many seconds the training will take.

        Args:
            batches: of an epoch.
            epochs: how many.
            remembered: whether only the first epoch reads.
        """
        slow = batches if remembered else 0
        return slow * self.first + (batches * epochs - slow) * self.later


def measured(task: Task, device: str, memory: "Memory | None" = None) -> Measure:
    """Take two steps with a copy of the model, on the first images, and learn nothing."""
    images = task.images(train=True)
    batch: Sequence[Sample] = [images[i] for i in range(min(task.config.batch, len(images)))]
    learner = Training(copy.deepcopy(task.model), task.settings(), memory=memory)
    trial = without_trainer(learner).to(device).train()
    seconds = []
    cuda = device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with torch.random.fork_rng():
        for _ in range(2):
            started = time.perf_counter()
            with _autocast(task.config, device):
                loss = trial.training_step(batch, 0)
            if loss.requires_grad:
                loss.backward()
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    images.close()
    return Measure(seconds[0], seconds[1], torch.cuda.max_memory_allocated() if cuda else _peak())


def _peak() -> int | None:
    """Return the most memory that the process had so far, in bytes."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kilobytes) * (1 if sys.platform == "darwin" else 1024)


def _autocast(config: Config, device: str) -> Any:
    kind = precision(config, device)
    if kind == "32-true":
        return nullcontext()
    dtype = torch.bfloat16 if kind.startswith("bf16") else torch.float16
    return torch.autocast(device, dtype)


def precision(config: Config, device: str) -> str:
    """Return Lightning's name of the precision."""
    if config.precision != "auto":
        return config.precision
    return "bf16-mixed" if device == "cuda" else "32-true"


def fit(
    task: Task, run: Run, record: dict[str, Any], device: str, memory: "Memory | None" = None
) -> Keeping:
    """Train, from the beginning or from the run's checkpoint; return what came of it.

    Raises:
        Stopped: if the user stopped it; a checkpoint is kept.
        DataError: if too many images can no longer be read, the weights are no numbers, or the
            checkpoint is damaged.
        OutputError: if the run cannot be written.
    """
    config = task.config
    train, val = task.images(train=True), task.images(train=False)
    averaging = Averaging(config.ema) if config.ema else None
    keeping = Keeping(run, config, Both(train, val), averaging, record, task.batches)
    learner = Training(task.model, task.settings(), memory=memory)
    batches = Ongoing(
        loader(train, config.batch, shuffle=True, seed=config.seed, balanced=config.balanced)
    )
    with quiet(), keeping.stop.listening(), keeping.epochs:
        trainer = _trainer(config, run, device, [averaging, keeping])
        checkpoint = run.sound_checkpoint()
        try:
            trainer.fit(
                learner,
                batches,
                loader(val, config.batch, shuffle=False, seed=config.seed),
                ckpt_path=checkpoint,
                weights_only=True,
            )
        except (KeyboardInterrupt, SystemExit) as error:  # Lightning's answer to a second Ctrl-C
            raise Stopped(128 + (keeping.stop.signal or signal.SIGINT)) from error
        finally:
            train.close()
            val.close()
    return keeping


def _trainer(config: Config, run: Run, device: str, callbacks: Sequence[Any]) -> lightning.Trainer:
    loggers: Any = False
    if any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX")):
        from lightning.pytorch.loggers import TensorBoardLogger

        loggers = TensorBoardLogger(run.folder, name="tensorboard", version="")
    return lightning.Trainer(
        default_root_dir=run.folder,
        max_epochs=config.epochs,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision=cast(Any, precision(config, device)),
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip or None,
        callbacks=[callback for callback in callbacks if callback is not None],
        logger=loggers,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        plugins=[LightningEnvironment()],  # whatever cluster this is: one process on one device
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's and torch's talk from the user's terminal."""
    levels = {name: logging.getLogger(name).level for name in _CHATTY}
    try:
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
