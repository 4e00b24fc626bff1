"""How pixels are averaged: pure functions of arrays, none of them knows a file.

Arrays are (height, width, bands). A pixel is missing where it is NaN, or where every band holds
the nodata value; missing pixels take no part in an average, and an average is missing where less
than half of its weight was there.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[Any]
Box = tuple[float, float, float, float]

_CELL_LIMIT = 2**12  # pixels: Pillow's 8-bit means of larger cells are off by a level and more


def resize(
    block: Pixels, box: Box, size: tuple[int, int], nodata: float | None, exact: bool
) -> Pixels:
    """Resample ``box`` of a block with a triangle filter as wide as the step (anti-aliased).

    Pixels of the block outside the box take part where the filter reaches them.

    Args:
        block: (height, width, bands) of any real dtype.
        box: left, top, right, bottom in pixels of the block; may be fractional.
        size: width and height of the result.
        nodata: the value of missing pixels, None where there is none.
        exact: return unrounded float32 instead of the block's dtype.

    Returns:
        (height, width, bands). Integers wider than 16 bits and float64 go through float32.
    """
    return _per_image(
        block,
        lambda image: image.resize(size, Image.Resampling.BILINEAR, box=box),
        nodata,
        exact,
    )


def box_mean(block: Pixels, factors: tuple[int, int], nodata: float | None, exact: bool) -> Pixels:
    """Average cells of ``factors`` = (columns, rows) pixels, those at the end over what exists.

    Returns:
        (ceil(height / rows), ceil(width / columns), bands), in float32 if ``exact`` and in the
        block's dtype otherwise.
    """
    low, high = block.min(), block.max()
    if low == high:  # blank background is common in big files, and cheap to recognise
        height, width = -(-block.shape[0] // factors[1]), -(-block.shape[1] // factors[0])
        dtype = np.float32 if exact else block.dtype
        return np.full((height, width, block.shape[2]), low, dtype)
    if block.dtype == np.uint8 and factors[0] * factors[1] > _CELL_LIMIT:
        means = _per_image(block.astype(np.float32), _reducing(factors), nodata, True)
        return means if exact else cast(means, block.dtype)
    return _per_image(block, _reducing(factors), nodata, exact)


def _reducing(factors: tuple[int, int]) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.reduce(factors)


def taps(side: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return what the released code's bilinear view reads along one axis: no anti-aliasing.

    Output pixel u looks at (u + 0.5) * side / count - 0.5, clamped to the crop, and all of that
    in float32, whose rounding shows in the third digit.

    Returns:
        the lower and the upper neighbour's index and the upper one's weight, each (count,).
    """
    half, step = np.float32(0.5), np.float32(side) / np.float32(count)
    centre = (np.arange(count, dtype=np.float32) + half) * step - half
    centre = np.clip(centre, np.float32(0), np.float32(side - 1))
    lower = np.floor(centre).astype(np.intp)
    return lower, np.minimum(lower + 1, side - 1), (centre - lower).astype(np.float32)


def clamped(index: NDArray[np.intp], low: int, high: int) -> NDArray[np.intp]:
    """Repeat the pixels at the border: indices into [low, high)."""
    return np.clip(index, low, high - 1)


def mirrored(index: NDArray[np.intp], low: int, high: int) -> NDArray[np.intp]:
    """Reflect at the border line (the last pixel is seen twice), however far away."""
    length = high - low
    phase = (index - low) % (2 * length)
    return np.where(phase < length, phase, 2 * length - 1 - phase) + low


def cast(values: Pixels, dtype: np.dtype[Any]) -> Pixels:
    """Convert to ``dtype``; for integers round half to even and clip to their range."""
    if values.dtype == dtype:
        return values
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    if values.dtype.kind == "f":
        values = np.rint(values, dtype=np.float64 if dtype.itemsize > 2 else None)
    return np.clip(values, limits.min, limits.max).astype(dtype)


def missing(block: Pixels, nodata: float | None) -> NDArray[np.bool_] | None:
    """Return which values are missing, (height, width, bands), or None where all are there."""
    gone = None
    if nodata is not None and not np.isnan(nodata):
        same = block == nodata
        if same.any():
            gone = np.broadcast_to(same.all(axis=2, keepdims=True), block.shape)
    if block.dtype.kind == "f":
        nan = np.isnan(block)
        if nan.any():
            gone = nan if gone is None else nan | gone
    return gone if gone is not None and gone.any() else None


def _per_image(
    block: Pixels,
    operate: Callable[[Image.Image], Image.Image],
    nodata: float | None,
    exact: bool,
) -> Pixels:
    """Run one of Pillow's averages over all bands, leaving missing pixels out."""
    gone = missing(block, nodata)
    if gone is None:
        if block.dtype == np.uint8 and not exact:
            return _bytes(block, operate)
        values = _floats(block.astype(np.float32, copy=False), operate)
    else:
        there = (~gone).astype(np.float32)
        sums = _floats(np.where(gone, np.float32(0), block).astype(np.float32), operate)
        weights = _floats(there, operate)
        blank = np.nan if nodata is None else nodata
        enough = weights >= 0.5 - 1e-6  # Pillow's weights are rounded
        values = np.where(enough, sums / np.where(enough, weights, 1), blank)
    return values.astype(np.float32, copy=False) if exact else cast(values, block.dtype)


def reduced(block: Pixels, factor: int) -> Pixels:
    """Return the means of ``factor`` x ``factor`` uint8 values, rounded half up."""
    return _bytes(block, _reducing((factor, factor)))


def _bytes(block: Pixels, operate: Callable[[Image.Image], Image.Image]) -> Pixels:
    """Average uint8 in Pillow's 8-bit arithmetic."""
    # Four bands go as CMYK because Pillow would premultiply RGBA by its last band.
    mode = {3: "RGB", 4: "CMYK"}.get(block.shape[2])
    if mode is None or block[..., 0].flags.c_contiguous:  # planar: no interleaving needed
        return np.stack([_run(block[..., i], "L", operate) for i in range(block.shape[2])], -1)
    return _run(block, mode, operate)


def _floats(block: Pixels, operate: Callable[[Image.Image], Image.Image]) -> Pixels:
    """Average float32 band by band."""
    return np.stack([_run(block[..., i], "F", operate) for i in range(block.shape[2])], -1)


def _run(array: Pixels, mode: str, operate: Callable[[Image.Image], Image.Image]) -> Pixels:
    size = (array.shape[1], array.shape[0])
    data = np.ascontiguousarray(array)
    image = Image.frombuffer(mode, size, data, "raw", mode, 0, 1)
    return np.asarray(operate(image))
