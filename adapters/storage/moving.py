"""JPEG tiles moved from a file into shards as they are: nothing is decoded, no pixel changes.

A plain copy is the measure. So tiles are read once, straight to where they are written from; what
can be known of tiles before is worked out for many of them at once; and what Python does with a
single tile is a checksum and little else.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.segments import File
from tnet.adapters.storage.codecs import CHECKSUM_BYTES, checksums
from tnet.adapters.storage.layout import Layout
from tnet.adapters.storage.passthrough import Tiles
from tnet.adapters.storage.staging import Stage
from tnet.errors import DataError

_Numbers = NDArray[np.int64]
_Bytes = NDArray[np.uint8]

_START = (0xFF, 0xD8)  # of every JPEG
_GAP = 2**16  # bytes between tiles that are read along rather than left out
_APART = -1  # in the place of a gap
_LEFT_OUT = -1  # in the place of an offset
_UNREAD = memoryview(bytearray(_GAP))  # where these go
_PART_BYTES = 2**21  # at a time: as much as stays in a processor's cache until it is written
_PART_TILES = 256  # at a time; with what lies between them, less than systems take at once


class _Room(threading.local):
    """Memory for a part, one for each thread: taking it costs as much as filling it."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def of(self, size: int) -> _Bytes:
        """Return at least ``size`` bytes."""
        if size > len(self._memory):
            self._memory = np.empty(max(size, _PART_BYTES), np.uint8)
        return self._memory


def move(
    file: File,
    levels: Sequence[tuple[Tiles, Layout]],
    stage: Stage,
    threads: int,
    told: Callable[[int], None],
) -> None:
    """Write the tiles of all levels into shards.

    Args:
        file: the TIFF.
        levels: what to move, and where to; finest first.
        stage: of the store; what it holds is not written again.
        threads: how many read and write.
        told: called with the number of pixels of the finest level that are done since last time.

    Raises:
        DataError: if the file ends within its pixels, or has a tile that is no JPEG.
        OSError: if the system refuses.
    """
    room = _Room()
    pool = ThreadPoolExecutor(threads, "tnet-move")
    waiting: deque[Future[None]] = deque()
    try:
        for tiles, layout in levels:
            queue = _Queue(file, tiles, layout, room)
            for number, place in enumerate(np.ndindex(*layout.grid)):
                if not stage.holds(layout.key(*place)):
                    waiting.append(pool.submit(queue.move, number, layout.key(*place), stage))
                if len(waiting) > 2 * threads:
                    waiting.popleft().result()
                if layout is levels[0][1]:
                    part = layout.part(*place)
                    told(part.width * part.height)
        for task in waiting:
            task.result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Queue:
    """The tiles of a level in the order of a store, shard after shard, each with its checksum.

    Args:
        file: that the tiles are in.
        tiles: of the level.
        layout: of the store.
        room: to lay them out in.
    """

    def __init__(self, file: File, tiles: Tiles, layout: Layout, room: _Room) -> None:
        self._file = file
        self._room = room
        self._empty = tiles.empty
        self._count = math.prod(layout.chunks)
        (down, across), (_, shards) = layout.chunks, layout.grid
        rows, columns = -(-tiles.height // tiles.tile[0]), -(-tiles.width // tiles.tile[1])
        row, column = np.divmod(np.arange(rows * columns), columns)
        shard = row // down * shards + column // across
        self._numbers = np.argsort(shard, kind="stable")
        self._places = (row % down * across + column % across)[self._numbers]
        self._bounds = [0, *np.cumsum(np.bincount(shard)).tolist()]
        offsets, counts = tiles.offsets[self._numbers], tiles.counts[self._numbers]
        self._lengths = np.where(counts, counts, len(tiles.empty)) + CHECKSUM_BYTES
        gaps = offsets[1:] - (offsets + counts)[:-1]
        apart = (gaps < 0) | (gaps > _GAP) | (counts[1:] == 0) | (counts[:-1] == 0)
        self._gaps = np.append(_APART, np.where(apart, _APART, gaps))
        self._offsets = np.where(counts, offsets, _LEFT_OUT)

    def move(self, number: int, key: str, stage: Stage) -> None:
        """Write a shard.

        Args:
            number: of the shard in its level.
            key: its file in the store.
            stage: of the store.
        """
        part = slice(*self._bounds[number : number + 2])
        lengths = self._lengths[part]
        stops = np.cumsum(lengths)
        begins = stops - lengths
        with closing(stage.begin(key, self._count)) as shard:
            shard.place(self._places[part], lengths)
            first = 0
            while first < len(lengths):
                base = int(begins[first])
                last = int(np.searchsorted(stops, base + _PART_BYTES, side="right"))
                last = max(first + 1, min(last, first + _PART_TILES))
                size = int(stops[last - 1]) - base
                room = self._room.of(size)
                places = begins[first:last] - base, stops[first:last] - base - CHECKSUM_BYTES
                self._lay_out(slice(part.start + first, part.start + last), places, room)
                shard.write([room.data[:size]], cached=False)
                first = last
            stage.finish(key, shard)

    def _lay_out(self, tiles: slice, places: tuple[_Numbers, _Numbers], room: _Bytes) -> None:
        """Put tiles into memory side by side, each with its checksum behind it.

        Args:
            tiles: which, in the level's order.
            places: where each of them begins and ends there.
            room: the memory, as much as they need.
        """
        begins, ends = places
        data = room.data
        bodies = [data[i:j] for i, j in zip(begins.tolist(), ends.tolist(), strict=True)]
        self._read(tiles, bodies)
        starts = (room[begins] == _START[0]) & (room[begins + 1] == _START[1])
        wrong = ~starts | (ends - begins < len(_START))
        if wrong.any():
            number = self._numbers[tiles][wrong][0]
            raise DataError(
                f"{self._file.path} has a tile (number {number}) that is no JPEG; it is damaged"
            )
        room[ends[:, None] + np.arange(CHECKSUM_BYTES)] = checksums(bodies)

    def _read(self, tiles: slice, bodies: list[memoryview]) -> None:
        """Put tiles into their places.

        Those that lie side by side in the file are read at once, and small gaps are read along.
        """
        gaps, offsets = self._gaps[tiles], self._offsets[tiles].tolist()
        bounds = [0, *(np.flatnonzero(gaps[1:] == _APART) + 1).tolist(), len(bodies)]
        for start, stop in pairwise(bounds):
            run, between = bodies[start:stop], gaps[start + 1 : stop]
            if between.any():
                unread = [_UNREAD[:gap] for gap in between.tolist()]
                run[1:] = chain.from_iterable(zip(unread, run[1:], strict=True))
            if offsets[start] == _LEFT_OUT:
                run[0][:] = self._empty
            else:
                self._file.read_into(offsets[start], run)
