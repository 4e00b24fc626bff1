"""TIFF in all its shapes through tifffile: tiled, striped, pyramids, BigTIFF, OME-TIFF, GeoTIFF.

Only the tiles or strips under a read are decoded, and kept in a cache that all files share.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.array import TURNS, ArrayPyramid, default_background
from tnet.adapters.directories import MAGIC, check_directories
from tnet.adapters.georeference import of_geotiff, spacing_of
from tnet.adapters.limits import DEFAULT, Limits
from tnet.adapters.ome import check_ome, pixel_size
from tnet.adapters.pages import Paint, check_kind, page_of, painting
from tnet.adapters.segments import CACHE, File, Page
from tnet.errors import DataError, UnsupportedImage, one_line
from tnet.facts import representable
from tnet.geometry import Region
from tnet.pyramid import Facts, Level, LevelPyramid, level_scales

Pixels = NDArray[Any]

_MICROMETRES_PER_UNIT = {2: 25400.0, 3: 10000.0}  # of ResolutionUnit: inch, centimetre
_PLAUSIBLE_MPP = (0.05, 20.0)
_BAND_AXES = "CS"
# Kinds of which tifffile opens other files, or makes room for as many pages as they state. Their
# pages are read as those of any other TIFF.
_OFF: dict[str, Any] = {f"is_{kind}": False for kind in ("lsm", "mmstack", "ndtiff", "scanimage")}

# What tifffile finds odd, a program that wants to know may log. Without a handler Python would
# print it to stderr, between the sentences that are meant for the user.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffPyramid(LevelPyramid):
    """A TIFF whose levels are lists of pages: one page, or one a band."""

    def __init__(
        self, file: File, pages: list[list[Page]], paint: Paint | None, facts: Facts
    ) -> None:
        super().__init__(facts)
        self._file = file
        self._pages = pages
        self._paint = paint

    @property
    def pages(self) -> list[list[Page]]:
        """The pages of every level: one, or one a band."""
        return self._pages

    def _fetch(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        pages = self._pages[level]
        pixels = np.empty((height, width, sum(page.bands for page in pages)), pages[0].dtype)
        band = 0
        for page in pages:
            page.fetch(self._file, x, y, pixels[..., band : band + page.bands])
            band += page.bands
        return pixels if self._paint is None else self._paint(pixels)

    def close(self) -> None:
        """Close the file and forget its decoded tiles; reading is over."""
        self._file.close()
        CACHE.forget(self._file.token)


def is_tiff(path: Path) -> bool:
    """Say whether a file begins as a TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in MAGIC


def open_tiff(path: Path, limits: Limits = DEFAULT) -> LevelPyramid:
    """Open a TIFF: the first picture in it, with its reduced copies as levels.

    Palettes become RGB, 1-bit becomes 8-bit, white-is-zero is inverted, 8-bit transparency is
    laid on white; all other bands are kept as they are.

    Raises:
        UnsupportedImage: if it is no TIFF, or of a kind that is not read.
        DataError: if it is damaged or truncated.
    """
    if not is_tiff(path):
        raise UnsupportedImage(f"{path} is no TIFF")
    try:
        with tiff_file(path, limits) as tiff:
            pyramid, orientation = _pyramid(path, tiff, limits)
    except (DataError, ImportError):
        raise
    except Exception as error:  # a foreign index can break a parser in any way
        raise _damaged(path, error) from error
    return pyramid if orientation not in TURNS else _turned(pyramid, orientation, limits)


@contextmanager
def tiff_file(path: Path, limits: Limits = DEFAULT) -> Iterator[Any]:
    """Open a TIFF with tifffile, after looking at all that it would believe.

    Raises:
        OverLimit: if the file asks for more than the limits allow.
        DataError: if it is damaged.
        Exception: whatever tifffile raises.
    """
    import tifffile

    check_directories(path, limits)
    with tifffile.TiffFile(path, **_OFF) as tiff:
        xml = tiff.ome_metadata
        if xml:
            check_ome(path, xml, limits)
        yield tiff


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is a damaged or truncated TIFF ({one_line(error)}); make or download it again"
    )


def _pyramid(path: Path, tiff: Any, limits: Limits) -> tuple[TiffPyramid, int]:
    """Return the pyramid and the orientation that it still has to be turned from."""
    series = tiff.series[0]
    first = series.levels[0].pages[0].keyframe
    check_kind(path, first)
    nodata = _nodata(first)
    levels = [_pages_of(path, level, nodata, limits) for level in series.levels]
    kept = [pages for pages in levels if _alike(pages, levels[0])]
    kept.sort(key=lambda pages: -pages[0].width)
    whole = (kept[0][0].width, kept[0][0].height)
    paint, bands, dtype, notes = painting(first, sum(page.bands for page in kept[0]))
    nodata = representable(nodata, dtype)
    located = tiff.is_geotiff or tiff.is_gdal
    facts = Facts(
        name=str(path),
        format="GeoTIFF" if tiff.is_geotiff else "OME-TIFF" if tiff.is_ome else "TIFF",
        levels=tuple(_level(pages[0], whole, located) for pages in kept),
        bands=bands,
        dtype=dtype,
        # Around a scene there is nothing, which is black; white glass belongs to slides.
        background=default_background(bands, dtype, 0.0 if located and nodata is None else nodata),
        nodata=nodata,
        notes=notes + _other_planes(series),
    )
    # GDAL does not turn located pictures either: their transform says where rows go.
    turn = 1 if located else int(first.tags.valueof(274, 1))
    return TiffPyramid(File(path), kept, paint, _placed(facts, tiff, first)), turn


