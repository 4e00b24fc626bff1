"""Looking into every image before anything is learned from it: can it be read, and is it alone?

Nothing here reads more than a window of an image that is stored in tiles.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from tnet.adapters import Limits, open_pyramid
from tnet.datasets.boxes import check_boxes
from tnet.datasets.entries import Entry, together
from tnet.datasets.table import TableError, listed
from tnet.errors import DataError, one_line
from tnet.geometry import Region
from tnet.pyramid import Pyramid

MOST_UNREADABLE = 0.05  # of the images: more mean that something else is wrong

_WINDOW = 64  # pixels a side that are read of every image
_SMALL = 2**24  # pixels of a level that is quickly read as a whole
_PIECE = 2**16  # bytes of a file that tell it from most others
_KEYED = 2**20  # bytes read at a time
_Item = TypeVar("_Item")

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image is.

    Attributes:
        width, height: pixels of level 0.
        bands: values a pixel.
        dtype: numpy name of their type.
        mpp: µm per px of level 0, the mean of both directions; the row's own where it has one.
        format: what kind of file it is.
    """

    width: int
    height: int
    bands: int
    dtype: str
    mpp: float | None
    format: str


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
    """Open all images, several side by side, and read a little of each.

    Args:
        entries: rows of a manifest.
        told: called with how many are done, and how many there are.
        source: the table, for messages.
        limits: what a file may declare.

    Raises:
        DataError: if more than 5 % of the images cannot be read, the same image is in two
            splits, images differ in their bands or values, or a box lies outside its image; the
            sentence names the rows.
    """
    where = f"{source}: " if source else ""
    outcomes = _side_by_side(lambda entry: _looked_into(entry, limits), entries, told)
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


def same_content(entries: Sequence[Entry]) -> tuple[tuple[Entry, ...], ...]:
    """Return the rows whose files are byte for byte the same, in groups of two or more.

    Sizes are compared first, then a few pieces of the files, and all bytes only of those that
    are still alike. Files that cannot be read are left out.
    """
    groups: list[list[Entry]] = [list(entries)]
    for key in (_outline, _size, _pieces, _bytes):
        alike = []
        for group in groups:
            keys = _side_by_side(partial(_known, key), group)
            keyed = together(zip(keys, group, strict=True))
            alike += [same for same in keyed.values() if len(same) > 1]
        groups = alike
    return tuple(tuple(group) for group in groups)


def _looked_into(entry: Entry, limits: Limits | None) -> ImageFacts | str:
    """Return the facts of an image, or why it cannot be read.

    Raises:
        TableError: if a box lies outside it.
    """
    try:
        with open_pyramid(entry.image, mpp=entry.mpp, limits=limits) as pyramid:
            _try_reading(pyramid)
            mpp = pyramid.mpp
            facts = ImageFacts(
                width=pyramid.width,
                height=pyramid.height,
                bands=pyramid.bands,
                dtype=str(pyramid.dtype),
                mpp=None if mpp is None else sum(mpp) / 2,
                format=pyramid.format,
            )
    except Exception as error:  # decoders of damaged files fail in many ways
        return one_line(error) or type(error).__name__
    try:
        check_boxes(entry.boxes, facts.width, facts.height)
    except DataError as error:
        raise TableError(f"{entry.image}, row {entry.row}: {error}") from error
    return facts


def _try_reading(pyramid: Pyramid) -> None:
    """Read a window amid the finest level, and the coarsest level where that is small."""
    size = (min(_WINDOW, pyramid.width), min(_WINDOW, pyramid.height))
    left, top = (pyramid.width - size[0]) // 2, (pyramid.height - size[1]) // 2
    pyramid.read(Region(left, top, *size), size)
    coarsest = pyramid.levels[-1]
    if coarsest.width * coarsest.height <= _SMALL:
        pyramid.read(Region(0, 0, pyramid.width, pyramid.height), (_WINDOW, _WINDOW))


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


def _side_by_side(
    look: Callable[[Entry], _Item], entries: Sequence[Entry], told: Told | None = None
) -> list[_Item]:
    """Return what ``look`` makes of every row, in order, several at once."""
    found = []
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as threads:
        try:
            for result in threads.map(look, entries):
                found.append(result)
                if told is not None:
                    told(len(found), len(entries))
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return found


def _known(key: Callable[[Path], Hashable], entry: Entry) -> Hashable:
    """Return the key of a row's file; one that cannot be read is like no other."""
    try:
        return key(entry.image)
    except OSError:
        return entry.image


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _outline(path: Path) -> Hashable:
    """Return the size of a file; of a folder names and sizes of what lies in it directly."""
    if not path.is_dir():
        return path.stat().st_size
    files = [file for file in path.iterdir() if file.is_file()]
    return tuple(sorted((file.name, file.stat().st_size) for file in files))


def _size(path: Path) -> Hashable:
    """Return the size of a file; of a folder names and sizes."""
    return tuple(
        (str(file.relative_to(path)), file.stat().st_size) if path.is_dir() else file.stat().st_size
        for file in _files(path)
    )


def _pieces(path: Path) -> Hashable:
    """Return a hash of the beginning, the middle and the end of every file."""
    digest = hashlib.sha256()
    for file in _files(path):
        with file.open("rb") as stream:
            length = stream.seek(0, os.SEEK_END)
            for start in (0, length // 2, max(0, length - _PIECE)):
                stream.seek(start)
                digest.update(stream.read(_PIECE))
    return digest.digest()


def _bytes(path: Path) -> Hashable:
    """Return a hash of all bytes."""
    digest = hashlib.sha256()
    for file in _files(path):
        with file.open("rb") as stream:
            while block := stream.read(_KEYED):
                digest.update(block)
    return digest.digest()
