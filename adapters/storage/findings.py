"""What a check of a store finds, and where in the picture it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tnet.adapters.storage.layout import Part
from tnet.adapters.zarr.metadata import Array

_AXES = 2  # of a picture: y and x


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a store.

    Attributes:
        file: inside the store, with "/" between; a folder where that is what is wrong; empty where
            it is the store as such.
        what: is wrong, as the end of a sentence that begins with the file.
        level: of its image, where pixels are hurt.
        part: which pixels of that level.
        region: x, y, width and height of the same in pixels of level 0.
        extra: whether the file should not be there at all.
    """

    file: str
    what: str
    level: int | None = None
    part: Part | None = None
    region: tuple[int, int, int, int] | None = None
    extra: bool = False

    def __str__(self) -> str:
        said = f"{self.file} {self.what}".strip()
        if self.part is None:
            return said
        place = _span(self.part.x, self.part.y, self.part.width, self.part.height)
        said += f": level {self.level}, {place}"
        return f"{said} ({_span(*self.region)} of level 0)" if self.level and self.region else said


@dataclass(frozen=True)
class Report:
    """What came of the check of a store.

    Attributes:
        store: its folder.
        sealed: whether it has a seal, damaged or not.
        files: how many were looked at.
        size: of these in bytes.
        faults: what is wrong.
        notes: what should be known although it is no damage.
        readable: whether it is a store at all.
    """

    store: Path
    sealed: bool = False
    files: int = 0
    size: int = 0
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    readable: bool = True

    @property
    def outcome(self) -> str:
        """Return "whole", "hurt" or "unreadable"."""
        if not self.readable:
            return "unreadable"
        return "hurt" if self.faults else "whole"


@dataclass(frozen=True)
class Stored:
    """An array of a store, and which level of an image it is.

    Attributes:
        array: what its metadata says.
        level: its number, None where it is no level.
        axes: which of the array's axes are y and x, None where it is no picture.
        scale: level-0 pixels per pixel, x and y.
        full: width and height of level 0.
    """

    array: Array
    level: int | None = None
    axes: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    full: tuple[int, int] = (0, 0)

    @property
    def grid(self) -> tuple[int, ...]:
        """How many files the array has along each axis."""
        sides = zip(self.array.shape, self.array.files, strict=True)
        return tuple(-(-length // file) for length, file in sides)

    @property
    def count(self) -> int:
        """How many chunks the array has."""
        sides = zip(self.array.shape, self.array.chunks, strict=True)
        return math.prod(-(-length // chunk) for length, chunk in sides)

    def file(self, place: Sequence[int]) -> str:
        """Return the path of a file inside the store."""
        if not self.array.shape:  # a single value, whose file no numbers name
            name = self.array.prefix.rstrip("/.") or "0"
            return f"{self.array.key}/{name}".removeprefix("/")
        return self.array.file(place)

    def place(self, file: str) -> tuple[int, ...] | None:
        """Return the place in the grid of files of a path inside the store, None if it is none."""
        if not self.array.shape:
            return () if file == self.file(()) else None
        start = f"{self.array.key}/{self.array.prefix}".removeprefix("/")
        if not file.startswith(start):
            return None
        numbers = file.removeprefix(start).split(self.array.separator)
        if len(numbers) != len(self.grid) or not all(map(str.isdecimal, numbers)):
            return None
        place = tuple(map(int, numbers))
        inside = all(n < length for n, length in zip(place, self.grid, strict=True))
        return place if inside and self.file(place) == file else None

    def fault(self, place: Sequence[int], what: str, piece: Sequence[int] | None = None) -> Fault:
        """Return the fault of a file, or of one chunk of it.

        Args:
            place: of the file in the grid of files.
            what: is wrong.
            piece: place of the chunk in the grid of chunks; None for all of the file.
        """
        file = self.file(place)
        if self.axes is None:
            return Fault(file, what)
        step = self.array.files if piece is None else self.array.chunks
        where = place if piece is None else piece
        (y, height), (x, width) = (
            (
                where[axis] * step[axis],
                min(step[axis], self.array.shape[axis] - where[axis] * step[axis]),
            )
            for axis in self.axes
        )
        part = Part(x, y, width, height)
        return Fault(file, what, self.level, part, self._region(part))

    def _region(self, part: Part) -> tuple[int, int, int, int]:
        """Return a part of the level in pixels of level 0."""
        ends = []
        for start, side, scale, full in zip(
            (part.x, part.y), (part.width, part.height), self.scale, self.full, strict=True
        ):
            first = min(math.floor(start * scale), full - 1)
            last = min(math.ceil((start + side) * scale), full)
            ends.append((first, max(1, last - first)))
        (x, width), (y, height) = ends
        return x, y, width, height


def picture_axes(names: Sequence[str | None] | None, count: int) -> tuple[int, int] | None:
    """Return which axes are y and x, None where there are no two."""
    if names and "y" in names and "x" in names:
        return names.index("y"), names.index("x")
    return (count - 2, count - 1) if count >= _AXES else None


def _span(x: int, y: int, width: int, height: int) -> str:
    return f"x {x} to {x + width - 1}, y {y} to {y + height - 1}"
