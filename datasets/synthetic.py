"""Synthetic slides of a gigapixel: sparse OME-Zarr images made from a seed, with their truth.

A slide shows white glass, a few pieces of pink tissue, and in these some purple patches that a
thumbnail shows already. Every patch holds small round objects. In a ``normal`` slide all of them
are decoys; in a ``ring`` or ``cluster`` slide one or two patches hold targets, which look like
decoys until they are seen near full resolution (see ``texture.draw_object``). One seed with
three labels makes three slides that differ in nothing else.
"""

import csv
import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tnet.datasets.slide_layout import Box, Layout
from tnet.datasets.slide_writer import SHARD, write_slide
from tnet.errors import DataError, UsageError

CLASSES = ("normal", "ring", "cluster")

_VERSION = 1  # of the pixels that a seed makes


@dataclass(frozen=True, slots=True)
class Slide:
    """A finished slide and what is to be found in it; boxes are (x, y, width, height)."""

    path: Path
    label: str
    size: int
    targets: tuple[Box, ...]
    decoys: tuple[Box, ...]
    patches: tuple[Box, ...]


def make_slide(path: Path, label: str, seed: int, size: int = 32768) -> Slide:
    """Write the slide of ``seed`` to ``path``, and its truth to ``NAME.truth.json`` beside it.

    Args:
        path: the folder to make, such as ``slide.ome.zarr``; it appears when it is complete.
        label: one of ``CLASSES``.
        seed: not negative; the same seed, label and size make the same pixels.
        size: side of the square image, a multiple of 2048 from 4096.

    Raises:
        UsageError: if the label or the size is not possible.
        DataError: if ``path`` exists already.
        OSError: if it cannot be written.
    """
    if label not in CLASSES:
        raise UsageError(f"the label must be one of {', '.join(CLASSES)}, got {label!r}")
    if size < 2 * SHARD or size % SHARD:
        raise UsageError(f"the size must be a multiple of {SHARD} from {2 * SHARD}, got {size}")
    if path.exists():
        raise DataError(f"{path} exists already; remove it or choose another name")
    layout = Layout(label, seed, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with _refusals():
        write_slide(partial, layout)
    slide = Slide(path, label, size, layout.targets, layout.decoys, layout.boxes)
    truth = {"version": _VERSION, "seed": seed, **asdict(slide), "path": path.name}
    _truth_path(path).write_text(json.dumps(truth))
    partial.rename(path)
    return slide


def make_dataset(
    folder: Path,
    count: int,
    seed: int,
    size: int = 32768,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Slide]:
    """Make ``count`` slides, as many of each class as possible, and ``labels.csv``.

    Slides that an earlier call with the same seed and size completed are kept; a larger count
    adds to them.

    Args:
        folder: where the slides go; it is made if need be.
        count: how many slides.
        seed: not negative; slides of different seeds differ.
        size: side of each image in pixels, as for ``make_slide``.
        workers: processes; 1 works in this one. More are spawned, so the calling script needs
            its ``if __name__ == "__main__"``.
        on_progress: called with how many slides are complete, and how many there will be.

    Raises:
        DataError: if the folder holds other slides under the same names.
    """
    jobs = [_job(folder, number, seed, size) for number in range(count)]
    slides = {job[0]: slide for job in jobs if (slide := _finished(*job)) is not None}
    missing = [job for job in jobs if job[0] not in slides]

    def done(slide: Slide) -> None:
        slides[slide.path] = slide
        if on_progress is not None:
            on_progress(len(slides), count)

    if workers <= 1 or len(missing) <= 1:
        for job in missing:
            done(make_slide(*job))
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(missing)), spawn) as pool:
            try:
                for future in as_completed([pool.submit(make_slide, *job) for job in missing]):
                    done(future.result())
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["image", "label"])
        rows.writerows([path.name, label] for path, label, _, _ in jobs)
    return [slides[path] for path, _, _, _ in jobs]


def read_truth(path: Path) -> Slide:
    """Return what ``make_slide`` said of the slide at ``path``."""
    try:
        truth = json.loads(_truth_path(path).read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path} has no {_truth_path(path).name} beside it") from error
    boxes = (tuple(map(tuple, truth[name])) for name in ("targets", "decoys", "patches"))
    return Slide(path, truth["label"], truth["size"], *boxes)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the system refuses tensorstore, told as a ValueError, into the OSError it is."""
    try:
        yield
    except ValueError as error:
        refused = re.search(r"\[os_error_code='(\d+)'", str(error))
        if refused is None:
            raise
        number = int(refused[1])
        raise OSError(number, os.strerror(number)) from error


def _truth_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".zarr").removesuffix(".ome") + ".truth.json")


def _job(folder: Path, number: int, seed: int, size: int) -> tuple[Path, str, int, int]:
    """Return the arguments of ``make_slide`` for slide ``number``, whatever their count."""
    block, place = divmod(number, len(CLASSES))
    label = CLASSES[np.random.default_rng([seed, block]).permutation(len(CLASSES))[place]]
    own = int(np.random.SeedSequence([seed, 1, number]).generate_state(1)[0])
    return folder / f"slide-{number:04d}.ome.zarr", label, own, size


def _finished(path: Path, label: str, seed: int, size: int) -> Slide | None:
    """Return the slide if it exists and is this one.

    Raises:
        DataError: if it is another one.
    """
    if not path.exists():
        return None
    slide = read_truth(path)
    truth = json.loads(_truth_path(path).read_text())
    found = truth["version"], truth["seed"], slide.label, slide.size
    if found != (_VERSION, seed, label, size):
        raise DataError(f"{path} was made with another seed or size; choose another folder")
    return slide
