"""What an image says of itself: size, levels, values, place and size of a pixel."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

_MICROMETRES = {"µm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}


@dataclass(frozen=True)
class Level:
    """One stored resolution.

    Attributes:
        width: pixels across.
        height: pixels down.
        scale_x: level-0 pixels per pixel of this level, across.
        scale_y: the same, down.
        tile: width and height of what is stored (and decoded) as one piece, None if unknown.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float
    tile: tuple[int, int] | None


@dataclass(frozen=True)
class Facts:
    """What a file says of itself; the attributes of ``Pyramid`` explain the fields."""

    name: str
    format: str
    levels: tuple[Level, ...]
    bands: int
    dtype: np.dtype[Any]
    background: tuple[float, ...]
    spacing: tuple[float, float] | None = None
    unit: str | None = None
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    nodata: float | None = None
    notes: tuple[str, ...] = ()


class Described:
    """The facts of a pyramid as attributes: base of formats and of pyramids around pyramids."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.name = facts.name
        self.format = facts.format
        self.width = facts.levels[0].width
        self.height = facts.levels[0].height
        self.bands = facts.bands
        self.dtype = facts.dtype
        self.levels = facts.levels
        self.spacing = facts.spacing
        self.unit = facts.unit
        self.crs = facts.crs
        self.transform = facts.transform
        self.background = facts.background
        self.nodata = facts.nodata
        self.notes = facts.notes

    @property
    def mpp(self) -> tuple[float, float] | None:
        """Micrometres per level-0 pixel, x and y, where the unit is a microscopist's."""
        factor = _MICROMETRES.get(self.unit or "")
        if self.spacing is None or factor is None:
            return None
        return self.spacing[0] * factor, self.spacing[1] * factor

    def close(self) -> None:
        """Let go of the file; reading is over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def level_scales(full: tuple[int, int], part: tuple[int, int]) -> tuple[float, float]:
    """Return the scale of a level from its size and that of level 0, both (width, height).

    Sizes that come from dividing by a whole number, rounded either way, mean that number: the
    pixels lie on its grid. Otherwise the level is taken to cover the image exactly.
    """
    ratio = (full[0] / part[0] * full[1] / part[1]) ** 0.5
    for factor in (round(ratio), int(ratio), int(ratio) + 1):
        if factor and all(abs(f / factor - p) < 1 for f, p in zip(full, part, strict=True)):
            return float(factor), float(factor)
    return full[0] / part[0], full[1] / part[1]


def representable(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """Return nodata if a pixel of that dtype can hold it at all."""
    if nodata is None or (dtype.kind == "f" and np.isnan(nodata)):
        return nodata
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return nodata if limits.min <= nodata <= limits.max else None
