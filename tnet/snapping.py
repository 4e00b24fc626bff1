"""Moving regions onto the grid of stored tiles, so that fewer of them are read and decoded.

Pure arithmetic; which pixels a read touches is as :mod:`tnet.reader` has it. Coordinates are in
pixels of level 0 unless said otherwise.

C candidates along one axis, S starts that are tried for each, N = rows x columns candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tnet.axis import Axis, axis_of
from tnet.facts import Level, coarsest_for
from tnet.geometry import Region
from tnet.halving import halvings
from tnet.planes import OVERVIEW_SIDE

Spans = Sequence[tuple[float, float]]
Starts = NDArray[np.float64]

# A region is moved by this many tiles at most; the tiles of a larger one hardly count.
_MOST_TILES = 32
_SAME = 1e-4  # a shift of this part of a pixel is none, as in the reader
_NUDGE = 1e-6  # of a pixel: more than a coordinate's rounding


def snapped(
    spans: tuple[Spans, Spans],
    snap: float,
    view: tuple[int, int],
    levels: Sequence[Level],
    frame: Region,
) -> NDArray[np.float64]:
    """Return where candidates are looked at: x, y, width, height, row by row, float64 (N, 4).

    Each moves across and down, on its own, to the nearest place within reach under which the
    fewest tiles lie; where pixels of the view can be pixels of the level, they are. What lies
    inside the frame stays inside, and nothing sticks out further than before. Nothing moves
    where tiles are unknown, or where the view comes from an overview in memory.

    Args:
        spans: (y, height) of each row and (x, width) of each column, all of one height and of
            one width, as :meth:`tnet.geometry.Grid.spans` returns them.
        snap: how far a region may move, as a fraction of its side; 0 leaves all as it is.
        view: width and height of the views, in pixels.
        levels: what is stored, finest first.
        frame: the part of the image that may be seen.
    """
    rows, columns = (np.asarray(axis, dtype=np.float64) for axis in spans)
    width, height = float(columns[0, 1]), float(rows[0, 1])
    y, x = np.meshgrid(rows[:, 0], columns[:, 0], indexing="ij")
    axes = _tiled_axes((width, height), view, levels, frame) if snap > 0 else None
    if axes is not None:
        across, down = axes
        exact_x, at_x = across.settled(columns[:, 0], snap * width, exact=True)
        exact_y, at_y = down.settled(rows[:, 0], snap * height, exact=True)
        # Pixels are taken as they are only where they fit both ways.
        exact = np.logical_and.outer(at_y, at_x)
        other_x, _ = across.settled(columns[:, 0], snap * width, exact=False)
        other_y, _ = down.settled(rows[:, 0], snap * height, exact=False)
        x = np.where(exact, exact_x, other_x)
        y = np.where(exact, exact_y[:, None], other_y[:, None])
    sides = np.full(x.shape, width), np.full(x.shape, height)
    return np.stack([x, y, *sides], axis=-1).reshape(-1, 4)


def tiles_under(
    region: Region, view: tuple[int, int], levels: Sequence[Level], frame: Region
) -> int | None:
    """Return how many stored tiles the read of a region touches; None where nobody knows.

    Args:
        region: what is read.
        view: width and height of the result, in pixels.
        levels: what is stored, finest first.
        frame: the part of the image that may be seen.
    """
    axes = _tiled_axes((region.width, region.height), view, levels, frame)
    if axes is None:
        return None
    starts = [np.array([region.x]), np.array([region.y])]
    exact = all(a.takes_pixels(x).all() for a, x in zip(axes, starts, strict=True))
    across, down = (int(a.tiles(x, exact)[0]) for a, x in zip(axes, starts, strict=True))
    return across * down


def _tiled_axes(
    size: tuple[float, float], view: tuple[int, int], levels: Sequence[Level], frame: Region
) -> "tuple[_TiledAxis, _TiledAxis] | None":
    """Return both axes of the level that serves reads of a size; None if it has no tiles."""
    steps = size[0] / view[0], size[1] / view[1]
    level = coarsest_for(levels, *steps)
    scales = level.scale_x, level.scale_y
    # Beyond a coarsest level that is still large, the reader makes overviews of its own.
    large = level is levels[-1] and max(level.width, level.height) > OVERVIEW_SIDE
    step = min(step / scale for step, scale in zip(steps, scales, strict=True))
    if level.tile is None or (large and step >= 2 - _NUDGE):
        return None
    fold = _fold(level, levels, step)
    sides, frames = (
        (level.width, level.height),
        ((frame.x, frame.right), (frame.y, frame.bottom)),
    )
    across, down = (
        _TiledAxis(
            length=length,
            begin=begin,
            end=end,
            scale=scale,
            side=side,
            tile=tile,
            fold=fold,
            axis=axis_of(
                *(0.0, length / (scale * fold), count),
                *(begin / (scale * fold), end / (scale * fold), -(-side // fold)),
            ),
        )
        for length, count, scale, tile, side, (begin, end) in zip(
            size, view, scales, level.tile, sides, frames, strict=True
        )
    )
    return across, down


def _fold(level: Level, levels: Sequence[Level], step: float) -> int:
    """Return how many pixels of a level, each way, are averaged into one before resampling."""
    place = levels.index(level)
    below = levels[place + 1] if place + 1 < len(levels) else None
    wanted = int(math.log2(max(1.0, step * (1 + _NUDGE))))
    return int(2 ** min(wanted, halvings(level, below, math.inf)))


@dataclass(frozen=True)
class _TiledAxis:
    """One axis of reads of one length on a level of tiles.

    ``begin`` to ``end`` is the frame; ``side`` and ``tile`` are in pixels of the level; ``axis``
    is that of a read from the origin, in means of ``fold`` pixels of the level.
    """

    length: float
    begin: float
    end: float
    scale: float
    side: int
    tile: int
    fold: int
    axis: Axis

    @property
    def margin(self) -> int:
        """How many pixels of the level beyond the read its filter reaches."""
        in_cells, cell = self.axis.in_cells()
        return in_cells.margin * cell * self.fold

    def takes_pixels(self, starts: Starts) -> NDArray[np.bool_]:
        """Return from which starts the view's pixels are the level's, or means of them."""
        places = starts / (self.scale * self.fold)
        return self.axis.aligned & (np.abs(places - np.rint(places)) < _SAME)

    def tiles(self, starts: Starts, exact: bool) -> NDArray[np.float64]:
        """Return how many tiles a read from each start touches, in any shape.

        Args:
            starts: where reads begin.
            exact: whether pixels are taken as they are, without a filter.
        """
        places = starts / (self.scale * self.fold)
        if exact:
            first = np.rint(places)
            past = first + self.axis.count
        else:
            axis, cell = self.axis.in_cells()
            places = places / cell
            first, past = np.floor(places), np.ceil(places + axis.stop)
            # The filter is cut off at the frame.
            first = np.minimum(first, np.maximum(first - axis.margin, axis.low)) * cell
            past = np.maximum(past, np.minimum(past + axis.margin, axis.high)) * cell
        low, high = self.axis.low, self.axis.high
        first = np.clip(first, low, high - 1) * self.fold
        past = np.minimum(np.clip(past, low + 1, high) * self.fold, self.side)
        return np.floor((past - 1) / self.tile) - np.floor(first / self.tile) + 1

    def settled(
        self, starts: Starts, reach: float, exact: bool
    ) -> tuple[Starts, NDArray[np.bool_]]:
        """Return the best start for each one, (C,), and whether there is any, bool (C,).

        Args:
            starts: where the candidates lie, (C,).
            reach: how far they may move.
            exact: whether only starts count from which pixels are taken as they are.
        """
        tried = np.concatenate([starts[:, None], self._tried(starts, reach, exact)], axis=1)
        shift = np.abs(tried - starts[:, None])
        past, was = tried + self.length, starts[:, None] + self.length
        fits = shift <= reach
        fits &= ((tried >= self.begin) | (tried >= starts[:, None])) & (
            (past <= self.end) | (past <= was)
        )
        if exact:
            fits &= self.takes_pixels(tried)
        cost = np.where(fits, self.tiles(tried, exact), np.inf)
        best = np.lexsort((tried, shift, cost), axis=1)[:, :1]
        found = np.take_along_axis(tried, best, axis=1)[:, 0]
        return found, np.take_along_axis(fits, best, axis=1)[:, 0]

    def _tried(self, starts: Starts, reach: float, exact: bool) -> Starts:
        """Return starts where a tile is left behind at the front or at the back, (C, S)."""
        places = (starts / self.scale)[:, None]
        if exact:
            cell, margin, length = self.fold, 0, float(self.axis.count * self.fold)
        else:
            cell = self.axis.in_cells()[1] * self.fold
            margin, length = self.margin, self.axis.stop * self.fold
        most = min(math.ceil(reach / self.scale / self.tile), _MOST_TILES)
        tiles = np.arange(-1, most + 1)
        edges = (np.ceil((places - margin) / self.tile) + tiles) * self.tile
        front = np.ceil(edges / cell) * cell + margin
        edges = (np.floor((places + length + margin) / self.tile) - tiles) * self.tile
        back = np.floor(edges / cell) * cell - margin - length
        # Beside each start one that is on the same side of the edge however it is rounded.
        more = [front + _NUDGE, back - _NUDGE]
        if exact:
            more = [np.floor(places / cell) * cell, np.ceil(places / cell) * cell]
        return np.concatenate([front, back, *more], axis=1) * self.scale
