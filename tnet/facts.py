"""What an image says of itself: size, levels, values, place and size of a pixel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np

_MICROMETRES = {"µm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}

# How notes end that a user can obey.
BAD_SIZE = "makes no sense and is ignored; give --mpp"
FASTER_CONVERTED = "converted to a zarr pyramid the image opens faster"


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
    unwritten: float | None = None
    notes: tuple[str, ...] = ()


class Described:
    """The facts of a pyramid as attributes: base of formats and of pyramids around pyramids.

    Facts that cannot be true are left out, see ``sound``.
    """

    def __init__(self, facts: Facts) -> None:
        facts = sound(facts)
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
        self.unwritten = facts.unwritten
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


def sound(facts: Facts) -> Facts:
    """Return the facts without what cannot be true; notes say what of a pixel's place is lost."""
    spacing, unit, transform, notes = facts.spacing, facts.unit, facts.transform, facts.notes
    if spacing is not None and not is_size(spacing):
        said = f"{spacing[0]:g} x {spacing[1]:g} {unit or ''}".rstrip()
        notes = (*notes, f"the file's pixel size ({said}) {BAD_SIZE}")
        spacing = unit = None
    if transform is not None and not _is_affine(transform):
        said = ", ".join(f"{value:g}" for value in transform)
        notes = (*notes, f"the file's transform ({said}) makes no sense and is ignored")
        transform = None
    return replace(
        facts,
        spacing=spacing,
        unit=unit,
        transform=transform,
        nodata=representable(facts.nodata, facts.dtype),
        notes=notes,
    )


def is_size(size: tuple[float, float]) -> bool:
    """Say whether a pixel can have that size, x and y."""
    return all(math.isfinite(value) and value > 0 for value in size)


def _is_affine(transform: tuple[float, ...]) -> bool:
    """Say whether a transform tells apart all places of an image."""
    a, b, _, d, e, _ = transform
    return all(math.isfinite(value) for value in transform) and a * e != b * d


class _Scaled(Protocol):
    @property
    def scale_x(self) -> float: ...

    @property
    def scale_y(self) -> float: ...


_Stored = TypeVar("_Stored", bound=_Scaled)


def coarsest_for(stored: Sequence[_Stored], step_x: float, step_y: float) -> _Stored:
    """Return the coarsest of what is stored, finest first, that is at least as fine as the steps.

    Args:
        stored: levels, or anything with scales.
        step_x: level-0 pixels per wanted pixel, across.
        step_y: the same, down.
    """
    step_x, step_y = step_x * (1 + 1e-6), step_y * (1 + 1e-6)
    fine = [level for level in stored if level.scale_x <= step_x and level.scale_y <= step_y]
    return fine[-1] if fine else stored[0]


def per_band(values: float | Sequence[float], bands: int) -> tuple[float, ...]:
    """Return one value a band from one for all, or from as many as there are bands.

    Raises:
        ValueError: if there are more or fewer.
    """
    if np.ndim(values) == 0:
        return (float(values),) * bands  # type: ignore[arg-type]
    listed = tuple(float(value) for value in values)  # type: ignore[union-attr]
    if len(listed) != bands:
        raise ValueError(f"fill must be one value or {bands}, one a band, got {len(listed)}")
    return listed


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
    if nodata is None or dtype.kind not in "uif":
        return nodata
    if dtype.kind == "f":
        # Rounded as a pixel is: the lowest float32, as GDAL prints it, lies just outside of them.
        with np.errstate(over="ignore"):
            held = float(dtype.type(nodata))
        return nodata if math.isfinite(held) or not math.isfinite(nodata) else None
    limits = np.iinfo(dtype)
    return nodata if limits.min <= nodata <= limits.max and nodata == int(nodata) else None
