"""Other light, other stains, another focus: the same for every glimpse of an image.

Colours change in float32 on a scale where 0 to 1 is what values usually are. albumentations does
it, called with ranges of one value, so that nothing is left to draw: what it draws itself is the
same again in every forked process. Three things are done here instead, because there they depend
on the view or on the order of calls: contrast is around the mean of the data, not of the view;
stains change everywhere, not where a threshold of the view finds tissue; and noise is drawn from
the region that is looked at.

n views, C bands.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Unpack

import cv2
import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from tnet.adapters.views import View, facts_of
from tnet.background import BRIGHT
from tnet.facts import per_band
from tnet.geometry import Region
from tnet.pyramid import How, Pyramid
from tnet.resample import cast

Pixels = NDArray[Any]
Floats = NDArray[np.float32]
Change = Callable[[Floats], Floats]

_RGB = 3
_HALVINGS = 8  # of brightness and contrast; what is left is less than rounding
_DEVIATIONS = 4.0  # around the mean: what values usually are
_LEAST_BLUR = 0.1  # of a pixel; less is none
_DARK = 1 / 255  # optical densities end here
_GLASS, _STAINED = 0.05, 0.2  # mean optical densities up to and from which a pixel is which

# Optical densities of haematoxylin, eosin and a third stain (DAB) in red, green and blue, rows of
# length 1: Ruifrok and Johnston 2001, "Quantification of histochemical staining by color
# deconvolution".
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_STAINS /= np.linalg.norm(_STAINS, axis=1, keepdims=True)


@dataclass(frozen=True)
class Colours:
    """One draw; the numbers are those of the one image.

    Attributes:
        brightness: added, on the scale from 0 to 1.
        contrast: share by which values move away from the mean.
        saturation: the same, away from grey.
        hue: turn of the colour circle, 1 being all around.
        stain: of each stain, the share by which it grows and what is added to its density.
        blur: standard deviation in pixels of the view.
        noise: standard deviation on the scale from 0 to 1.
        seed: of the noise.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    stain: tuple[tuple[float, float], ...] = ()
    blur: float = 0.0
    noise: float = 0.0
    seed: int = 0

    @property
    def changes(self) -> bool:
        """Say whether anything changes."""
        return self != Colours(seed=self.seed)


@dataclass(frozen=True)
class Scale:
    """What values usually are: they become 0 and 1.

    Attributes:
        low, high: of each band, or one of all bands where they are the same.
        middle: the data's mean, on this scale.
    """

    low: Floats
    high: Floats
    middle: float

    @classmethod
    def of(cls, pyramid: Pyramid, mean: Sequence[float], std: Sequence[float]) -> "Scale":
        """Return 0 to 255 for bytes; else four deviations around the mean, one range for RGB."""
        centre, spread = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        if pyramid.dtype == np.uint8:
            low, high = np.zeros_like(centre), np.full_like(centre, 255)
        else:
            low, high = centre - _DEVIATIONS * spread, centre + _DEVIATIONS * spread
            if len(centre) == _RGB:
                low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
        middle = float(np.clip((centre - low) / (high - low), 0, 1).mean())
        if np.ptp(low) == 0 == np.ptp(high):  # numpy is slow along a short last axis
            low, high = low[:1], high[:1]
        return cls(low, high, middle)


