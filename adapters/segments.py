"""Tiles, strips and chunks: read from a file one by one, decoded once while in use."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.errors import DataError, counted

Pixels = NDArray[Any]
Window = tuple[slice, slice]

CACHE_BYTES = 2**27

_MOST_PLACES = 512  # at a time: systems take no more than 1024 at once
_ENTRY_BYTES = 2**9  # of an array's place in the cache: those of one value would count for nothing


class ByteBoundedCache:
    """The most recently used arrays, as many as fit; safe with threads.

    The newest stays even where it alone is too large: a strip that is the whole picture would
    otherwise be decoded again for every read.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._entries: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._gates: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Pixels]) -> Pixels:
        """Return the array of a key, calling ``make`` for it in one thread only."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
            gate = self._gates.setdefault(key, threading.Lock())
        with gate:
            with self._lock:
                if key in self._entries:
                    return self._entries[key]
            try:
                array = make()
                self._keep(key, array)
            finally:
                with self._lock:
                    self._gates.pop(key, None)
        return array

    def holds(self, keys: Iterable[Hashable]) -> bool:
        """Say whether the arrays of all keys are there."""
        with self._lock:
            return all(key in self._entries for key in keys)

    def _keep(self, key: Hashable, array: Pixels) -> None:
        with self._lock:
            if key not in self._entries:
                self._entries[key] = array
                self.size += array.nbytes + _ENTRY_BYTES
            while self.size > self.limit and len(self._entries) > 1:
                self.size -= self._entries.popitem(last=False)[1].nbytes + _ENTRY_BYTES

    def forget(self, owner: object) -> None:
        """Drop all arrays whose key begins with ``owner``."""
        with self._lock:
            for key in [k for k in self._entries if isinstance(k, tuple) and k[0] is owner]:
                self.size -= self._entries.pop(key).nbytes + _ENTRY_BYTES

    def unlock(self) -> None:
        """Forget who holds a lock: in a forked process these threads do not exist."""
        self._lock = threading.Lock()
        self._gates = {}


CACHE = ByteBoundedCache(CACHE_BYTES)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CACHE.unlock)


class _Descriptor:
    """A file's number with the system, given back when nobody holds this any more."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self.number)


