"""A level from the one above it: the mean of every 2 x 2 pixels.

One rule for what is stored and for what is averaged while reading, so that an image shows the
same whether its coarser levels exist or not.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tnet.resample import missing, reduced

Pixels = NDArray[Any]

_NEAR = 0.75  # a level between two is made up where it is finer than this part of the coarser one


class _Sized(Protocol):
    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def scale_x(self) -> float: ...

    @property
    def scale_y(self) -> float: ...


def halve(block: Pixels, nodata: float | None) -> Pixels:
    """Return the means of 2 x 2 pixels, at odd ends of those that exist.

    A pixel is missing where every band holds nodata, a value where it is NaN. Missing ones take
    no part in a mean, and a mean is missing only where all of its pixels are. No mean of what is
    there reads as missing.

    Args:
        block: (bands, height, width).
        nodata: the value of missing pixels, None where there is none.

    Returns:
        (bands, ceil(height / 2), ceil(width / 2)) of the block's dtype, rounded half up.
    """
    gone = missing(block.transpose(1, 2, 0), nodata)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs
        if gone is not None:
            return _masked(_even(block), ~_even(gone.transpose(2, 0, 1)), nodata)
        if block.dtype == np.uint8:
            mean = np.stack([_halved_bytes(band) for band in block])
        else:
            mean = _rounded(_quartered(_even(block)), block.dtype)
    return _told_apart(mean, nodata)


def halve_interleaved(block: Pixels, nodata: float | None) -> Pixels:
    """Return the same means of a block (height, width, bands), bands last."""
    if block.dtype == np.uint8 and nodata is None:
        return reduced(block, 2)
    return np.moveaxis(halve(np.moveaxis(block, 2, 0), nodata), 0, 2)


def halvings(level: _Sized, below: _Sized | None, end: float) -> int:
    """Return how many levels are made up between a level and the next coarser one.

    Args:
        level: or plane.
        below: the next one; None after the last.
        end: the scale from which on, after the last, other planes serve.
    """
    stop = end if below is None else _NEAR * min(below.scale_x, below.scale_y)
    most = (max(level.width, level.height) - 1).bit_length()  # to a single pixel
    scale, times = max(level.scale_x, level.scale_y), 0
    while times < most and scale * 2 ** (times + 1) < stop:
        times += 1
    return times


def _halved_bytes(band: Pixels) -> Pixels:
    height, width = band.shape
    data = np.ascontiguousarray(band)
    image = Image.frombuffer("L", (width, height), data, "raw", "L", 0, 1)
    return np.asarray(image.reduce(2))


def _even(block: Pixels) -> Pixels:
    """Repeat the last row and column where their number is odd: their weights stay equal."""
    odd = [(0, side % 2) for side in block.shape[1:]]
    return np.pad(block, [(0, 0), *odd], mode="edge") if any(right for _, right in odd) else block


def _quartered(block: Pixels) -> Pixels:
    """Return a quarter of the sum of 2 x 2 values, exact for all integers."""
    if block.dtype.kind == "f" or block.dtype.itemsize > 2:
        rows = block[:, ::2] * np.float64(0.25)  # before the sum, which might be too large
        rows += block[:, 1::2] * np.float64(0.25)
        return rows[:, :, ::2] + rows[:, :, 1::2]
    sums = block[:, ::2].astype(np.int32)
    sums += block[:, 1::2]
    return (sums[:, :, ::2] + sums[:, :, 1::2]) / np.float32(4)


def _masked(block: Pixels, there: NDArray[np.bool_], nodata: float | None) -> Pixels:
    """Return the means of the values that are there."""
    values = np.where(there, block, 0).astype(np.float64)
    total = sum(values[:, i::2, j::2] for i in (0, 1) for j in (0, 1))
    count = sum(there[:, i::2, j::2].astype(np.float64) for i in (0, 1) for j in (0, 1))
    known = np.asarray(count) > 0
    mean = _rounded(np.asarray(total / np.maximum(count, 1)), block.dtype)
    if block.dtype.kind == "f":
        mean[~known] = np.nan
    mean = _told_apart(mean, nodata)
    if nodata is not None and not np.isnan(nodata):
        mean[:, ~known.any(axis=0)] = nodata
    return mean


def _told_apart(mean: Pixels, nodata: float | None) -> Pixels:
    """Return means of which none is nodata by chance: such a one takes the value beside it."""
    if nodata is not None and not np.isnan(nodata):
        mean[0][(mean == nodata).all(axis=0)] = _beside(nodata, mean.dtype)
    return mean


def _beside(nodata: float, dtype: np.dtype[Any]) -> Any:
    value = dtype.type(nodata)
    if dtype.kind == "f":
        return np.nextafter(value, dtype.type(0 if nodata else 1))
    return value - dtype.type(1) if value == np.iinfo(dtype).max else value + dtype.type(1)


def _rounded(values: Pixels, dtype: np.dtype[Any]) -> Pixels:
    if dtype.kind == "f":
        return values.astype(dtype)
    return np.floor(values + values.dtype.type(0.5)).astype(dtype)
