"""The eight flips and quarter turns of an image, on coordinates: nothing is resampled twice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.views import View, facts_of
from tnet.geometry import Region
from tnet.pyramid import How, Pyramid

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Symmetry:
    """One of the eight: rows and columns swapped or not, then flipped across, then down.

    Attributes:
        swap: whether rows become columns.
        across: whether left and right change places, after that.
        down: whether top and bottom do.
    """

    swap: bool = False
    across: bool = False
    down: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of what an image of that size becomes."""
        return (height, width) if self.swap else (width, height)

    def forth(self, region: Region, width: float, height: float) -> Region:
        """Return where a region of an image, ``width`` x ``height``, lies afterwards."""
        x, y, wide, high = region.x, region.y, region.width, region.height
        if self.swap:
            x, y, wide, high, width, height = y, x, high, wide, height, width
        return Region(
            width - x - wide if self.across else x,
            height - y - high if self.down else y,
            wide,
            high,
        )

    def back(self, region: Region, width: float, height: float) -> Region:
        """Return what a region shows afterwards as a region of the image before.

        Args:
            region: of the image afterwards.
            width: of the image before.
            height: the same, down.
        """
        x, y, wide, high = region.x, region.y, region.width, region.height
        if self.swap:
            width, height = height, width
        x = width - x - wide if self.across else x
        y = height - y - high if self.down else y
        return Region(y, x, high, wide) if self.swap else Region(x, y, wide, high)

    def apply(self, pixels: Pixels) -> Pixels:
        """Return pixels (..., height, width, bands) as they are afterwards, C-ordered."""
        if self.swap:
            pixels = pixels.swapaxes(-3, -2)
        if self.across:
            pixels = np.flip(pixels, -2)
        if self.down:
            pixels = np.flip(pixels, -3)
        return np.ascontiguousarray(pixels)


class TurnedView(View):
    """An image under one of the symmetries; see ``turn``."""

    def __init__(self, inner: Pyramid, symmetry: Symmetry) -> None:
        swap = symmetry.swap
        levels = tuple(
            replace(
                level,
                width=level.height if swap else level.width,
                height=level.width if swap else level.height,
                scale_x=level.scale_y if swap else level.scale_x,
                scale_y=level.scale_x if swap else level.scale_y,
                tile=None,  # a grid that begins elsewhere
            )
            for level in inner.levels
        )
        spacing = inner.spacing
        if swap and spacing is not None:
            spacing = spacing[1], spacing[0]
        # Its place on the ground would have to be turned as well; nobody asks for it.
        facts = replace(facts_of(inner), levels=levels, spacing=spacing, transform=None)
        super().__init__(inner, facts)
        self.symmetry = symmetry

    def _before(self, region: Region) -> Region:
        return self.symmetry.back(region, self.inner.width, self.inner.height)

    def _ask(self, how: How) -> How:
        asked = How(**how)
        valid = how.get("valid")
        if valid is not None:
            asked["valid"] = self._before(valid)
        return asked

    def _change(self, pixels: Pixels, how: How) -> Pixels:
        return self.symmetry.apply(pixels)

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> Pixels:
        """Return ``region`` resampled to ``size``, as ``LevelPyramid.read`` does."""
        return super().read(self._before(region), self.symmetry.size(*size), **how)

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> Pixels:
        """Return all ``regions``, in order: (n, height, width, bands)."""
        before = [self._before(region) for region in regions]
        return super().read_many(before, self.symmetry.size(*size), **how)


def turn(pyramid: Pyramid, symmetry: Symmetry) -> Pyramid:
    """Return an image under one of the eight symmetries; the first one is the image itself.

    Its coordinates are those of the turned image.
    """
    return pyramid if symmetry == Symmetry() else TurnedView(pyramid, symmetry)
