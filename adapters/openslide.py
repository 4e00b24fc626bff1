"""Slides in the scanners' own formats (SVS, NDPI, MRXS, SCN, BIF, DICOM, ...) through OpenSlide."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.directories import check_directories
from tnet.adapters.limits import DEFAULT, Limits
from tnet.adapters.tiff import is_tiff
from tnet.errors import DataError, UnsupportedImage, one_line
from tnet.pyramid import Facts, Level, LevelPyramid, level_scales

CACHE_BYTES = 2**26

_BYTES_PER_PIXEL = 4  # of a tile as OpenSlide decodes it


class OpenSlidePyramid(LevelPyramid):
    """A slide as OpenSlide shows it: uint8 RGB on the slide's background colour."""

    def __init__(self, slide: Any, origin: tuple[int, int], facts: Facts) -> None:
        super().__init__(facts)
        self._slide = slide
        self._origin = origin

    def _fetch(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        from openslide import OpenSlideError

        # Held while it is read: closed under a read, OpenSlide would end the process.
        slide = self._slide
        if slide is None:
            raise DataError(f"{self.name} is closed; open it again to read")
        # OpenSlide places a rectangle of any level by level-0 pixels, and by its own scales.
        scale = slide.level_downsamples[level]
        place = (self._origin[0] + round(x * scale), self._origin[1] + round(y * scale))
        try:
            image = slide.read_region(place, level, (width, height))
        except (OpenSlideError, ValueError) as error:
            raise DataError(
                f"{self.name} cannot be read at level {level} ({one_line(error)}); it may be "
                "damaged"
            ) from error
        pixels = np.asarray(image)
        alpha = pixels[..., 3:]
        if alpha.min() == 255:
            return pixels[..., :3]
        share = alpha.astype(np.float32) / 255
        blended = pixels[..., :3] * share + np.asarray(self.background, np.float32) * (1 - share)
        return np.rint(blended).astype(np.uint8)

    def close(self) -> None:
        """Close the slide, as soon as nobody reads from it any more; reading is over."""
        self._slide = None


def open_openslide(
    path: Path, limits: Limits = DEFAULT, *, generic: bool = False
) -> OpenSlidePyramid:
    """Open a slide; its frame is the part that the scanner says it scanned.

    Args:
        path: the file; of formats of several files, the main one.
        limits: what it may declare.
        generic: take TIFFs without a vendor's marks too, which the TIFF reader does better.

    Raises:
        UnsupportedImage: if OpenSlide is not installed or does not know the file.
        DataError: if it knows the file and cannot open it.
    """
    try:
        import openslide
    except (ImportError, OSError) as error:
        raise UnsupportedImage(
            f"{path} may be a slide, and OpenSlide is not installed: "
            "pip install openslide-python openslide-bin"
        ) from error
    if is_tiff(path):  # OpenSlide ends the process where a tile is too large to allocate
        check_directories(path, limits)
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor is None or (vendor == "generic-tiff" and not generic):
        raise UnsupportedImage(f"{path} is no slide that OpenSlide knows")
    try:
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise DataError(
            f"{path} is a damaged or incomplete {vendor} slide ({one_line(error)}); copy it "
            "again, with the files that belong to it"
        ) from error
    try:
        facts = _facts(path, slide, vendor)
        for level in facts.levels:
            _check_level(path, level, limits)
        origin = _bounds(slide)[:2]
    except BaseException:
        slide.close()
        raise
    slide.set_cache(_cache())
    return OpenSlidePyramid(slide, origin, facts)


def _check_level(path: Path, level: Level, limits: Limits) -> None:
    limits.check_image(str(path), level.width, level.height)
    if level.tile is not None:
        across, down = level.tile
        pieces = f"tiles of {across} x {down} pixels"
        limits.check_piece(str(path), pieces, across * down * _BYTES_PER_PIXEL)


def _facts(path: Path, slide: Any, vendor: str) -> Facts:
    properties = slide.properties
    _, _, width, height = _bounds(slide)
    levels = []
    for index, (size, scale) in enumerate(
        zip(slide.level_dimensions, slide.level_downsamples, strict=True)
    ):
        tile = tuple(
            int(properties.get(f"openslide.level[{index}].tile-{side}", 256))
            for side in ("width", "height")
        )
        if (width, height) == slide.dimensions:
            across, down = size
            scales = level_scales((width, height), size)
        else:
            across, down = max(1, int(width / scale)), max(1, int(height / scale))
            scales = (scale, scale)
        levels.append(Level(across, down, *scales, (tile[0], tile[1])))
    colour = properties.get("openslide.background-color", "FFFFFF")
    mpp = [properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
    spacing = (float(mpp[0]), float(mpp[1])) if mpp[0] and mpp[1] else None
    return Facts(
        name=str(path),
        format=f"OpenSlide {vendor}",
        levels=tuple(levels),
        bands=3,
        dtype=np.dtype(np.uint8),
        background=tuple(float(value) for value in bytes.fromhex(colour)),
        spacing=spacing,
        unit="µm" if spacing else None,
        notes=() if spacing else ("the slide does not say how large its pixels are",),
    )


def _bounds(slide: Any) -> tuple[int, int, int, int]:
    """Return left, top, width and height of what was scanned, in OpenSlide's level-0 pixels."""
    keys = [f"openslide.bounds-{side}" for side in ("x", "y", "width", "height")]
    if not all(key in slide.properties for key in keys):
        return 0, 0, *slide.dimensions
    x, y, width, height = (int(slide.properties[key]) for key in keys)
    return x, y, width, height


@cache
def _cache() -> Any:
    """Return the cache of decoded tiles that all slides share."""
    import openslide

    return openslide.OpenSlideCache(CACHE_BYTES)
