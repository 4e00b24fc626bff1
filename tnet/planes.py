"""One resolution of an image as cells of averaged pixels, and overviews made where none exist.

A plane is a level of the file, or an overview that we made of it and keep in memory. It hands
out rectangles of its pixels, or of cells averaged over a whole number of pixels, and never holds
more source pixels at a time than one block. Where a file has no level of half the size, a plane
that halves another one as it is read shows what that level would hold.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.halving import halve_interleaved, halvings
from tnet.resample import box_mean, clamped

Pixels = NDArray[Any]
Fetch = Callable[[int, int, int, int], Pixels]
Window = tuple[int, int, int, int]

BLOCK_BYTES = 2**22
OVERVIEW_SIDE = 2048
OVERVIEW_BYTES = 2**25


@dataclass(frozen=True)
class Plane:
    """One resolution: ``fetch(x, y, width, height)`` returns (height, width, bands).

    ``level`` is its number in the file, None for one that is made by averaging.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float
    tile: tuple[int, int]
    bands: int
    dtype: np.dtype[Any]
    nodata: float | None
    fetch: Fetch
    level: int | None = None

    def in_floats(self) -> "Plane":
        """Return the plane with its values as floats of at least 32 bits."""
        if self.dtype.kind == "f":
            return self
        fetch, dtype = self.fetch, np.dtype(np.float32)
        return replace(self, dtype=dtype, fetch=lambda *place: fetch(*place).astype(dtype))

    def halved(self, times: int) -> "Plane":
        """Return what halving ``times`` times would make of this plane, made as it is read."""
        factor = 2**times
        return replace(
            self,
            width=-(-self.width // factor),
            height=-(-self.height // factor),
            scale_x=self.scale_x * factor,
            scale_y=self.scale_y * factor,
            tile=(max(1, self.tile[0] // factor), max(1, self.tile[1] // factor)),
            fetch=partial(self._halved, times),
            level=None,
        )

    def _halved(self, times: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Return a rectangle of the halved plane, made block by block."""
        factor = 2**times
        out = np.empty((height, width, self.bands), self.dtype)
        window = (x, y, x + width, y + height)
        for left, top, right, bottom in self.blocks(window, (factor, factor)):
            end_x, end_y = min(right * factor, self.width), min(bottom * factor, self.height)
            first_x, first_y = left * factor, top * factor
            block = self.fetch(first_x, first_y, end_x - first_x, end_y - first_y)
            part = out[top - y : bottom - y, left - x : right - x]
            if (low := block.min()) == block.max():  # blank background is common in big files
                part[...] = low
                continue
            for _ in range(times):
                block = halve_interleaved(block, self.nodata)
            part[...] = block
        return out

    def gather(
        self,
        columns: NDArray[np.intp],
        rows: NDArray[np.intp],
        cell: tuple[int, int] = (1, 1),
        limits: Window | None = None,
        exact: bool = False,
    ) -> Pixels:
        """Return the cells at ``columns`` x ``rows``; indices may repeat or run backwards.

        Args:
            columns: indices of cells, all inside the plane.
            rows: the same downwards.
            cell: how many pixels (across, down) are averaged into one; (1, 1) are the pixels.
            limits: left, top, right, bottom of the pixels that may be read.
            exact: return averages as float32 instead of the plane's dtype.
        """
        x, right = int(columns.min()), int(columns.max()) + 1
        y, bottom = int(rows.min()), int(rows.max()) + 1
        if cell == (1, 1):
            area = self.fetch(x, y, right - x, bottom - y)
        else:
            area = self._cells((x, y, right, bottom), cell, limits, exact)
        if len(columns) != right - x or columns[0] > columns[-1]:
            area = area[:, columns - x]
        if len(rows) != bottom - y or rows[0] > rows[-1]:
            area = area[rows - y]
        return area

    def _cells(
        self, window: Window, cell: tuple[int, int], limits: Window | None, exact: bool
    ) -> Pixels:
        """Average a window of cells (left, top, right, bottom), block by block."""
        limits = limits or (0, 0, self.width, self.height)
        left, top, right, bottom = window
        dtype = np.float32 if exact else self.dtype
        out = np.empty((bottom - top, right - left, self.bands), dtype)
        for block in self.blocks(window, cell):
            x, y, end_x, end_y = block
            out[y - top : end_y - top, x - left : end_x - left] = self.average(
                block, cell, limits, exact
            )
        return out

    def average(
        self, window: Window, cell: tuple[int, int], limits: Window, exact: bool = False
    ) -> Pixels:
        """Average a window of cells that is small enough to be read at once."""
        left, top = window[0] * cell[0], window[1] * cell[1]
        x, y = max(left, limits[0]), max(top, limits[1])
        right, bottom = min(window[2] * cell[0], limits[2]), min(window[3] * cell[1], limits[3])
        block = self.fetch(x, y, right - x, bottom - y)
        if x > left or y > top:  # a cell begins before the limits: repeat their first pixels
            columns = clamped(np.arange(left, right), x, right) - x
            block = block[:, columns][clamped(np.arange(top, bottom), y, bottom) - y]
        return box_mean(block, cell, self.nodata, exact)

    def blocks(self, window: Window, cell: tuple[int, int]) -> Iterator[Window]:
        """Cut a window of cells into pieces of bounded size along the file's tiles."""
        across, down = self._block_size()
        xs = _cuts(window[0], window[2], max(1, across // cell[0]))
        ys = _cuts(window[1], window[3], max(1, down // cell[1]))
        for y, end_y in pairwise(ys):
            for x, end_x in pairwise(xs):
                yield x, y, end_x, end_y

    def _block_size(self) -> tuple[int, int]:
        """Return how many pixels to read at once: whole tiles where they are not too large."""
        # Everything but whole-byte averages passes through float32.
        plain = self.dtype == np.uint8 and self.nodata is None
        pixels = BLOCK_BYTES // (self.bands * (1 if plain else max(4, self.dtype.itemsize)))
        pixels = max(pixels, 64 * 64)
        across, down = min(self.tile[0], self.width), min(self.tile[1], self.height)
        if across * down > pixels:  # a tile is too large to be the unit
            across = min(across, pixels)
            return across, max(1, pixels // across)
        side = int(pixels**0.5)
        across *= max(1, side // across)
        return across, down * max(1, pixels // (across * down))


def overviews(base: Plane) -> list[Plane]:
    """Average ``base`` into overviews, in one pass over its pixels; finest first.

    The coarsest has 1024 to 2048 pixels along its longer side; finer ones are kept as long as
    all together stay within 32 MB.
    """
    factors = overview_factors(base)
    planes = [_plane_of(_one_pass(base, factors[0]), base, factors[0])]
    for factor in factors[1:]:
        last = planes[-1]
        pixels = halve_interleaved(last.fetch(0, 0, last.width, last.height), base.nodata)
        planes.append(_plane_of(pixels, base, factor))
    return planes


def ladder(planes: Sequence[Plane], end: float, exact: bool = False) -> list[Plane]:
    """Return planes and, where the next one is much coarser, those that halving would make.

    Args:
        planes: finest first.
        end: the scale from which on other planes serve.
        exact: make them in float32, unrounded, of integers too.
    """
    steps: list[Plane] = []
    for plane, below in zip(planes, [*planes[1:], None], strict=True):
        halved = plane.in_floats() if exact else plane
        count = halvings(plane, below, end)
        steps += [plane, *(halved.halved(times + 1) for times in range(count))]
    return steps


def overview_factors(base: Plane) -> list[int]:
    """Return by which powers of two ``base`` is made smaller, the finest overview first.

    Empty where the plane is small enough to need none.
    """
    factor = 1
    while max(base.width, base.height) > OVERVIEW_SIDE * factor:
        factor *= 2
    factors: list[int] = []
    room = OVERVIEW_BYTES
    while factor > 1:
        pixels = -(-base.width // factor) * -(-base.height // factor)
        room -= pixels * base.bands * base.dtype.itemsize
        if factors and room < 0:
            break
        factors.insert(0, factor)
        factor //= 2
    return factors


def _one_pass(base: Plane, factor: int) -> Pixels:
    """Average all of ``base`` by ``factor``, several blocks at a time."""
    plane = base.halved(factor.bit_length() - 1)
    out = np.empty((plane.height, plane.width, base.bands), base.dtype)

    def fill(block: Window) -> None:
        x, y, right, bottom = block
        out[y:bottom, x:right] = plane.fetch(x, y, right - x, bottom - y)

    # Its own threads: this may itself run on a thread of the pool that reads share.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "tnet-overview") as pool:
        whole = (0, 0, plane.width, plane.height)
        for _ in pool.map(fill, base.blocks(whole, (factor, factor))):
            pass
    return out


def _plane_of(pixels: Pixels, base: Plane, factor: int) -> Plane:
    height, width, bands = pixels.shape

    def fetch(x: int, y: int, width: int, height: int) -> Pixels:
        return pixels[y : y + height, x : x + width]

    return Plane(
        width=width,
        height=height,
        scale_x=base.scale_x * factor,
        scale_y=base.scale_y * factor,
        tile=(width, height),
        bands=bands,
        dtype=base.dtype,
        nodata=base.nodata,
        fetch=fetch,
    )


def _cuts(start: int, stop: int, step: int) -> list[int]:
    """Return start, the multiples of ``step`` between, and stop."""
    return [start, *range((start // step + 1) * step, stop, step), stop]
