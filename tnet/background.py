"""Which pixels of a view are empty: nodata, and the white glass around a slide's tissue."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from tnet.geometry import Grid, Region
from tnet.pyramid import Pyramid

# Glass is nearly grey and nearly as bright as the slide's background; 8-bit values. Pale eosin
# is as bright but more coloured.
_GLASS_COLOUR = 15
_GLASS_DARKER = 20
BRIGHT = 190


def foreground(view: NDArray[np.generic], pyramid: Pyramid) -> NDArray[np.bool_]:
    """Return where a view shows something, bool (height, width).

    Args:
        view: (height, width, bands) in the pyramid's dtype.
        pyramid: where it was read; its ``background`` says what empty looks like, and where
            that is bright and the image no map, glass is empty too. Pixels beyond the image's
            border read as background, and so are empty.
    """
    empty = np.asarray(pyramid.background, dtype=np.float64)
    values = np.asarray(view)
    if values.dtype.kind == "f" and np.dtype(pyramid.dtype).kind in "iu":
        values = np.rint(values).astype(pyramid.dtype)  # the official view is not rounded
    if values.dtype.kind == "f":
        same = np.isnan(values).all(axis=2) | (values == empty).all(axis=2)
        return np.asarray(~same)
    seen = _unlike(values, pyramid.background)
    # On a map, what is as bright as its background may be snow.
    if values.dtype == np.uint8 and empty.min() >= BRIGHT and pyramid.crs is None:
        # Band by band: numpy is slow at reducing a short last axis.
        bands = [values[:, :, band].astype(np.int16) for band in range(values.shape[2])]
        brightness = sum(bands[1:], bands[0]) / len(bands)
        colour = reduce(np.maximum, bands) - reduce(np.minimum, bands)
        seen &= (brightness < empty.mean() - _GLASS_DARKER) | (colour > _GLASS_COLOUR)
    if pyramid.unwritten is not None:
        seen &= _unlike(values, (pyramid.unwritten,) * values.shape[2])
    return seen


def _unlike(values: NDArray[np.generic], empty: Sequence[float]) -> NDArray[np.bool_]:
    """Return where integers are not exactly ``empty``, which has one value a band."""
    # Whole numbers as such: numpy compares bytes with a float much slower.
    levels = [int(value) if float(value).is_integer() else value for value in empty]
    return reduce(np.logical_or, (values[:, :, band] != level for band, level in enumerate(levels)))


def cell_shares(seen: NDArray[np.bool_], parent: Region, grid: Grid) -> NDArray[np.float64]:
    """Return how much of each candidate is foreground, float64 (cells,), from 0 to 1.

    Args:
        seen: bool (height, width), the foreground of the parent's view.
        parent: the region that the view shows, in pixels of level 0.
        grid: its candidates; what of a candidate lies beyond the view is not counted.
    """
    height, width = seen.shape
    rows, columns = grid.spans(parent)
    top, bottom = _in_view(rows, parent.y, parent.height, height)
    left, right = _in_view(columns, parent.x, parent.width, width)
    # Whole numbers up to 2^24, more than a view's pixels, are exact in float32.
    down = _covered(top, bottom, height).astype(np.float32)
    across = _covered(left, right, width).astype(np.float32)
    inside = down @ seen.astype(np.float32) @ across.T
    return (inside.astype(np.float64) / np.outer(bottom - top, right - left)).ravel()


def _covered(first: NDArray[np.int64], past: NDArray[np.int64], pixels: int) -> NDArray[np.bool_]:
    """Return which pixels each span holds, bool (spans, pixels)."""
    at = np.arange(pixels)
    return (at >= first[:, None]) & (at < past[:, None])


def _in_view(
    spans: list[tuple[float, float]], start: float, length: float, pixels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return first pixel and the one past the last of each span, at least one pixel each."""
    edges = (np.asarray(spans) - [start, 0.0]) * (pixels / length)
    first = np.clip(np.floor(edges[:, 0] + 0.5), 0, pixels - 1).astype(np.int64)
    past = np.clip(np.floor(edges.sum(axis=1) + 0.5), 1, pixels).astype(np.int64)
    return first, np.maximum(past, first + 1)
