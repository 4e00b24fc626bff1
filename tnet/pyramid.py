"""What the engine asks of an image, and the one place that says how its pixels are read.

An image is its full resolution (level 0) and, usually, coarser levels. A read names a region in
level-0 pixels and the size of the result; which level serves it, what stands beyond the border
and how pixels are averaged is decided here, for every format alike. A format writes ``_fetch``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Protocol, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tnet.errors import UnsupportedImage
from tnet.facts import FASTER_CONVERTED, Described, Facts, Level, level_scales, per_band
from tnet.geometry import Region
from tnet.planes import Plane
from tnet.reader import Manner, Reader, Request
from tnet.threads import side_by_side

__all__ = [
    "Border",
    "Described",
    "Facts",
    "How",
    "Level",
    "LevelPyramid",
    "Pyramid",
    "Resampling",
    "level_scales",
]

Pixels = NDArray[Any]
Place = tuple[int, int, int]
Resampling = Literal["antialias", "official"]
Border = Literal["background", "mirror", "zero"]


class How(TypedDict, total=False):
    """How to read; every key has a default.

    Attributes:
        resampling: "antialias" (default) averages all pixels under an output pixel, from the
            coarsest level that is fine enough, halved where one is missing; "official" repeats
            the aliased bilinear view of the released TNet code, always from level 0.
        border: what lies beyond the image: its "background" (default), its "mirror" image
            (reflected at the border line, the last pixel twice), or "zero".
        valid: pixels outside this region count as beyond the border; None is the image.
        fill: the value beyond the border instead of ``border``'s: one for all bands, or one each.
        dtype: a float dtype returns unrounded values in it; None is the image's own dtype.
    """

    resampling: Resampling
    border: Border
    valid: Region | None
    fill: float | Sequence[float] | None
    dtype: DTypeLike | None


class Pyramid(Protocol):
    """An image that can be read anywhere at any resolution, from several threads at once."""

    @property
    def name(self) -> str:
        """Path or label, for messages and results."""

    @property
    def format(self) -> str:
        """What kind of file it is, in a word or two."""

    @property
    def width(self) -> int:
        """Level-0 pixels across."""

    @property
    def height(self) -> int:
        """Level-0 pixels down."""

    @property
    def bands(self) -> int:
        """Values per pixel."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """The stored resolutions, finest first."""

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Size of a level-0 pixel, x and y, in ``unit``."""

    @property
    def unit(self) -> str | None:
        """Unit of the spacing: "µm", "metre", "degree", ..."""

    @property
    def crs(self) -> str | None:
        """Coordinate reference system: "EPSG:32632", or WKT."""

    @property
    def transform(self) -> tuple[float, ...] | None:
        """a, b, c, d, e, f of level 0: x = a column + b row + c, y = d column + e row + f."""

    @property
    def background(self) -> tuple[float, ...]:
        """What lies beyond the border, one value a band."""

    @property
    def nodata(self) -> float | None:
        """The value of missing pixels."""

    @property
    def unwritten(self) -> float | None:
        """What pixels of a slide read as that were never written: as empty as its background."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that the user should know."""

    @property
    def mpp(self) -> tuple[float, float] | None:
        """Micrometres per level-0 pixel, x and y."""

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> Pixels:
        """Return ``region`` resampled to ``size`` = (width, height): (height, width, bands)."""

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> Pixels:
        """Return all ``regions``, read side by side, in order: (n, height, width, bands)."""

    def close(self) -> None:
        """Let go of the file; reading is over."""

    def __enter__(self) -> Self:
        """Return the pyramid itself."""

    def __exit__(self, *exception: object) -> None:
        """Close it."""