def _pages_of(path: Path, level: Any, nodata: float | None, limits: Limits) -> list[Page]:
    """Return the pages that hold the bands of a level; of further axes, the first entry."""
    inner = level.pages[0].keyframe.axes
    outer = level.axes[: len(level.axes) - len(inner)]
    shape = level.shape[: len(outer)]
    if int(np.prod(shape)) != len(level.pages):
        raise UnsupportedImage(
            f"{path} stores {level.axes} of {level.shape} in {len(level.pages)} pages, which is "
            "not read; save every plane as a page of its own"
        )
    grid = np.arange(len(level.pages)).reshape(shape)
    chosen = grid[tuple(slice(None) if axis in _BAND_AXES else 0 for axis in outer)].ravel()
    pages = [level.pages[int(i)] for i in chosen]
    own = path.resolve().name  # tifffile follows links
    if any(page is None or page.parent.filehandle.name != own for page in pages):
        raise UnsupportedImage(
            f"{path} is one part of an OME-TIFF of several files; merge them into one"
        )
    return [page_of(path, page, nodata, limits) for page in pages]


def _alike(pages: list[Page], first: list[Page]) -> bool:
    """Say whether a level holds the same bands as the first one."""
    return [(p.bands, p.dtype) for p in pages] == [(p.bands, p.dtype) for p in first]


def _level(page: Page, whole: tuple[int, int], located: bool) -> Level:
    # GDAL stretches an overview over the whole image, whatever its size.
    size = (page.width, page.height)
    exact = (whole[0] / size[0], whole[1] / size[1])
    scales = exact if located else level_scales(whole, size)
    return Level(*size, *scales, page.tile)


def _nodata(page: Any) -> float | None:
    """Return GDAL's nodata value."""
    text = page.tags.valueof(42113)
    try:
        return None if text is None else float(str(text).strip("\0 "))
    except ValueError:
        return None


def _other_planes(series: Any) -> tuple[str, ...]:
    """Say what of the file is left out."""
    inner = series.levels[0].pages[0].keyframe.axes
    outer = zip(series.axes, series.shape, strict=True)
    left = [
        f"{count} along {axis}"
        for axis, count in list(outer)[: len(series.axes) - len(inner)]
        if axis not in _BAND_AXES and count > 1
    ]
    if not left:
        return ()
    return (f"the file holds several planes ({', '.join(left)}); the first one is read",)


def _placed(facts: Facts, tiff: Any, page: Any) -> Facts:
    """Add what the file says about the size and place of a pixel."""
    if tiff.is_geotiff:
        crs, unit, transform, notes = of_geotiff(page.geotiff_tags)
        spacing = spacing_of(transform) if transform else None
        return replace(
            facts,
            crs=crs,
            unit=unit if spacing else None,
            transform=transform,
            spacing=spacing,
            notes=facts.notes + notes,
        )
    spacing, unit = pixel_size(tiff.ome_metadata) if tiff.is_ome else (None, None)
    if spacing is None:
        spacing, unit = _resolution(page), "µm"
    return replace(facts, spacing=spacing, unit=unit if spacing else None)


def _resolution(page: Any) -> tuple[float, float] | None:
    """Return micrometres per pixel from the resolution tags, where a microscope may have made it.

    Most files hold 72 dots per inch, which says nothing.
    """
    micrometres = _MICROMETRES_PER_UNIT.get(int(page.tags.valueof(296, 2)))
    values = [page.tags.valueof(tag) for tag in (282, 283)]
    if micrometres is None or any(v is None or 0 in v for v in values):
        return None
    x, y = (micrometres * denominator / numerator for numerator, denominator in values)
    low, high = _PLAUSIBLE_MPP
    return (x, y) if low <= x <= high and low <= y <= high else None


def _turned(pyramid: TiffPyramid, orientation: int, limits: Limits) -> ArrayPyramid:
    """Return the picture as its orientation tag wants it, in memory."""
    width, height = pyramid.width, pyramid.height
    limits.check_whole(
        pyramid.name,
        f"it is stored turned (orientation {orientation}) and is turned in memory",
        2 * width * height * pyramid.bands * pyramid.dtype.itemsize,
    )
    with pyramid:
        stored = pyramid.read(Region(0, 0, width, height), (width, height))
    pixels = np.ascontiguousarray(TURNS[orientation](stored))
    height, width = pixels.shape[:2]
    facts = replace(
        pyramid.facts,
        levels=(Level(width, height, 1.0, 1.0, None),),
        spacing=pyramid.spacing and (pyramid.spacing if orientation < 5 else pyramid.spacing[::-1]),
    )
    return ArrayPyramid(pixels, facts)