class File:
    """A file to be read at any place from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token = object()  # names the file in the cache without keeping it open
        # Not a file object: that would hold a position, which threads would fight over.
        self._descriptor: _Descriptor | None = _Descriptor(path)
        self._lock = threading.Lock()
        self.size = os.fstat(self._descriptor.number).st_size
        if hasattr(os, "posix_fadvise"):  # readahead would fetch five times what we need
            os.posix_fadvise(self._descriptor.number, 0, 0, os.POSIX_FADV_RANDOM)

    def close(self) -> None:
        """Close the file, as soon as nobody reads from it any more."""
        self._descriptor = None

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset`` on.

        Raises:
            DataError: if the file is closed, or ends before.
        """
        with self._reading() as number:
            data = self._bytes(number, offset, count)
        if len(data) < count:
            raise self._short()
        return data

    def read_into(self, offset: int, places: Sequence[memoryview]) -> None:
        """Fill places in memory with what lies in the file from ``offset`` on, one after the other.

        Raises:
            DataError: if the file is closed, or ends before.
        """
        wanted = sum(map(len, places))
        if not hasattr(os, "preadv") or len(places) > _MOST_PLACES:
            data, start = self.read(offset, wanted), 0
            for place in places:
                place[:] = data[start : start + len(place)]
                start += len(place)
            return
        with self._reading() as number:
            found = os.preadv(number, places, offset)
        if found < wanted:
            raise self._short()

    @contextmanager
    def _reading(self) -> Iterator[int]:
        # Held while it is read: the number of a closed file may be that of another one by now.
        descriptor = self._descriptor
        if descriptor is None:
            raise DataError(f"{self.path} is closed; open it again to read")
        try:
            yield descriptor.number
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror or error})") from error

    def _short(self) -> DataError:
        return DataError(f"{self.path} ends within its pixels; make or download it again")

    def _bytes(self, number: int, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(number, count, offset)
        with self._lock:
            os.lseek(number, offset, os.SEEK_SET)
            return os.read(number, count)


def assemble(
    out: Pixels,
    corner: tuple[int, int],
    tile: tuple[int, int],
    samples: int,
    part: Callable[[int, int, int, Window], Pixels | float],
) -> None:
    """Put a rectangle together from the tiles that it touches.

    Args:
        out: to be filled, (height, width, bands).
        corner: x and y of the rectangle.
        tile: width and height of a tile.
        samples: bands of a tile; those of ``out`` come from one tile after the other.
        part: returns a window (rows, columns) of the tile of a plane, row and column, or one value
            for all of it.
    """
    (x, y), (tile_x, tile_y), (height, width, bands) = corner, tile, out.shape
    for row in range(y // tile_y, (y + height - 1) // tile_y + 1):
        top = row * tile_y - y
        rows = slice(max(0, top), min(height, top + tile_y))
        inner_rows = slice(rows.start - top, rows.stop - top)
        for column in range(x // tile_x, (x + width - 1) // tile_x + 1):
            left = column * tile_x - x
            columns = slice(max(0, left), min(width, left + tile_x))
            window = (inner_rows, slice(columns.start - left, columns.stop - left))
            for plane in range(-(-bands // samples)):
                bands_of = slice(plane * samples, (plane + 1) * samples)
                out[rows, columns, bands_of] = part(plane, row, column, window)


@dataclass(frozen=True)
class Page:
    """One page of a TIFF: what it takes to find and decode its tiles or strips.

    Attributes:
        width: pixels across.
        height: pixels down.
        tile: width and height of a tile; a strip is a tile as wide as the page.
        samples: values per pixel in a tile.
        planes: how many times the page is tiled: once, or once a sample (separate planes).
        dtype: of the decoded values.
        offsets: byte where each tile begins, row by row, plane after plane.
        counts: bytes of each tile; 0 is a tile that was left out.
        decode: turns bytes and a tile's index into (1, height, width, samples).
        empty: the value of tiles that were left out.
    """

    width: int
    height: int
    tile: tuple[int, int]
    samples: int
    planes: int
    dtype: np.dtype[Any]
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    decode: Callable[[bytes, int], Pixels]
    empty: float

    @property
    def bands(self) -> int:
        """Values per pixel."""
        return self.samples * self.planes

    @property
    def grid(self) -> tuple[int, int]:
        """How many tiles there are across and down."""
        return -(-self.width // self.tile[0]), -(-self.height // self.tile[1])

    def fetch(self, file: File, x: int, y: int, out: Pixels) -> None:
        """Fill ``out``, (height, width, bands), with the rectangle at x, y."""
        assemble(out, (x, y), self.tile, self.samples, partial(self._tile, file))

    def _tile(
        self, file: File, plane: int, row: int, column: int, source: Window
    ) -> Pixels | float:
        across, down = self.grid
        index = (plane * down + row) * across + column
        if self.counts[index] == 0:
            return self.empty
        pixels = CACHE.get((file.token, id(self), index), lambda: self._decoded(file, index))
        part = pixels[source]
        if part.shape[:2] != tuple(s.stop - s.start for s in source):
            raise DataError(
                f"{file.path} is damaged: tile {index} is smaller than the file says; "
                "make or download it again"
            )
        return part

    def _decoded(self, file: File, index: int) -> Pixels:
        data = file.read(self.offsets[index], self.counts[index])
        try:
            pixels = self.decode(data, index)
        except Exception as error:  # decoders of foreign data fail in many ways
            raise DataError(
                f"{file.path} has a tile (number {index}) that cannot be decoded: {error}; it is "
                "damaged, or its compression needs a codec that is not installed"
            ) from error
        if pixels.dtype != self.dtype or pixels.shape[3] != self.samples:
            raise DataError(
                f"{file.path} is damaged: tile {index} holds "
                f"{counted(pixels.shape[3], 'band')} of {pixels.dtype}, the file says "
                f"{self.samples} of {self.dtype}; convert it anew"
            )
        return pixels[0]
