"""What a model says of labelled images, and what that costs: the numbers behind a report.

K classes. An image that fails is left out, named and counted; the others are evaluated.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tnet.calibration import probabilities_of
from tnet.datasets.metrics import Outcomes
from tnet.errors import UsageError
from tnet.record import NO_EVIDENCE
from tnet.scripts.evaluation_boxes import found
from tnet.scripts.output import reason

if TYPE_CHECKING:
    from tnet.datasets.manifest import Entry
    from tnet.geometry import Region
    from tnet.model import TNet
    from tnet.plan import Plan
    from tnet.pyramid import Pyramid
    from tnet.record import Walk
    from tnet.scripts.prepare import Wishes

# Factors on the numbers of glimpses of the curve; 0 is the first look alone.
FACTORS = (0.0, 0.25, 0.5, 1.0, 2.0)
COSTS = ("glimpses", "pixels", "share", "seconds", "cpu_seconds")
_APART = 1_000_003  # of the seeds of two runs


@dataclass(frozen=True)
class Job:
    """What is done with every image.

    Attributes:
        table: names the images.
        model: is evaluated.
        wished: how images are opened.
        seed: of the draws, for plans that draw; every image has draws of its own.
        batch: how many images are walked over together.
        debug: whether the traceback of every failure is shown.
    """

    table: Path
    model: "TNet"
    wished: "Wishes"
    seed: int
    batch: int
    debug: bool


@dataclass(frozen=True)
class Seen:
    """What came of one image; of one that failed only the ``error``.

    Attributes:
        entry: its row of the table.
        error: why it failed, in one sentence.
        probabilities: of the K classes, calibrated.
        uncalibrated: the same at a temperature of 1.
        temperature: of the model's calibration.
        answered: False where all was background and the model has no answer.
        found: with boxes, of each level below the first look, how many of their centres lay
            inside a glimpse.
        boxes: how many there are.
        glimpses: views that went through the network.
        pixels: that the network looked at.
        share: the same as a fraction of the image's own.
        seconds: wall time of the walk.
        cpu_seconds: of opening, reading and walking, shared evenly among a batch.
        notes: what the reader had to say.
    """

    entry: "Entry"
    error: str | None = None
    probabilities: tuple[float, ...] = ()
    uncalibrated: tuple[float, ...] = ()
    temperature: float = 1.0
    answered: bool = True
    found: tuple[int, ...] = ()
    boxes: int = 0
    glimpses: int = 0
    pixels: int = 0
    share: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def hit(self) -> bool | None:
        """Whether a glimpse of the last level held a box's centre; None if nobody can say."""
        return self.found[-1] > 0 if self.boxes and self.found else None


def evaluated(
    job: Job, plan: "Plan", entries: "Sequence[Entry]", done: Callable[[Seen], None]
) -> list[Seen]:
    """Walk over images by a plan and return what came of each, in their order.

    Args:
        job: what is done with them.
        plan: how far and how wide to walk.
        entries: the images.
        done: is told of each image as soon as it is known.

    Raises:
        UsageError: if the plan makes no sense for the model.
    """
    results = []
    for start in range(0, len(entries), job.batch):
        for seen in _batch(job, plan, entries[start : start + job.batch]):
            done(seen)
            results.append(seen)
    return results


@contextmanager
def rewalked(job: Job, plan: "Plan", entry: "Entry") -> "Iterator[tuple[Walk, Pyramid]]":
    """Walk over one image again, with the same draws, and give the record while it is open.

    Raises:
        TNetError: if it cannot be done, any more.
    """
    with ExitStack() as stack:
        pyramid = _opened(job, entry)
        stack.callback(_close, pyramid)
        (walk,) = _walked(job, plan, [entry], [pyramid])
        if isinstance(walk, Exception):
            raise walk
        yield walk, pyramid


def _batch(job: Job, plan: "Plan", entries: "Sequence[Entry]") -> Iterator[Seen]:
    """Give what came of a few images that are walked over together, in their order."""
    failed: dict[int, Exception] = {}
    opened: dict[int, Pyramid] = {}
    boxes: dict[int, tuple[Region, ...]] = {}
    with ExitStack() as stack:
        before = time.process_time()
        for entry in entries:
            try:
                opened[entry.row] = _opened(job, entry)
                stack.callback(_close, opened[entry.row])
                boxes[entry.row] = _boxes(entry, opened[entry.row])
            except Exception as error:
                failed[entry.row] = error
                opened.pop(entry.row, None)
        there = [entry for entry in entries if entry.row in opened]
        walks = dict(zip(opened, _walked(job, plan, there, list(opened.values())), strict=True))
        each = (time.process_time() - before) / len(entries)
        for entry in entries:
            outcome = failed.get(entry.row) or walks[entry.row]
            if isinstance(outcome, Exception):
                yield _failed(job, entry, outcome)
            else:
                yield _seen(entry, outcome, boxes[entry.row], each)


