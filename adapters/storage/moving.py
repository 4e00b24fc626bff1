"""JPEG tiles moved from a file into shards as they are: nothing is decoded, no pixel changes.

A plain copy is the measure. So tiles are read once, straight to where they are written from; what
can be known of a shard before is worked out for all of its tiles at once; and what Python does
with a single tile is a checksum and little else.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain

import numpy as np

from tnet.adapters.segments import File
from tnet.adapters.storage.codecs import CHECKSUM_BYTES, checksum
from tnet.adapters.storage.layout import Layout
from tnet.adapters.storage.passthrough import Tiles
from tnet.adapters.storage.staging import Stage
from tnet.errors import DataError

# Where a tile begins in its file, how far behind the one before it, and from where to where it
# lies in its shard, with its checksum.
_Tile = tuple[int, int, int, int]

_START = b"\xff\xd8"  # of every JPEG
_GAP = 2**16  # bytes between tiles that are read along rather than left out
_APART = -1  # in the place of a gap
_LEFT_OUT = -1  # in the place of an offset
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
        ends = np.cumsum(lengths)
        # As Python's own numbers, which cost less than numpy's where they are taken one by one.
        begins, stops = (ends - lengths).tolist(), ends.tolist()
        tiles = list(
            zip(self._offsets[part].tolist(), self._gaps[part].tolist(), begins, stops, strict=True)
        )
        with closing(stage.begin(key, self._count)) as shard:
            shard.place(self._places[part], lengths)
            room = memoryview(b"")
            first = 0
            while first < len(tiles):
                most = min(first + _PART_TILES, len(tiles))
                last = bisect_right(stops, begins[first] + _PART_BYTES, first + 1, most)
                size = stops[last - 1] - begins[first]
                if size > len(room):
                    room = np.empty(max(size, _PART_BYTES), np.uint8).data
                self._lay_out(tiles[first:last], room[:size], part.start + first)
                shard.write([room[:size]])
                first = last
            stage.finish(key, shard)

    def _lay_out(self, tiles: list[_Tile], room: memoryview, first: int) -> None:
        """Put tiles into memory side by side, each with its checksum behind it.

        Args:
            tiles: what and where.
            room: as much memory as they need.
            first: place of the first one in the level's order.
        """
        base = tiles[0][2]
        bodies = [room[begin - base : stop - base - CHECKSUM_BYTES] for _, _, begin, stop in tiles]
        self._read(tiles, bodies)
        for index, (body, (_, _, _, stop)) in enumerate(zip(bodies, tiles, strict=True)):
            if body[: len(_START)] != _START:
                number = self._numbers[first + index]
                raise DataError(
                    f"{self._file.path} has a tile (number {number}) that is no JPEG; it is damaged"
                )
            room[stop - base - CHECKSUM_BYTES : stop - base] = checksum(body)

    def _read(self, tiles: list[_Tile], bodies: list[memoryview]) -> None:
        """Put tiles into their places.

        Those that lie side by side in the file are read at once, and small gaps are read along.
        """
        gaps, start = [gap for _, gap, _, _ in tiles], 0
        while start < len(bodies):
            stop = start + 1
            while stop < len(bodies) and gaps[stop] != _APART:
                stop += 1
            run, between = bodies[start:stop], gaps[start + 1 : stop]
            if any(between):
                unread = [_UNREAD[:gap] for gap in between]
                run[1:] = chain.from_iterable(zip(unread, run[1:], strict=True))
            offset = tiles[start][0]
            if offset == _LEFT_OUT:
                run[0][:] = self._empty
            else:
                self._file.read_into(offset, run)
            start = stop
