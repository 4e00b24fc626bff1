"""What the values of a data set are: a mean and a deviation a band, from a cheap sample."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from tnet.adapters import Limits, open_pyramid
from tnet.background import foreground
from tnet.datasets.entries import Entry
from tnet.geometry import Region
from tnet.pyramid import Pyramid

Floats = NDArray[np.float64]
Moments = tuple[Floats, Floats, Floats]

_SIDE = 256  # pixels of the longer side of what is read of an image
_FLAT = 1e-7  # of the mean: a deviation that is only rounding


def entry_statistics(
    entries: Sequence[Entry], most: int = 64, seed: int = 0, limits: Limits | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each band of a manifest's images.

    Args:
        entries: rows of images of the same bands; each is opened while it is read.
        most: how many are read.
        seed: of which ones.
        limits: what a file may declare.

    Returns:
        as :func:`band_statistics` does.

    Raises:
        ValueError: if there is no image.
        DataError: if one cannot be read.
    """
    chosen = sorted(default_rng(seed).permutation(len(entries))[:most].tolist())

    def opened() -> Iterator[Pyramid]:
        for index in chosen:
            with open_pyramid(entries[index].image, limits=limits) as pyramid:
                yield pyramid

    return band_statistics(opened())


def band_statistics(
    pyramids: Iterable[Pyramid],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each band, in units of the pixels.

    Each image is read once, as a small view of all of it from a coarse level; averaged pixels
    vary less than those of the full resolution, and the deviations are a little too small for it.
    Missing pixels are left out, and so is what is background, unless there is nothing else.

    Args:
        pyramids: images of the same bands, one after the other.

    Returns:
        means and deviations; the deviation of a band whose values are all the same is 1.

    Raises:
        ValueError: if there is no image.
    """
    seen = [_moments(pyramid) for pyramid in pyramids]
    if not seen:
        raise ValueError("statistics need at least one image")
    return _summary(seen)


def _summary(
    seen: Sequence[tuple[Moments, Moments]],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return means and deviations from the moments of each image's foreground and of all of it."""
    # Band by band: one that is all background in every image has its background to go by.
    shown, whole = (_merged([pair[kind] for pair in seen]) for kind in (0, 1))
    count, mean, squares = (np.where(shown[0] > 0, a, b) for a, b in zip(shown, whole, strict=True))
    std = np.sqrt(squares / np.maximum(count, 1))
    std[std <= _FLAT * np.abs(mean)] = 1.0  # rounding, if not 0
    return tuple(map(float, mean)), tuple(map(float, std))


def _moments(pyramid: Pyramid) -> tuple[Moments, Moments]:
    """Return the moments of what a view of an image shows, and those of all of it."""
    shrink = min(1.0, _SIDE / max(pyramid.width, pyramid.height))
    size = max(1, round(pyramid.width * shrink)), max(1, round(pyramid.height * shrink))
    view = pyramid.read(Region(0, 0, pyramid.width, pyramid.height), size)
    there = np.isfinite(view)
    if pyramid.nodata is not None:
        there &= ~(view == pyramid.nodata).all(axis=2, keepdims=True)
    values = np.where(there, view, 0).astype(np.float64)
    seen = foreground(view, pyramid)[..., None]
    return _moments_where(values, there & seen), _moments_where(values, there)


def _moments_where(values: Floats, there: NDArray[np.bool_]) -> Moments:
    """Return count, mean and sum of squared deviations of each band, float64 (bands,) each."""
    count = there.sum(axis=(0, 1)).astype(np.float64)
    mean = np.where(there, values, 0).sum(axis=(0, 1)) / np.maximum(count, 1)
    squares = (np.where(there, values - mean, 0) ** 2).sum(axis=(0, 1))
    return count, mean, squares


def _merged(parts: Sequence[Moments]) -> Moments:
    """Return the moments of all parts together, exactly where a sum of squares would cancel."""
    counts, means, squares = (np.stack(each) for each in zip(*parts, strict=True))
    total = counts.sum(axis=0)
    mean = (counts * means).sum(axis=0) / np.maximum(total, 1)
    return total, mean, squares.sum(axis=0) + (counts * (means - mean) ** 2).sum(axis=0)