def _opened(job: Job, entry: "Entry") -> "Pyramid":
    from tnet.scripts.prepare import opened

    wished = job.wished if entry.mpp is None else replace(job.wished, mpp=entry.mpp)
    return opened(entry.image, wished, job.model.expects)


def _close(pyramid: "Pyramid") -> None:
    """Let go of a file; one that cannot be let go of has been read nevertheless."""
    with suppress(Exception):
        pyramid.close()


def _boxes(entry: "Entry", pyramid: "Pyramid") -> "tuple[Region, ...]":
    from tnet.datasets.boxes import evidence

    return evidence(entry.boxes, entry.mask, pyramid.width, pyramid.height)


def _walked(
    job: Job, plan: "Plan", entries: "Sequence[Entry]", pyramids: "list[Pyramid]"
) -> "list[Walk | Exception]":
    """Walk over images together; if that fails, one by one, so that only the culprit does."""
    from tnet.traversal import walk

    seeds = [job.seed * _APART + entry.row for entry in entries]
    try:
        return list(walk(job.model, pyramids, plan, seed=seeds))
    except UsageError:
        raise
    except Exception as error:
        if len(pyramids) == 1:
            return [error]
    pairs = zip(entries, pyramids, strict=True)
    return [_walked(job, plan, [entry], [pyramid])[0] for entry, pyramid in pairs]


def _failed(job: Job, entry: "Entry", error: Exception) -> Seen:
    if job.debug:
        traceback.print_exception(error)
    said = reason(str(entry.image), error)
    return Seen(entry, error=f"{job.table}, row {entry.row}: {said}")


def _seen(entry: "Entry", walk: "Walk", boxes: "tuple[Region, ...]", cpu_seconds: float) -> Seen:
    answered = walk.outcome != NO_EVIDENCE
    knowing_nothing = (0.5 if walk.multilabel else 1 / len(walk.classes),) * len(walk.classes)
    plain = probabilities_of(walk.logits, multilabel=walk.multilabel)
    return Seen(
        entry,
        probabilities=tuple(walk.probabilities.tolist()) if answered else knowing_nothing,
        uncalibrated=tuple(plain.tolist()) if answered else knowing_nothing,
        temperature=walk.temperature,
        answered=answered,
        found=found(walk, boxes),
        boxes=len(boxes),
        glimpses=walk.looks,
        pixels=walk.pixels,
        share=walk.share,
        seconds=walk.seconds,
        cpu_seconds=cpu_seconds,
        notes=walk.notes,
    )


def outcomes_of(seen: Sequence[Seen], classes: tuple[str, ...], *, multilabel: bool) -> Outcomes:
    """Return what was said of the images that did not fail, and what is true."""
    good = [one for one in seen if one.error is None]
    shape = (len(good), len(classes))
    probability = np.array([one.probabilities for one in good], np.float64).reshape(shape)
    target = np.array([[name in one.entry.labels for name in classes] for one in good], bool)
    answered = np.array([one.answered for one in good], bool)
    return Outcomes(classes, probability, target.reshape(shape), answered, multilabel)


def groups_of(seen: Sequence[Seen]) -> list[str] | None:
    """Return the group of each image that did not fail; one without is a group of its own."""
    good = [one.entry for one in seen if one.error is None]
    if all(entry.group is None for entry in good):
        return None
    return [f"={entry.group}" if entry.group is not None else f"row {entry.row}" for entry in good]


def costs_of(seen: Sequence[Seen]) -> dict[str, float | None]:
    """Return the mean cost of an image: of glimpses, pixels, time."""
    good = [one for one in seen if one.error is None]
    return {
        name: float(np.mean([getattr(one, name) for one in good])) if good else None
        for name in COSTS
    }


def scaled(plan: "Plan", factor: float) -> "Plan":
    """Return a plan with other numbers of glimpses.

    Every step's number is multiplied, rounded, and kept between 1 and what its grid holds; 0
    looks at the image once.
    """
    if factor == 0:
        return replace(plan, steps=(), until="steps")
    steps = tuple(
        replace(step, glimpses=max(1, min(round(step.glimpses * factor), step.rows * step.columns)))
        for step in plan.steps
    )
    return replace(plan, steps=steps)
