"""An image in memory as a pyramid."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.errors import UnsupportedImage
from tnet.facts import representable
from tnet.pyramid import Facts, Level, LevelPyramid

# From pixels as stored to upright ones, by the orientation tag of TIFF and EXIF; views, no copies.
TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p.swapaxes(0, 1)[::-1],
}


class ArrayPyramid(LevelPyramid):
    """A numpy array (height, width) or (height, width, bands) as a pyramid of one level."""

    def __init__(self, pixels: NDArray[Any], facts: Facts) -> None:
        super().__init__(facts)
        self._pixels = pixels

    def _fetch(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        return self._pixels[y : y + height, x : x + width]


def open_array(
    pixels: NDArray[Any],
    name: str = "array",
    spacing: tuple[float, float] | None = None,
    unit: str | None = "µm",
    nodata: float | None = None,
    background: tuple[float, ...] | None = None,
) -> ArrayPyramid:
    """Return an array as a pyramid; the array is not copied.

    Args:
        pixels: (height, width) or (height, width, bands), integers of at most 32 bits or floats.
        name: what messages and results call it.
        spacing: size of a pixel, x and y, in ``unit``.
        unit: unit of ``spacing``.
        nodata: the value of missing pixels.
        background: what lies beyond the border, one value a band; by default nodata where there
            is one, white for 8-bit RGB, else 0.

    Raises:
        UnsupportedImage: if the array is no image.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise UnsupportedImage(
            f"{name} has the shape {pixels.shape}; an image is (height, width) or "
            "(height, width, bands)"
        )
    height, width, bands = pixels.shape
    facts = Facts(
        name=name,
        format="array",
        levels=(Level(width, height, 1.0, 1.0, None),),
        bands=bands,
        dtype=pixels.dtype,
        background=background or default_background(bands, pixels.dtype, nodata),
        spacing=spacing,
        unit=unit if spacing else None,
        nodata=nodata,
    )
    return ArrayPyramid(pixels, facts)


def default_background(bands: int, dtype: np.dtype[Any], nodata: float | None) -> tuple[float, ...]:
    """Return what lies beyond the border of an image that does not say so itself."""
    nodata = representable(nodata, dtype)
    if nodata is not None:
        return (float(nodata),) * bands
    white = dtype == np.uint8 and bands == 3
    return (255.0 if white else 0.0,) * bands
