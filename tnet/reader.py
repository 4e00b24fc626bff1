"""From a region and a size to pixels: levels, borders and averaging, the same for every format."""

import math
import threading
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tnet.axis import Axis, Rule, axis_of, stored_from
from tnet.facts import coarsest_for
from tnet.geometry import Region
from tnet.planes import Plane, ladder, overview_factors, overviews
from tnet.resample import cast, clamped, mirrored, resize, taps

Pixels = NDArray[Any]
Span = tuple[float, float, int, float, float, int]  # what ``axis_of`` takes

_BLOCK = 1024  # source pixels a side that the official view reads at a time


class Manner(NamedTuple):
    """How to read, checked: see ``tnet.pyramid.How`` for the meaning.

    Attributes:
        frame: the part of the image that may be seen; None, only with ``outside``, for no part.
        outside: one value a band beyond the frame; None mirrors the frame.
        dtype: of the result.
        exact: the averages stay unrounded.
        official: as the released code reads, instead of averaging.
    """

    frame: Region | None
    outside: tuple[float, ...] | None
    dtype: np.dtype[Any]
    exact: bool
    official: bool


class Request(NamedTuple):
    """A read: ``region`` in level-0 pixels, ``size`` the width and height of the result."""

    region: Region
    size: tuple[int, int]
    frame: Region | None
    outside: tuple[float, ...] | None
    dtype: np.dtype[Any]
    exact: bool
    official: bool


