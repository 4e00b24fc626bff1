"""Pyramids around pyramids: fewer bands, other values, another pixel size."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from tnet.facts import BAD_SIZE, per_band
from tnet.geometry import Region
from tnet.pyramid import Described, Facts, How, Pyramid
from tnet.resample import cast

Pixels = NDArray[Any]

_NOWHERE = Region(-2.0, -2.0, 1.0, 1.0)  # beyond the border of every image, a part of one included


class View(Described):
    """A pyramid that reads another one and changes what comes out."""

    def __init__(self, inner: Pyramid, facts: Facts) -> None:
        super().__init__(facts)
        self.inner = inner

    def _ask(self, how: How) -> How:
        """Return the options for the inner pyramid."""
        return how

    def _change(self, pixels: Pixels, how: How) -> Pixels:
        """Return what the view shows for pixels (..., bands) of the inner pyramid."""
        return pixels

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> Pixels:
        """Return ``region`` resampled to ``size``, as ``LevelPyramid.read`` does."""
        return self._change(self.inner.read(region, size, **self._ask(how)), how)

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> Pixels:
        """Return all ``regions``, read side by side, in order: (n, height, width, bands)."""
        return self._change(self.inner.read_many(regions, size, **self._ask(how)), how)

    def close(self) -> None:
        """Close the inner pyramid."""
        self.inner.close()


class BandView(View):
    """Some of the bands, in any order; see ``select_bands``."""

    def __init__(self, inner: Pyramid, facts: Facts, chosen: tuple[int, ...]) -> None:
        super().__init__(inner, facts)
        self._chosen = list(chosen)

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> Pixels:
        """Return the bands of ``region`` resampled to ``size``."""
        return self._looked(lambda asked: self.inner.read(region, size, **asked), how)

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> Pixels:
        """Return the bands of all ``regions``, read side by side: (n, height, width, bands)."""
        return self._looked(lambda asked: self.inner.read_many(regions, size, **asked), how)

    def _looked(self, look: Callable[[How], Pixels], how: How) -> Pixels:
        """Return the chosen bands of what ``look`` reads, each with its own fill."""
        fill = how.get("fill")
        if fill is None or np.ndim(fill) == 0:
            return np.ascontiguousarray(look(how)[..., self._chosen])
        values = per_band(fill, self.bands)
        looks: list[tuple[dict[int, float], list[int]]] = []
        for place, (band, value) in enumerate(zip(self._chosen, values, strict=True)):
            # A band that is shown twice may have two fills; one look has one for each band.
            fit = next((each for each in looks if each[0].get(band, value) == value), None)
            if fit is None:
                looks.append(fit := ({}, []))
            fit[0][band] = value
            fit[1].append(place)
        seen: dict[int, Pixels] = {}
        for fills, places in looks:
            asked = How(**how)
            asked["fill"] = [fills.get(band, 0.0) for band in range(self.inner.bands)]
            pixels = look(asked)
            seen |= {place: pixels[..., self._chosen[place]] for place in places}
        return np.stack([seen[place] for place in range(self.bands)], axis=-1)


class ScaledView(View):
    """Values as bytes; see ``rescale``."""

    def __init__(self, inner: Pyramid, facts: Facts, low: float, high: float) -> None:
        super().__init__(inner, facts)
        self._low = low
        self._step = (high - low) / 255

    def _ask(self, how: How) -> How:
        asked = How(**how)
        asked["dtype"] = np.float32
        fill = how.get("fill")
        if fill is not None:  # it is meant in the values that the view shows
            values = per_band(fill, self.bands)
            asked["fill"] = [self._low + value * self._step for value in values]
        return asked

    def _change(self, pixels: Pixels, how: How) -> Pixels:
        shown = to_bytes(pixels, self._low, self._step)
        dtype = how.get("dtype")
        return cast(shown, self.dtype if dtype is None else np.dtype(dtype))


class CropView(View):
    """A part of an image as an image of its own; see ``crop``."""

    def __init__(self, inner: Pyramid, facts: Facts, part: Region) -> None:
        super().__init__(inner, facts)
        self._part = part

    def _inside(self, region: Region) -> Region:
        x, y = self._part.x + region.x, self._part.y + region.y
        return Region(x, y, region.width, region.height)

    def _ask(self, how: How) -> How:
        asked = How(**how)
        valid = how.get("valid")
        seen = self._part if valid is None else self._part.intersection(self._inside(valid))
        asked["valid"] = seen or _NOWHERE  # None would be all of the image
        return asked

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> Pixels:
        """Return ``region`` of the part, resampled to ``size``."""
        return super().read(self._inside(region), size, **how)

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> Pixels:
        """Return all ``regions`` of the part: (n, height, width, bands)."""
        return super().read_many([self._inside(region) for region in regions], size, **how)


def crop(pyramid: Pyramid, part: Region) -> Pyramid:
    """Return a part of an image as an image of its own, with nothing beyond its border.

    Closing it closes the image that it is a part of.

    Args:
        pyramid: the image.
        part: in whole pixels of level 0; it may reach past the image.

    Raises:
        ValueError: if the part is not in whole pixels.
    """
    if any(value != int(value) for value in (part.x, part.y, part.width, part.height)):
        raise ValueError(f"a crop of {pyramid.name} must be in whole pixels, got {part}")
    levels = tuple(
        replace(
            level,
            width=max(1, round(part.width / level.scale_x)),
            height=max(1, round(part.height / level.scale_y)),
            tile=None,  # the image's do not begin at the part's corner
        )
        for level in pyramid.levels
    )
    transform = pyramid.transform
    if transform is not None:
        a, b, c, d, e, f = transform
        x, y = part.x, part.y
        transform = (a, b, c + a * x + b * y, d, e, f + d * x + e * y)
    return CropView(pyramid, replace(facts_of(pyramid), levels=levels, transform=transform), part)


def select_bands(pyramid: Pyramid, bands: Sequence[int]) -> Pyramid:
    """Return a pyramid that shows some bands, counted from 0, in the order given.

    Raises:
        ValueError: if there is no such band, or none is named.
    """
    chosen = tuple(int(band) for band in bands)
    if not chosen or not all(0 <= band < pyramid.bands for band in chosen):
        raise ValueError(
            f"bands must be between 0 and {pyramid.bands - 1} for {pyramid.name}, got {bands}"
        )
    facts = replace(
        facts_of(pyramid),
        bands=len(chosen),
        background=tuple(pyramid.background[band] for band in chosen),
    )
    return BandView(pyramid, facts, chosen)


def rescale(pyramid: Pyramid, low: float, high: float) -> Pyramid:
    """Return a pyramid of bytes: ``low`` becomes 0, ``high`` 255, linear between, clipped.

    Missing pixels show the background: nodata through the same scale, and black for NaN. Zeros
    beyond the border (``border="zero"``) are zeros of the image, before scaling.

    Raises:
        ValueError: if ``high`` is not above ``low``.
    """
    if not high > low:
        raise ValueError(f"high must be above low, got {low} and {high}")
    background = to_bytes(np.asarray(pyramid.background, np.float32), low, (high - low) / 255)
    facts = replace(
        facts_of(pyramid),
        dtype=np.dtype(np.uint8),
        background=tuple(float(value) for value in np.rint(background)),
        nodata=None,
        unwritten=None,
    )
    return ScaledView(pyramid, facts, low, high)


def with_spacing(pyramid: Pyramid, mpp: float | tuple[float, float]) -> Pyramid:
    """Return a pyramid whose pixels are ``mpp`` micrometres a side, whatever the file says.

    Raises:
        ValueError: if the size is not positive and finite.
    """
    x, y = (mpp, mpp) if isinstance(mpp, int | float) else mpp
    if not (0 < x < math.inf and 0 < y < math.inf):
        raise ValueError(f"a pixel's size must be above 0 µm, got {mpp}")
    facts = replace(
        facts_of(pyramid),
        spacing=(float(x), float(y)),
        unit="µm",
        notes=tuple(note for note in pyramid.notes if not note.endswith(BAD_SIZE)),
    )
    return View(pyramid, facts)


def facts_of(pyramid: Pyramid) -> Facts:
    """Return what a pyramid says of itself."""
    return Facts(
        name=pyramid.name,
        format=pyramid.format,
        levels=pyramid.levels,
        bands=pyramid.bands,
        dtype=pyramid.dtype,
        background=pyramid.background,
        spacing=pyramid.spacing,
        unit=pyramid.unit,
        crs=pyramid.crs,
        transform=pyramid.transform,
        nodata=pyramid.nodata,
        unwritten=pyramid.unwritten,
        notes=pyramid.notes,
    )


def to_bytes(values: Pixels, low: float, step: float) -> Pixels:
    """Scale float32 values linearly into 0 to 255, unrounded; NaN becomes 0."""
    scaled = np.clip((values - np.float32(low)) / np.float32(step), 0, 255)
    return np.nan_to_num(scaled, copy=False, nan=0.0)
