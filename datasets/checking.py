"""Looking into every image before anything is learned from it: can it be read, and is it alone?

Nothing here reads more than a window of an image that is stored in tiles.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tnet.adapters import Limits, open_pyramid
from tnet.background import foreground
from tnet.datasets.abreast import Told, side_by_side
from tnet.datasets.boxes import check_boxes, mask_boxes
from tnet.datasets.copies import same_content
from tnet.datasets.entries import Entry
from tnet.datasets.table import TableError, listed
from tnet.errors import DataError, one_line
from tnet.geometry import Region
from tnet.pyramid import Pyramid

MOST_UNREADABLE = 0.05  # of the images: more mean that something else is wrong

_WINDOW = 64  # pixels a side that are read of every image
_SMALL = 2**24  # pixels of a level that is quickly read as a whole


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image is.

    Attributes:
        width, height: pixels of level 0.
        bands: values a pixel.
        dtype: numpy name of their type.
        mpp: µm per px of level 0, the mean of both directions; the row's own where it has one.
        format: what kind of file it is.
        boxes: how many there are, those of the mask included.
        shown: share of a small view of the whole image that is no background; 1 where there is
            no such view.
    """

    width: int
    height: int
    bands: int
    dtype: str
    mpp: float | None
    format: str
    boxes: int = 0
    shown: float = 1.0


@dataclass(frozen=True)
class Checked:
    """What came of looking into the images.

    Attributes:
        readable: rows whose images can be read, in their order.
        facts: of these images.
        unreadable: the other rows, each with the reason.
        duplicates: rows whose files are byte for byte the same.
    """

    readable: tuple[Entry, ...]
    facts: tuple[ImageFacts, ...]
    unreadable: tuple[tuple[Entry, str], ...]
    duplicates: tuple[tuple[Entry, ...], ...] = ()


def check_images(
    entries: Sequence[Entry],
    told: Told | None = None,
    *,
    source: Path | None = None,
    limits: Limits | None = None,
) -> Checked:
    """Open all images, several side by side, and read a little of each, and its mask.

    Args:
        entries: rows of a manifest.
        told: called with how many are done, and how many there are.
        source: the table, for messages.
        limits: what a file may declare.

    Raises:
        DataError: if more than 5 % of the images or their masks cannot be read, the same image
            is in two splits, images differ in their bands or values, or a box lies outside its
            image; the sentence names the rows.
    """
    where = f"{source}: " if source else ""
    outcomes = side_by_side(lambda entry: _looked_into(where, entry, limits), entries, told)
    readable = [(e, o) for e, o in zip(entries, outcomes, strict=True) if not isinstance(o, str)]
    unreadable = tuple((e, o) for e, o in zip(entries, outcomes, strict=True) if isinstance(o, str))
    _check_share(where, unreadable, len(entries))
    facts = tuple(fact for _, fact in readable)
    rows = tuple(entry for entry, _ in readable)
    _check_alike(where, rows, facts)
    duplicates = same_content(rows)
    for same in duplicates:
        if len({entry.split for entry in same}) > 1:
            raise TableError(
                f"{where}{listed([entry.row for entry in same])} hold the same image in different "
                "splits, so that the test would know it; keep one row, or let tnet split make "
                "the splits"
            )
    return Checked(rows, facts, unreadable, duplicates)


def _looked_into(where: str, entry: Entry, limits: Limits | None) -> ImageFacts | str:
    """Return the facts of an image, or why it or its mask cannot be read.

    Raises:
        TableError: if a box lies outside it.
    """
    try:
        with open_pyramid(entry.image, mpp=entry.mpp, limits=limits) as pyramid:
            shown = _share_shown(pyramid)
            mpp = pyramid.mpp
            facts = ImageFacts(
                width=pyramid.width,
                height=pyramid.height,
                bands=pyramid.bands,
                dtype=str(pyramid.dtype),
                mpp=None if mpp is None else sum(mpp) / 2,
                format=pyramid.format,
                shown=shown,
            )
        masked = _masked(entry, facts, limits)
    except Exception as error:  # decoders of damaged files fail in many ways
        return one_line(error) or type(error).__name__
    try:
        check_boxes(entry.boxes, facts.width, facts.height)
    except DataError as error:
        raise TableError(f"{where}row {entry.row}: {entry.image}: {error}") from error
    return replace(facts, boxes=len(entry.boxes) + masked)


def _masked(entry: Entry, facts: ImageFacts, limits: Limits | None) -> int:
    """Return how many boxes an image's mask has.

    Raises:
        DataError: if it cannot be read.
    """
    if entry.mask is None:
        return 0
    try:
        return len(mask_boxes(entry.mask, facts.width, facts.height, limits))
    except Exception as error:  # as above
        raise DataError(f"its mask cannot be read: {one_line(error)}") from error


def _share_shown(pyramid: Pyramid) -> float:
    """Read a window amid the finest level, and all of the image where that is quickly done.

    Returns:
        share of the whole image that is no background; 1 where only the window was read.

    Raises:
        DataError: if there is no number in the whole image.
    """
    size = (min(_WINDOW, pyramid.width), min(_WINDOW, pyramid.height))
    left, top = (pyramid.width - size[0]) // 2, (pyramid.height - size[1]) // 2
    pyramid.read(Region(left, top, *size), size)
    coarsest = pyramid.levels[-1]
    if coarsest.width * coarsest.height > _SMALL:
        return 1.0
    view = pyramid.read(Region(0, 0, pyramid.width, pyramid.height), (_WINDOW, _WINDOW))
    if not np.isfinite(view).any():
        raise DataError(f"{pyramid.name}: not one of its pixels is a number")
    return float(foreground(view, pyramid).mean())


def _check_share(where: str, unreadable: Sequence[tuple[Entry, str]], total: int) -> None:
    if len(unreadable) > MOST_UNREADABLE * total:
        rows = listed([entry.row for entry, _ in unreadable])
        raise DataError(
            f"{where}{len(unreadable)} of {total} images cannot be read, more than "
            f"{MOST_UNREADABLE:.0%} ({rows}); the first: {unreadable[0][1]}"
        )


def _check_alike(where: str, rows: Sequence[Entry], facts: Sequence[ImageFacts]) -> None:
    """Make sure that one network can look at all images."""
    kinds: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for entry, fact in zip(rows, facts, strict=True):
        kinds[fact.bands, fact.dtype].append(entry.row)
    if len(kinds) > 1:
        told = "; ".join(
            f"{listed(of)}: {bands} band{'s'[: bands > 1]} of {dtype}"
            for (bands, dtype), of in sorted(kinds.items(), key=lambda kind: len(kind[1]))
        )
        raise TableError(
            f"{where}the images differ in their bands or values ({told}); a model takes one kind, "
            "so convert the images or leave rows out"
        )