class LevelPyramid(Described, ABC):
    """Everything about reading but the pixels; a format adds ``_fetch`` and ``close``.

    Raises:
        UnsupportedImage: if the facts name a type of values that is not read.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._threads: int | None = None  # that read; None is what suits the processor
        if self.dtype.kind not in "uif" or self.dtype.itemsize > (
            8 if self.dtype.kind == "f" else 4
        ):
            raise UnsupportedImage(
                f"{self.name} holds {self.dtype} values; convert it to integers of at most "
                "32 bits or to floats"
            )
        self._image = Region(0, 0, self.width, self.height)
        self._plain = self._manner({})
        self._reader = Reader([self._plane(i, level) for i, level in enumerate(self.levels)])
        if self._reader.overview_scale < float("inf"):
            last = self.levels[-1]
            note = (
                f"the coarsest level in the file is {last.width} x {last.height} pixels: the first "
                f"look reads all of it once; {FASTER_CONVERTED}"
            )
            self.notes = (*self.notes, note)

    @abstractmethod
    def _fetch(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Return a rectangle that lies inside a level: (height, width, bands), ``dtype``.

        Called from several threads at once. The caller does not write into the result.
        """

    def _fetch_own(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Do as ``_fetch`` does, into C-ordered memory that becomes the caller's."""
        return np.require(self._fetch(level, x, y, width, height), requirements=["C", "W", "O"])

    def _fetch_many(self, places: Sequence[Place], out: Sequence[Pixels]) -> None:
        """Fill each of ``out``, (height, width, bands), with the rectangle at its place.

        Args:
            places: level, x and y; all of the rectangle lies inside the level.
            out: what to fill, all of one size.
        """
        self._fill_all(places, out, self._threads)

    def _fill_all(
        self, places: Sequence[Place], out: Sequence[Pixels], threads: int | None
    ) -> None:
        side_by_side(self._fill, places, out, threads)

    def _fill(self, place: Place, out: Pixels) -> None:
        height, width = out.shape[:2]
        out[...] = self._fetch(*place, width, height)

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> Pixels:
        """Return ``region`` resampled to ``size``; see ``How`` for the options.

        Anti-aliased pixels beyond the region take part where the filter reaches them, lest there
        be seams; those beyond the image don't. Averages of integers wider than 16 bits and of
        float64 go through float32. Where ``nodata`` is set (or a float is NaN), an average leaves
        missing pixels out and is missing where less than half of it is there, a halved pixel where
        nothing is; the official view knows nothing of nodata.

        Args:
            region: in level-0 pixels; may be fractional, and lie anywhere. The official view
                rounds it to whole pixels.
            size: width and height of the result, in pixels.
            **how: see ``How``.

        Returns:
            (height, width, bands) of the image's dtype, integers rounded, unless ``how`` names
            a float dtype.

        Raises:
            ValueError: if an option or the size makes no sense.
            TypeError: if there is no such option.
            DataError: if the file cannot be read.
        """
        manner = self._checked_manner(size, how)
        if place := self._reader.stored(region, size, manner):
            return self._fetch_own(*place, *size)
        pixels = self._reader.read(Request(region, size, *manner))
        return np.require(pixels, requirements=["C", "W", "O"])

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> Pixels:
        """Return all ``regions``, read side by side, in order: (n, height, width, bands)."""
        if not regions:
            return np.empty((0, size[1], size[0], self.bands), how.get("dtype") or self.dtype)
        manner = self._checked_manner(size, how)
        out = np.empty((len(regions), size[1], size[0], self.bands), manner.dtype)
        places = [self._reader.stored(region, size, manner) for region in regions]
        stored = {i: place for i, place in enumerate(places) if place}
        if stored:
            self._fetch_many(list(stored.values()), [out[i] for i in stored])

        def fill(i: int, pixels: Pixels) -> None:
            pixels[...] = self._reader.read(Request(regions[i], size, *manner))

        others = [i for i in range(len(regions)) if i not in stored]
        side_by_side(fill, others, [out[i] for i in others], self._threads)
        return out

    def _plane(self, index: int, level: Level) -> Plane:
        return Plane(
            width=level.width,
            height=level.height,
            scale_x=level.scale_x,
            scale_y=level.scale_y,
            tile=level.tile or (512, 512),
            bands=self.bands,
            dtype=self.dtype,
            nodata=self.nodata,
            fetch=partial(self._fetch, index),
            level=index,
        )

    def _checked_manner(self, size: tuple[int, int], how: How) -> Manner:
        """Check the size and the options, and say what they mean for this image."""
        if min(size) < 1:
            raise ValueError(f"a read needs at least one pixel each way, got {size}")
        return self._manner(how) if how else self._plain

    def _manner(self, how: How) -> Manner:
        if unknown := how.keys() - How.__annotations__.keys():
            raise TypeError(f"a read has no option {', '.join(map(repr, sorted(unknown)))}")
        resampling = how.get("resampling", "antialias")
        if resampling not in ("antialias", "official"):
            raise ValueError(f"resampling must be 'antialias' or 'official', got {resampling!r}")
        valid = how.get("valid")
        wanted = how.get("dtype")
        dtype = self.dtype if wanted is None else np.dtype(wanted)
        if dtype != self.dtype and dtype.kind != "f":
            raise ValueError(f"dtype must be a float type or {self.dtype}, got {dtype}")
        frame = self._image if valid is None else self._image.intersection(valid)
        exact, official = dtype != self.dtype, resampling == "official"
        return Manner(frame, self._outside(how, frame), dtype, exact, official)

    def _outside(self, how: How, frame: Region | None) -> tuple[float, ...] | None:
        """Return what lies beyond the frame, one value a band; None is its mirror image."""
        border, fill = how.get("border", "background"), how.get("fill")
        if border not in ("background", "mirror", "zero"):
            raise ValueError(f"border must be 'background', 'mirror' or 'zero', got {border!r}")
        if fill is not None:
            return per_band(fill, self.bands)
        if border == "background":
            return self.background
        if border == "zero" or frame is None:  # nothing to mirror: zeros too
            return (0.0,) * self.bands
        return None
