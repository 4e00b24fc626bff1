"""What a TIFF's directories declare, held against the limits before a library believes it.

The libraries take memory for whatever a file says, follow directories that run in a circle, and
OpenSlide ends the whole process where memory runs out. Only sizes and places are looked at here;
what a directory means is the readers' business.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.limits import DEFAULT, Limits, OverLimit, readable
from tnet.errors import DataError, UnsupportedImage

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_WIDTH, _HEIGHT, _BITS, _DESCRIPTION, _SAMPLES, _PLANES = 256, 257, 258, 270, 277, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_DEPTH, _SUBDIRECTORIES, _XMP = 322, 323, 32998, 330, 700
_TILE_OFFSETS = 324
_PIECES = ((_TILE_OFFSETS, 325), (273, 279))  # offsets and byte counts, of tiles and of strips
_NDPI = 65420  # marks a dialect: classic, but with offsets of 64 bits
_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "Q", 6: "b", 7: "B", 8: "h", 9: "i", 10: "Q",
          11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}  # fmt: skip
_MOST_ENTRIES = 4096
_SEPARATE = 2
_BEYOND = np.uint64(2**62)  # any file's end; larger numbers become this
_SHOWN = 4  # bytes of a pixel where OpenSlide decodes it

# Bytes of memory that a parsed directory takes, a number in one, and a byte of XML: from above,
# the first one far above, which bounds the time as well (thousands of pages take seconds).
_DIRECTORY_COST, _NUMBER_COST, _XML_COST = 2**19, 40, 64
_ENTITIES = tuple(
    word.encode(code)
    for word in ("<!ENTITY", "<!DOCTYPE")
    for code in ("utf-8", "utf-16-le", "utf-16-be")
)


@dataclass(frozen=True)
class _Entry:
    """A tag's value: its numbers' format and count, and where it lies in the file."""

    code: str
    count: int
    place: int

    @property
    def nbytes(self) -> int:
        return self.count * struct.calcsize("=" + self.code)


_Directory = dict[int, _Entry]


def check_directories(path: Path, limits: Limits = DEFAULT) -> None:
    """Refuse a TIFF whose directories cannot be true, or ask for more than the limits allow.

    It takes milliseconds, and memory only for the lists of tiles; a file that was found sound is
    looked at again when it has changed. A list of directories that breaks off is no concern here:
    what reads the file says so.

    Raises:
        OverLimit: if a limit forbids it; the text names limit and flag.
        UnsupportedImage: if it has no pixels, or its metadata are a trap.
        DataError: if it contradicts itself, or its pixels lie beyond its end.
    """
    about = path.stat()
    # The last of these nobody can set back.
    stamp = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    _check(path, stamp, limits)


@lru_cache(maxsize=64)  # what raises is not remembered
def _check(path: Path, _: tuple[int, ...], limits: Limits) -> None:
    with path.open("rb") as file:
        index = _Index(path, file, limits)
        for directory in index.directories():
            index.check(directory)


class _Index:
    """The directories of one file."""

    def __init__(self, path: Path, file: BinaryIO, limits: Limits) -> None:
        self._path = path
        self._file = file
        self._limits = limits
        self._length = path.stat().st_size
        self._spent = 0
        start = file.read(16).ljust(16, b"\0")
        self._order = "<" if start[:2] == b"II" else ">"
        self._big = start[2:4] in (b"+\0", b"\0+")
        self._first = (
            self._unpacked("Q", start[8:]) if self._big else self._unpacked("I", start[4:])
        )
        self._ndpi = False
        if not self._big and self._length >= 2**32:
            self._find_ndpi(self._unpacked("Q", start[4:]))

    def directories(self) -> Iterator[_Directory]:
        """Give the directories in their order, each before the smaller copies it points to."""
        seen: set[int] = set()
        place = self._first
        while place:
            if place in seen:
                raise self._damaged("its list of pages runs in a circle")
            seen.add(place)
            read = self._read(place)
            if read is None:
                return
            directory, place = read
            yield directory
            for inner in self._values(directory.get(_SUBDIRECTORIES)):
                copy = self._read(int(inner))
                if copy is not None:
                    yield copy[0]

    def check(self, directory: _Directory) -> None:
        """Refuse a directory that asks for too much."""
        self._spend(_DIRECTORY_COST)
        for tag, entry in directory.items():
            self._spend(self._cost(tag, entry))
        for tag in (_DESCRIPTION, _XMP):
            text = self._bytes(directory.get(tag))
            if any(word in text for word in _ENTITIES):
                raise UnsupportedImage(
                    f"{self._path} has metadata that define XML entities, which no image needs and "
                    "which can be made to fill the memory; save it anew without them"
                )
        self._check_size(directory)
        for offsets, counts in _PIECES:
            self._check_places(directory, offsets, counts)

    def _check_size(self, directory: _Directory) -> None:
        if _WIDTH not in directory or _HEIGHT not in directory:
            return
        width, height = self._number(directory, _WIDTH), self._number(directory, _HEIGHT)
        self._limits.check_image(str(self._path), width, height)
        if _TILE_WIDTH not in directory or _TILE_HEIGHT not in directory:
            return
        across, down = (self._number(directory, tag) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
        if across < 1 or down < 1:
            raise self._damaged(f"it declares tiles of {across} x {down} pixels")
        separate = self._number(directory, _PLANES, 1) == _SEPARATE
        samples = self._number(directory, _SAMPLES, 1)
        value = -(-self._number(directory, _BITS, 1) // 8)
        pixel = max(_SHOWN, value * (1 if separate else samples))
        self._limits.check_piece(
            str(self._path),
            f"tiles of {across} x {down} pixels",
            across * down * pixel * max(1, self._number(directory, _TILE_DEPTH, 1)),
        )
        tiles = -(-width // across) * -(-height // down) * (samples if separate else 1)
        listed = max(directory[tag].count if tag in directory else 0 for tag, _ in _PIECES)
        if listed < tiles:
            raise self._damaged(f"it lists {listed} tiles and its size needs {tiles}")

    def _check_places(self, directory: _Directory, offsets: int, counts: int) -> None:
        """Refuse tiles or strips beyond the end of the file, and those too long to be read."""
        starts = self._values(directory.get(offsets))
        sizes = self._values(directory.get(counts))
        both = min(len(starts), len(sizes))
        starts, sizes = starts[:both], sizes[:both]
        if offsets == _TILE_OFFSETS and both:
            self._limits.check_piece(str(self._path), "compressed tiles", int(sizes.max()))
        if both and min(starts.min(), sizes.min()) < 0:
            raise self._damaged("it lists tiles or strips at negative places")
        beyond = (sizes > 0) & ((starts > self._length) | (sizes > self._length - starts))
        if beyond.any():
            worst = max(int(a) + int(b) for a, b in zip(starts[beyond], sizes[beyond], strict=True))
            raise DataError(
                f"{self._path} is truncated: it needs {worst} bytes and has {self._length}; "
                "copy it again"
            )

    def _read(self, place: int) -> tuple[_Directory, int] | None:
        """Return the directory at a place and where the next one lies; None beyond the end."""
        entry, number, offset = (20, "Q", "Q") if self._big else (12, "H", "I")
        head = self._at(place, 8 if self._big else 2)
        if head is None:
            return None
        count = self._unpacked(number, head)
        if count > _MOST_ENTRIES:
            raise self._damaged(f"one of its pages has {count} tags")
        place += len(head)
        body = self._at(place, count * entry)
        if body is None:
            return None
        end = place + len(body)
        if self._ndpi:
            offset = "Q"
        following = self._at(end, struct.calcsize("=" + offset))
        high = self._at(end + 8, 4 * count) if self._ndpi else None
        directory: _Directory = {}
        for i in range(count):
            upper = self._unpacked("I", high[4 * i :]) if high else 0
            tag, value = self._entry(body[i * entry : (i + 1) * entry], place + i * entry, upper)
            if value is not None:
                directory.setdefault(tag, value)
        return directory, 0 if following is None else self._unpacked(offset, following)

    def _entry(self, data: bytes, place: int, upper: int) -> tuple[int, _Entry | None]:
        tag, kind = struct.unpack_from(self._order + "HH", data)
        code, wide = _TYPES.get(kind), "Q" if self._big else "I"
        if code is None:
            return tag, None
        count = self._unpacked(wide, data[4:])
        inline = 4 + struct.calcsize("=" + wide)
        entry = _Entry(code, count, place + inline)
        if entry.nbytes > len(data) - inline:
            entry = _Entry(code, count, self._unpacked(wide, data[inline:]) + (upper << 32))
        return tag, entry

    def _find_ndpi(self, first: int) -> None:
        """Find out whether the first directory lies at an offset of 64 bits, as NDPI has it."""
        self._ndpi = True
        read = self._read(first)
        if read is not None and _NDPI in read[0]:
            self._first = first
        else:
            self._ndpi = False

    def _cost(self, tag: int, entry: _Entry) -> int:
        """Return from above how much memory a parsed value takes."""
        if entry.place + entry.nbytes > self._length:
            return 0  # it will not be read
        if tag in (_DESCRIPTION, _XMP):
            return entry.nbytes * _XML_COST
        return entry.nbytes if entry.code == "B" else entry.count * _NUMBER_COST

    def _spend(self, nbytes: int) -> None:
        self._spent += nbytes
        if self._spent > self._limits.memory:
            raise OverLimit(
                f"{self._path} has so many pages or so much metadata that they would take more "
                f"than the memory limit of {readable(self._limits.memory)}; save the picture that "
                "you want without the rest, or raise the limit with --max-memory"
            )

    def _number(self, directory: _Directory, tag: int, default: int = 0) -> int:
        values = self._values(directory.get(tag), 1)
        return int(values[0]) if len(values) else default

    def _values(self, entry: _Entry | None, most: int | None = None) -> NDArray[Any]:
        """Return the numbers of an entry, or the first few; none where they lie beyond the end."""
        if entry is None:
            return np.empty(0, np.int64)
        count = entry.count if most is None else min(entry.count, most)
        data = self._bytes(_Entry(entry.code, count, entry.place))
        values = np.frombuffer(data, np.dtype(self._order + entry.code))
        if values.dtype.kind == "f":
            return np.empty(0, np.int64)
        return (np.minimum(values, _BEYOND) if values.dtype == np.uint64 else values).astype(
            np.int64
        )

    def _bytes(self, entry: _Entry | None) -> bytes:
        return b"" if entry is None else self._at(entry.place, entry.nbytes) or b""

    def _at(self, place: int, count: int) -> bytes | None:
        """Return bytes of the file, None where it ends before."""
        if place + count > self._length:
            return None
        self._file.seek(place)
        data = self._file.read(count)
        return data if len(data) == count else None

    def _unpacked(self, code: str, data: bytes) -> int:
        return int(struct.unpack_from(self._order + code, data)[0])

    def _damaged(self, what: str) -> DataError:
        return DataError(f"{self._path} is damaged: {what}; make or download it again")