class ColouredView(View):
    """An image in other colours; see ``recolour``."""

    def __init__(self, inner: Pyramid, colours: Colours, scale: Scale) -> None:
        self._scale, self._colours = scale, colours
        self._step = scale.high - scale.low
        self._blur = _blur(colours.blur) if colours.blur > _LEAST_BLUR else None
        self._changes = _changes(colours, scale.middle, inner.bands)
        background = self._shown(np.asarray(inner.background, np.float32)[None, None])[0, 0]
        if inner.dtype.kind != "f":
            background = cast(background, inner.dtype)
        if inner.nodata is not None:  # missing pixels stay what they are
            before = np.asarray(inner.background)
            background = np.where(before == inner.nodata, before, background)
        shown = tuple(float(value) for value in background)
        super().__init__(inner, replace(facts_of(inner), background=shown))

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> Pixels:
        """Return ``region`` resampled to ``size``, in other colours."""
        return self.read_many([region], size, **how)[0]

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> Pixels:
        """Return all ``regions`` in other colours, in order: (n, height, width, bands)."""
        stored = self.inner.read_many(regions, size, **how)
        before = stored.astype(np.float32, copy=False)
        known, kept = self._kept(before, stored.dtype, how.get("fill"))
        after = np.empty_like(before)
        # One by one: a view stays in the processor's cache through all of its changes.
        for view, own, region in zip(known, after, regions, strict=True):
            own[...] = self._shown(view)
            self._disturb(own, region)
        after[_same(before, self.inner.background)] = self.background
        after[kept] = before[kept]
        wanted = how.get("dtype")
        return cast(after, self.dtype if wanted is None else np.dtype(wanted))

    def _shown(self, values: Floats) -> Floats:
        """Return values (..., width, bands) in other colours, without blur and noise."""
        shape, scale = values.shape, self._scale
        usual = (values - scale.low) / self._step
        np.clip(usual, 0, 1, out=usual)
        usual = usual.reshape(-1, *shape[-2:])
        changed = usual
        for change in self._changes:
            changed = change(changed)
        # What lies beyond the scale keeps its distance.
        return values + (changed - usual).reshape(shape) * self._step

    def _disturb(self, view: Floats, region: Region) -> None:
        """Blur a view and add noise, in place."""
        if self._blur is not None:
            view[...] = self._blur((view - self._scale.low) / self._step) * self._step
            view += self._scale.low
        if self._colours.noise > 0:
            place = np.array([region.x, region.y, region.width, region.height]).view(np.uint64)
            chance = default_rng([self._colours.seed, *map(int, place)])
            noise = chance.standard_normal(view.shape, np.float32)
            view += noise * (self._colours.noise * self._step)

    def _kept(
        self, before: Floats, stored: np.dtype[Any], fill: float | Sequence[float] | None
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Return values without holes, and which ones, bool (n, height, width), do not change.

        These are missing and unwritten pixels, and what the reader was told to fill in.
        """
        kept = np.zeros(before.shape[:-1], dtype=bool)
        if self.inner.dtype.kind == "f":
            kept |= np.isnan(before).any(axis=-1)
        for value in (self.nodata, self.unwritten, fill):
            if value is not None:
                wanted = cast(np.asarray(per_band(value, self.bands)), stored)
                kept |= _same(before, wanted.tolist())
        if not kept.any():
            return before, kept
        middle = (self._scale.low + self._scale.high) / 2
        return np.where(kept[..., None], middle, before), kept


def recolour(
    pyramid: Pyramid, colours: Colours, mean: Sequence[float], std: Sequence[float]
) -> Pyramid:
    """Return a pyramid in other colours; its background is recoloured too, so that it stays empty.

    The glass of a slide stays so bright that it is known as glass: what would darken it more is
    halved until it does not. Saturation, hue and stains are for three bands alone.

    Args:
        pyramid: the image.
        colours: the draw.
        mean: of each band of the data, in units of the pixels.
        std: likewise.
    """
    if not colours.changes:
        return pyramid
    scale = Scale.of(pyramid, mean, std)
    view = ColouredView(pyramid, colours, scale)
    glass = pyramid.dtype == np.uint8 and min(pyramid.background) >= BRIGHT
    for _ in range(_HALVINGS):
        if not glass or min(view.background) >= BRIGHT:
            break
        colours = replace(colours, brightness=colours.brightness / 2, contrast=colours.contrast / 2)
        view = ColouredView(pyramid, colours, scale)
    return view


def restained(values: Floats, stain: Sequence[tuple[float, float]]) -> Floats:
    """Return RGB values (..., 3) from 0 to 1 with more or less of each stain.

    As Tellez et al. 2018 have it ("Whole-slide mitosis detection in H&E breast histology using
    PHH3 as a reference"): each stain's density is multiplied and added to. What is added fades
    out where there is no stain, so that glass stays colourless.
    """
    factor, offset = np.asarray(stain, np.float64).T
    # Unmixed, multiplied and mixed again: one matrix. Logarithms stand for densities, which
    # are their negatives.
    mixed = np.linalg.inv(_STAINS) * (1 + factor) @ _STAINS
    added = offset @ _STAINS
    span = _STAINED - _GLASS
    dark = cv2.log(np.maximum(values, _DARK).reshape(1, -1, _RGB))
    share = cv2.transform(dark, np.full((1, _RGB), -1 / _RGB / span, np.float32))
    share = np.clip(share - np.float32(_GLASS / span), 0, 1)
    dark = cv2.transform(dark, mixed.T.astype(np.float32))
    dark -= cv2.merge([share * np.float32(more) for more in added])
    bright = np.asarray(cv2.exp(np.clip(dark, math.log(_DARK), 0)), np.float32)
    return bright.reshape(values.shape)


def _same(values: Floats, wanted: Sequence[float]) -> NDArray[np.bool_]:
    """Return which pixels have one value a band, bool (...)."""
    # Band by band: numpy is slow at reducing a short last axis.
    bands = (values[..., band] == np.float32(value) for band, value in enumerate(wanted))
    return reduce(np.logical_and, bands)


def _changes(colours: Colours, middle: float, bands: int) -> list[Change]:
    """Return what happens to each pixel alone; it must not matter beside which others it stands."""
    changes: list[Change] = []
    if bands == _RGB:
        # First of all, while glass is still as white as it was.
        if colours.stain:
            changes.append(lambda values: restained(values, colours.stain))
        # One call each: of two changes in one call albumentations draws the order.
        if colours.saturation:
            changes.append(_jitter(saturation=(1 + colours.saturation,) * 2))
        if colours.hue:
            changes.append(_jitter(hue=(colours.hue,) * 2))
    if colours.brightness or colours.contrast:
        # albumentations multiplies around 0; this is around the middle.
        shift = colours.brightness - middle * colours.contrast
        changes.append(
            _one(
                "RandomBrightnessContrast",
                brightness_limit=(shift, shift),
                contrast_limit=(colours.contrast, colours.contrast),
            )
        )
    return changes


def _jitter(saturation: tuple[float, float] = (1, 1), hue: tuple[float, float] = (0, 0)) -> Change:
    return _one("ColorJitter", brightness=(1, 1), contrast=(1, 1), saturation=saturation, hue=hue)


def _blur(sigma: float) -> Change:
    """Return a change of one view (height, width, bands): out of focus."""
    return _one("GaussianBlur", blur_limit=0, sigma_limit=(sigma, sigma))


def _one(name: str, **limits: float | tuple[float, float]) -> Change:
    """Return a change by albumentations of values (height, width, bands), the same every time."""
    change = getattr(_albumentations(), name)(**limits, p=1)
    return lambda values: change(image=values)["image"].reshape(values.shape)


def _albumentations() -> Any:
    """Return the library, which asks the network for newer versions unless told not to."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    return albumentations
