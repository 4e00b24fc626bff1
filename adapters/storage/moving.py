"""JPEG tiles moved from a file into shards as they are: nothing is decoded, no pixel changes.

A plain copy is the measure. So tiles are read once, straight to where they are written from; what
can be known of a shard before is worked out for all of its tiles at once; and what Python does
with a single tile is a checksum and little else.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.segments import File
from tnet.adapters.storage.codecs import CHECKSUM_BYTES, checksums
from tnet.adapters.storage.layout import Layout
from tnet.adapters.storage.passthrough import Tiles
from tnet.adapters.storage.staging import Stage
from tnet.errors import DataError

Numbers = NDArray[np.int64]

_START = b"\xff\xd8"  # of every JPEG
_HEAD, _TAIL = np.arange(len(_START)), np.arange(CHECKSUM_BYTES)
_GAP = 2**16  # bytes between tiles that are read along rather than left out
_APART = -1  # in the place of a gap
_UNREAD = memoryview(bytearray(_GAP))  # where these go
_PART_BYTES = 2**20  # at a time: as much as stays in a core's cache until it is written
_PART_TILES = 256  # at a time; with what lies between them, less than systems take at once


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
    pool = ThreadPoolExecutor(threads, "tnet-move")
    waiting: deque[Future[None]] = deque()
    try:
        for tiles, layout in levels:
            queue = _Queue(file, tiles, layout)
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
    """

    def __init__(self, file: File, tiles: Tiles, layout: Layout) -> None:
        self._file = file
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
        self._ends = np.cumsum(self._lengths)
        self._offsets, self._counts = offsets, counts
        gaps = offsets[1:] - (offsets + counts)[:-1]
        apart = (gaps < 0) | (gaps > _GAP) | (counts[1:] == 0) | (counts[:-1] == 0)
        self._gaps = np.append(_APART, np.where(apart, _APART, gaps))

    def move(self, number: int, key: str, stage: Stage) -> None:
        """Write a shard.

        Args:
            number: of the shard in its level.
            key: its file in the store.
            stage: of the store.
        """
        first, last = self._bounds[number : number + 2]
        places, lengths = self._places[first:last], self._lengths[first:last]
        with closing(stage.begin(key, self._count)) as shard:
            shard.place(places, lengths)
            room = np.empty(0, np.uint8)
            while first < last:
                before = self._ends[first] - self._lengths[first]
                fitting = int(
                    np.searchsorted(self._ends[first:last], before + _PART_BYTES, "right")
                )
                stop = first + min(max(1, fitting), _PART_TILES)
                size = int(self._ends[stop - 1] - before)
                if size > len(room):
                    room = np.empty(max(size, _PART_BYTES), np.uint8)
                shard.write([self._filled(room[:size], first, stop)])
                first = stop
            stage.finish(key, shard)

    def _filled(self, room: NDArray[np.uint8], first: int, last: int) -> memoryview:
        """Put tiles from the first to before the last into memory."""
        ends = self._ends[first:last] - (self._ends[first] - self._lengths[first])
        begins, ends = ends - self._lengths[first:last], ends - CHECKSUM_BYTES
        memory = memoryview(room)
        places = zip(begins.tolist(), ends.tolist(), strict=True)
        bodies = [memory[begin:end] for begin, end in places]
        self._read(first, bodies)
        heads = room[begins[:, None] + _HEAD]
        if heads.tobytes() != _START * len(bodies):
            number = self._numbers[first + np.argmax((heads != list(_START)).any(axis=1))]
            raise DataError(
                f"{self._file.path} has a tile (number {number}) that is no JPEG; it is damaged"
            )
        room[ends[:, None] + _TAIL] = checksums(bodies)
        return memory

    def _read(self, first: int, bodies: list[memoryview]) -> None:
        """Put tiles from the first on into their places.

        Those that lie side by side in the file are read at once, and small gaps are read along.
        """
        gaps, start = self._gaps[first : first + len(bodies)].tolist(), 0
        while start < len(bodies):
            stop = start + 1
            while stop < len(bodies) and gaps[stop] != _APART:
                stop += 1
            run, between = bodies[start:stop], gaps[start + 1 : stop]
            if any(between):
                unread = [_UNREAD[:gap] for gap in between]
                run[1:] = chain.from_iterable(zip(unread, run[1:], strict=True))
            if self._counts[first + start]:
                self._file.read_into(int(self._offsets[first + start]), run)
            else:
                run[0][:] = self._empty
            start = stop
