"""Levels out of a source in one pass, each pixel read once and each shard written once.

The recursion runs from the top down over squares of a level, and a square is made of the four below
it while these are at hand. So memory grows by one small square a level, not with the image. Those
of the finest level are read and encoded ahead, in the order in which the recursion asks for them.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.storage.layout import Layout, Part
from tnet.adapters.storage.shards import ShardFile, read_index
from tnet.adapters.storage.staging import Stage
from tnet.errors import DataError
from tnet.halving import halve

Pixels = NDArray[Any]
Read = Callable[[Part], Pixels]
Place = tuple[int, int, int]  # level, row, column

_SQUARE = 4  # chunks a side


@dataclass(frozen=True)
class Made:
    """A square of a level: its chunks by their place in the shard, and its pixels at half size."""

    chunks: list[tuple[int, bytes]]
    half: Pixels


class Builder:
    """Writes the levels of an image into a stage.

    A coarser level is the mean of the finer one as stored: after a loss that is what was kept,
    so that an interrupted run goes on with the same pixels.

    Args:
        stage: where the shards go; those that it holds are not made again.
        layouts: the levels, finest first.
        read: returns a part of the finest level, (bands, height, width).
        nodata: the value of missing pixels.
        threads: how many read and encode.
        told: called with the number of pixels of the finest level that are done since last time.
        first: the finest level to be written; those before are only read.
    """

    def __init__(
        self,
        stage: Stage,
        layouts: Sequence[Layout],
        read: Read,
        nodata: float | None,
        threads: int,
        told: Callable[[int], None],
        first: int = 0,
    ) -> None:
        self._stage = stage
        self._layouts = layouts
        self._read = read
        self._nodata = nodata
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "tnet-convert")
        self._told = told
        self._first = first
        self._side = _square_side(layouts)
        self._held = self._found()
        self._growing: dict[Place, tuple[ShardFile, int]] = {}

    def build(self) -> None:
        """Write all levels.

        Raises:
            DataError: if the source, or what was written of it before, cannot be read.
            OSError: if the system refuses.
        """
        top = len(self._layouts) - 1
        _, height, width = self._layouts[top].shape
        squares = list(_grid(height, width, self._side))
        ahead = self._made_ahead(place for s in squares for place in self._leaves((top, *s)))
        try:
            for row, column in squares:
                self._square((top, row, column), None, ahead)
        finally:
            self._pool.shutdown(cancel_futures=True)
            for shard, _ in self._growing.values():
                shard.close()

    def _square(self, place: Place, into: Pixels | None, ahead: Iterator[Made]) -> None:
        """Write a square and those below it; put it at half its size into its place above."""
        level = place[0]
        part = self._part(place)
        if self._is_held(place):
            if into is not None:
                into[:] = self._reread(self._layouts[level], part)
            self._tell(level, part)
            return
        if level == 0:
            made = next(ahead)
            self._tell(level, part)
        else:
            pixels = self._gathered(place, part, ahead)
            made = self._pool.submit(self._encoded, level, part, pixels).result()
        if into is not None:
            into[:] = made.half
        if level >= self._first:
            self._add(level, part, made.chunks)

    def _gathered(self, place: Place, part: Part, ahead: Iterator[Made]) -> Pixels:
        """Return the pixels of a square, made of the four below it."""
        layout = self._layouts[place[0]]
        pixels = np.empty((layout.shape[0], part.height, part.width), layout.dtype)
        for below in self._below(place):
            under = self._part(below)
            y, x = under.y // 2 - part.y, under.x // 2 - part.x
            height, width = -(-under.height // 2), -(-under.width // 2)
            self._square(below, pixels[:, y : y + height, x : x + width], ahead)
        return pixels

    def _made_ahead(self, places: Iterator[Place]) -> Iterator[Made]:
        """Give the squares of the finest level in order, some of them made in advance."""
        waiting: deque[Future[Made]] = deque()
        for place in places:
            part = self._part(place)
            waiting.append(self._pool.submit(lambda p: self._encoded(0, p, self._read(p)), part))
            if len(waiting) > 2 * self._threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _leaves(self, place: Place) -> Iterator[Place]:
        """Give the squares of the finest level that ``_square`` will ask for, in its order."""
        if self._is_held(place):
            return
        if place[0] == 0:
            yield place
        else:
            for below in self._below(place):
                yield from self._leaves(below)

    def _encoded(self, level: int, part: Part, pixels: Pixels) -> Made:
        """Encode the chunks of a square and halve it."""
        layout = self._layouts[level]
        if level < self._first:
            return Made([], halve(pixels, self._nodata))
        kept = pixels if layout.codec.lossless else np.empty_like(pixels)
        chunks = []
        for inside in blocks(part, layout.chunk):
            window = _window(part, inside)
            content = layout.codec.encode(_whole(pixels[window], layout.chunk))
            chunks.append((layout.number_of(inside), content))
            if not layout.codec.lossless:
                again = layout.codec.decode(content, layout.chunk_shape)
                kept[window] = again[:, : inside.height, : inside.width]
        return Made(chunks, halve(kept, self._nodata))

    def _add(self, level: int, part: Part, chunks: list[tuple[int, bytes]]) -> None:
        """Write chunks into their shard, which ends with its last square."""
        layout = self._layouts[level]
        row, column = layout.shard_of(part)
        key, place = layout.key(row, column), (level, row, column)
        if place not in self._growing:
            down, across = layout.chunks
            whole = layout.part(row, column)
            squares = len(list(_grid(whole.height, whole.width, self._side)))
            self._growing[place] = self._stage.begin(key, down * across), squares
        shard, left = self._growing[place]
        shard.add(chunks)
        self._growing[place] = shard, left - 1
        if left == 1:
            self._stage.finish(key, shard)
            del self._growing[place]

    def _reread(self, layout: Layout, part: Part) -> Pixels:
        """Return a square at half its size from a shard that was written before."""
        path = self._stage.folder / layout.key(*layout.shard_of(part))
        down, across = layout.chunks
        pixels = np.empty((layout.shape[0], part.height, part.width), layout.dtype)
        try:
            index = read_index(path, down * across)
            with path.open("rb") as file:
                for inside in blocks(part, layout.chunk):
                    offset, length = map(int, index[layout.number_of(inside)])
                    file.seek(offset)
                    chunk = layout.codec.decode(file.read(length), layout.chunk_shape)
                    pixels[_window(part, inside)] = chunk[:, : inside.height, : inside.width]
        except DataError as error:
            raise DataError(
                f"{path}, from an interrupted run, is damaged ({error}); delete the folder "
                f"{self._stage.folder} and run the command again"
            ) from error
        return halve(pixels, self._nodata)

    def _found(self) -> set[Place]:
        """Return the shards that are there with all those below them."""
        found: set[Place] = set()
        for level in range(self._first, len(self._layouts)):
            layout = self._layouts[level]
            rows, columns = layout.grid
            for row in range(rows):
                for column in range(columns):
                    below = self._shards_below(level, row, column)
                    if self._stage.holds(layout.key(row, column)) and found.issuperset(below):
                        found.add((level, row, column))
        return found

    def _shards_below(self, level: int, row: int, column: int) -> list[Place]:
        """Return the written shards that a shard is made of."""
        if level == self._first:
            return []
        rows, columns = self._layouts[level - 1].grid
        return [
            (level - 1, i, j)
            for i in range(2 * row, min(2 * row + 2, rows))
            for j in range(2 * column, min(2 * column + 2, columns))
        ]

    def _is_held(self, place: Place) -> bool:
        layout = self._layouts[place[0]]
        return (place[0], *layout.shard_of(self._part(place))) in self._held

    def _below(self, place: Place) -> Iterator[Place]:
        """Give the squares that a square is made of."""
        level, row, column = place
        _, height, width = self._layouts[level - 1].shape
        rows, columns = -(-height // self._side), -(-width // self._side)
        for i in range(2 * row, min(2 * row + 2, rows)):
            for j in range(2 * column, min(2 * column + 2, columns)):
                yield level - 1, i, j

    def _part(self, place: Place) -> Part:
        """Return the pixels of a square, those beyond the level left out."""
        level, row, column = place
        _, height, width = self._layouts[level].shape
        y, x = row * self._side, column * self._side
        return Part(x, y, min(self._side, width - x), min(self._side, height - y))

    def _tell(self, level: int, part: Part) -> None:
        """Count the pixels of the finest level that lie under a part of a level."""
        _, height, width = self._layouts[0].shape
        factor = 2**level
        down = min(height, (part.y + part.height) * factor) - part.y * factor
        across = min(width, (part.x + part.width) * factor) - part.x * factor
        self._told(down * across)


def blocks(part: Part, size: tuple[int, int]) -> Iterator[Part]:
    """Cut a part into pieces of at most ``size`` = (height, width), row by row."""
    bottom, right = part.y + part.height, part.x + part.width
    for y in range(part.y, bottom, size[0]):
        for x in range(part.x, right, size[1]):
            yield Part(x, y, min(size[1], right - x), min(size[0], bottom - y))


def _square_side(layouts: Sequence[Layout]) -> int:
    """Return the side of a square: some chunks, and a whole number of them in every shard."""
    side = _SQUARE * layouts[0].chunk[0]
    several = [layout.shard[0] for layout in layouts if layout.grid != (1, 1)]
    return min([side, *several])


def _grid(height: int, width: int, side: int) -> Iterator[tuple[int, int]]:
    for row in range(-(-height // side)):
        for column in range(-(-width // side)):
            yield row, column


def _window(block: Part, inside: Part) -> tuple[slice, slice, slice]:
    y, x = inside.y - block.y, inside.x - block.x
    return slice(None), slice(y, y + inside.height), slice(x, x + inside.width)


def _whole(pixels: Pixels, chunk: tuple[int, int]) -> Pixels:
    """Return a chunk in full size; beyond the level its last pixels are repeated."""
    _, height, width = pixels.shape
    if (height, width) == chunk:
        return pixels
    return np.pad(pixels, [(0, 0), (0, chunk[0] - height), (0, chunk[1] - width)], mode="edge")
