"""One resolution of an image as cells of averaged pixels, and overviews made where none exist.

A plane is a level of the file, or an overview that we made of it and keep in memory. It hands
out rectangles of its pixels, or of cells averaged over a whole number of pixels, and never holds
more source pixels at a time than one block.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

    ``level`` is its number in the file, None for an overview that we made.
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
    finest = _one_pass(base, factors[0])
    planes = [_plane_of(finest, base, factors[0])]
    for factor in factors[1:]:
        half = box_mean(
            planes[-1].fetch(0, 0, planes[-1].width, planes[-1].height), (2, 2), base.nodata, False
        )
        planes.append(_plane_of(half, base, factor))
    return planes


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
    width, height = -(-base.width // factor), -(-base.height // factor)
    out = np.empty((height, width, base.bands), base.dtype)
    limits = (0, 0, base.width, base.height)

    def fill(block: Window) -> None:
        x, y, right, bottom = block
        out[y:bottom, x:right] = base.average(block, (factor, factor), limits)

    # Its own threads: this may itself run on a thread of the pool that reads share.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "tnet-overview") as pool:
        for _ in pool.map(fill, base.blocks((0, 0, width, height), (factor, factor))):
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