class Reader:
    """Reads from planes, finest first; makes overviews where the coarsest is still large.

    Planes of which the next one is much coarser are halved as they are read: an image shows the
    same as its copy that has these levels.
    """

    def __init__(self, planes: list[Plane]) -> None:
        factors = overview_factors(planes[-1])
        # The scale from which on overviews serve; they are made by the first such read.
        self.overview_scale = planes[-1].scale_x * factors[0] if factors else math.inf
        self._stored = planes
        self.planes = ladder(planes, self.overview_scale)
        self._overviews: list[Plane] | None = None
        self._lock = threading.Lock()

    @cached_property
    def _unrounded(self) -> list[Plane]:
        """The planes for averages that stay floats, which few readers are asked for."""
        return ladder(self._stored, self.overview_scale, exact=True)

    def read(self, ask: Request) -> Pixels:
        """Return what is asked for: (height, width, bands)."""
        return self._official(ask) if ask.official else self._antialiased(ask)

    def stored(
        self, region: Region, size: tuple[int, int], how: Manner
    ) -> tuple[int, int, int] | None:
        """Return level, x and y where the file holds the very pixels asked for, None elsewhere."""
        if how.official or how.exact or how.frame is None:
            return None
        plane = self._plane_for(region.width / size[0], region.height / size[1])
        if plane.level is None:
            return None
        across, down = _spans(region, size, plane, how.frame)
        x, y = stored_from(*across), stored_from(*down)
        if x is None or y is None:
            return None
        return plane.level, x, y

    def _antialiased(self, ask: Request) -> Pixels:
        """Average every pixel under an output pixel: (height, width, bands)."""
        step_x, step_y = ask.region.width / ask.size[0], ask.region.height / ask.size[1]
        plane = self._plane_for(step_x, step_y, ask.exact)
        if ask.frame is None:
            return _blank(ask, plane.bands)
        across, down = _axes(ask.region, ask.size, plane, ask.frame)
        if ask.outside is None:
            return cast(_resampled(plane, across, down, mirrored, ask.exact), ask.dtype)
        cover_x, cover_y = across.coverage(), down.coverage()
        seen_x, seen_y = np.flatnonzero(cover_x), np.flatnonzero(cover_y)
        if not len(seen_x) or not len(seen_y):
            return _blank(ask, plane.bands)
        x, right, y, bottom = seen_x[0], seen_x[-1] + 1, seen_y[0], seen_y[-1] + 1
        inside = _resampled(plane, across.part(x, right), down.part(y, bottom), clamped, ask.exact)
        if (cover_x == 1).all() and (cover_y == 1).all():
            return cast(inside, ask.dtype)
        canvas = _blank(ask, plane.bands)
        share = cover_y[y:bottom, None, None] * cover_x[None, x:right, None]
        canvas[y:bottom, x:right] = _blend(inside, share, ask, plane.nodata)
        return canvas

    def _official(self, ask: Request) -> Pixels:
        """Interpolate between the two nearest pixels of level 0: (height, width, bands)."""
        width, height = max(1, round(ask.region.width)), max(1, round(ask.region.height))
        left, right, weight_x = taps(width, ask.size[0])
        upper, lower, weight_y = taps(height, ask.size[1])
        out = np.empty((ask.size[1], ask.size[0], self.planes[0].bands), ask.dtype)
        step_x = max(1, int(_BLOCK * ask.size[0] / width))
        step_y = max(1, int(_BLOCK * ask.size[1] / height))
        for v in range(0, ask.size[1], step_y):
            rows = slice(v, v + step_y)
            for u in range(0, ask.size[0], step_x):
                columns = slice(u, u + step_x)
                x0, y0 = left[u], upper[v]
                block = self._pixels(
                    ask,
                    np.arange(x0, right[columns][-1] + 1) + round(ask.region.x),
                    np.arange(y0, lower[rows][-1] + 1) + round(ask.region.y),
                )
                block = _between(block, upper[rows] - y0, lower[rows] - y0, weight_y[rows], 0)
                block = _between(
                    block, left[columns] - x0, right[columns] - x0, weight_x[columns], 1
                )
                out[rows, columns] = cast(block, ask.dtype)
        return out

    def _pixels(
        self, ask: Request, columns: NDArray[np.intp], rows: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Return level-0 pixels in float32, what lies beyond the frame included."""
        plane = self.planes[0]
        if ask.frame is None:
            return np.broadcast_to(
                np.asarray(ask.outside, np.float32), (len(rows), len(columns), plane.bands)
            )
        across, down = _axes(ask.region, ask.size, plane, ask.frame)
        rule = mirrored if ask.outside is None else clamped
        block = plane.gather(
            rule(columns, across.low, across.high), rule(rows, down.low, down.high)
        ).astype(np.float32)
        if ask.outside is not None:
            block[:, (columns < across.low) | (columns >= across.high)] = ask.outside
            block[(rows < down.low) | (rows >= down.high)] = ask.outside
        return block

    def _plane_for(self, step_x: float, step_y: float, exact: bool = False) -> Plane:
        """Return the coarsest plane that is at least as fine as the steps."""
        planes = self._unrounded if exact else self.planes
        if min(step_x, step_y) * (1 + 1e-6) >= self.overview_scale:
            with self._lock:
                if self._overviews is None:
                    self._overviews = ladder(overviews(self._stored[-1]), math.inf)
            planes = self._overviews
        return coarsest_for(planes, step_x, step_y)


def _axes(region: Region, size: tuple[int, int], plane: Plane, frame: Region) -> tuple[Axis, Axis]:
    """Return the horizontal and the vertical axis of a read in pixels of a plane."""
    across, down = _spans(region, size, plane, frame)
    return axis_of(*across), axis_of(*down)


def _spans(region: Region, size: tuple[int, int], plane: Plane, frame: Region) -> tuple[Span, Span]:
    """Return what makes the two axes of a read."""
    sx, sy = plane.scale_x, plane.scale_y
    return (
        (region.x / sx, region.width / sx, size[0], frame.x / sx, frame.right / sx, plane.width),
        (region.y / sy, region.height / sy, size[1], frame.y / sy, frame.bottom / sy, plane.height),
    )


def _resampled(plane: Plane, across: Axis, down: Axis, rule: Rule, exact: bool) -> Pixels:
    """Average a plane's pixels into the axes' output pixels."""
    if across.aligned and down.aligned:
        columns = round(across.start) + np.arange(across.count)
        rows = round(down.start) + np.arange(down.count)
        return plane.gather(rule(columns, across.low, across.high), rule(rows, down.low, down.high))
    limits = (across.low, down.low, across.high, down.high)
    (across, cell_x), (down, cell_y) = across.in_cells(), down.in_cells()
    columns, left = across.reach(rule)
    rows, top = down.reach(rule)
    block = plane.gather(columns, rows, (cell_x, cell_y), limits, exact)
    box = (
        max(0.0, across.start - left),
        max(0.0, down.start - top),
        min(float(len(columns)), across.stop - left),
        min(float(len(rows)), down.stop - top),
    )
    return resize(block, box, (across.count, down.count), plane.nodata, exact)


def _blank(ask: Request, bands: int) -> Pixels:
    """Return a result that is all border."""
    canvas = np.empty((ask.size[1], ask.size[0], bands), ask.dtype)
    canvas[:] = cast(np.asarray(ask.outside), ask.dtype)
    return canvas


def _blend(
    inside: Pixels, share: NDArray[np.float32], ask: Request, nodata: float | None
) -> Pixels:
    """Mix what lies inside the frame with what lies beyond, by the share of each pixel."""
    outside = np.asarray(ask.outside)
    if nodata is not None or np.isnan(outside).any():
        mixed = np.where(share >= 0.5, inside, cast(outside, ask.dtype))
    else:
        mixed = np.where(share == 1, inside, cast(outside + share * (inside - outside), ask.dtype))
    return cast(mixed, ask.dtype)


def _between(
    block: NDArray[np.float32],
    lower: NDArray[np.intp],
    upper: NDArray[np.intp],
    weight: NDArray[np.float32],
    axis: int,
) -> NDArray[np.float32]:
    """Interpolate linearly along an axis."""
    low, high = block.take(lower, axis), block.take(upper, axis)
    return low + (high - low) * weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
