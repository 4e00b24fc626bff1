"""Which reader takes which file, and what a pyramid says of itself."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.array import open_array
from tnet.adapters.limits import DEFAULT, Limits, OverLimit
from tnet.adapters.views import with_spacing
from tnet.errors import DataError, UnsupportedImage
from tnet.facts import coarsest_for
from tnet.pyramid import Pyramid

Reader = Literal["zarr", "openslide", "tiff", "image"]

SLIDES = (
    ".svs", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".dcm", ".czi",
)  # fmt: skip
SUFFIXES = frozenset(
    {".zarr", ".tif", ".tiff", ".btf", ".tf8", ".png", ".jpg", ".jpeg", ".webp", ".bmp", *SLIDES}
)
FIRST_LOOK = 448

_REMOTE = ("http", "https", "s3", "gs")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # C:// is a disk


def _zarr(path: Path, limits: Limits) -> Pyramid:
    from tnet.adapters.links.reading import is_link, open_link
    from tnet.adapters.zarr.opening import open_zarr

    if is_link(path):
        return open_link(path, limits)
    return open_zarr(path, limits)


def _openslide(path: Path, limits: Limits) -> Pyramid:
    from tnet.adapters.openslide import open_openslide

    return open_openslide(path, limits)


def _any_openslide(path: Path, limits: Limits) -> Pyramid:
    from tnet.adapters.openslide import open_openslide

    return open_openslide(path, limits, generic=True)


def _tiff(path: Path, limits: Limits) -> Pyramid:
    from tnet.adapters.tiff import open_tiff

    return open_tiff(path, limits)


def _image(path: Path, limits: Limits) -> Pyramid:
    from tnet.adapters.image import open_image

    return open_image(path, limits)


# By name, for who wants a certain one; a scanner's TIFFs go to OpenSlide, the others don't.
READERS: dict[str, Callable[[Path, Limits], Pyramid]] = {
    "zarr": _zarr,
    "openslide": _any_openslide,
    "tiff": _tiff,
    "image": _image,
}
_IN_TURN = (_openslide, _tiff, _image)


def open_pyramid(
    source: str | os.PathLike[str] | NDArray[Any] | Pyramid,
    *,
    reader: Reader | None = None,
    mpp: float | tuple[float, float] | None = None,
    limits: Limits | None = None,
    remote: bool = False,
) -> Pyramid:
    """Open an image of any format that is read here.

    Args:
        source: a file, a zarr folder, the address of a zarr store (a text), an array
            (height, width) or (height, width, bands), or a pyramid, which is returned as it is.
        reader: take this reader instead of the first that knows the file.
        mpp: micrometres per level-0 pixel, x and y, instead of what the file says.
        limits: what a file may declare before it is refused.
        remote: whether addresses (http, https, s3, gs) are read; without, nothing is fetched.

    Raises:
        DataError: if the file is missing, empty, damaged, beyond the limits or of no format that
            is read here; the text names the file and the way out.
        ValueError: if there is no such reader.
    """
    if reader is not None and reader not in READERS:
        raise ValueError(f"reader must be one of {', '.join(READERS)}, got {reader!r}")
    if isinstance(source, np.ndarray):
        pyramid: Pyramid = open_array(source)
    elif isinstance(source, str) and is_url(source):
        pyramid = _open_url(source, limits or DEFAULT, remote)
    elif isinstance(source, str | os.PathLike):
        pyramid = _open_path(Path(source), reader, limits or DEFAULT)
    else:
        pyramid = source
    return pyramid if mpp is None else with_spacing(pyramid, mpp)


def is_url(text: str) -> bool:
    """Say whether a text is an address, such as https://host/image.zarr, and no file's name."""
    return _URL.match(text) is not None


def _open_url(url: str, limits: Limits, remote: bool) -> Pyramid:
    scheme = url.partition("://")[0].lower()
    if scheme not in _REMOTE:
        raise UnsupportedImage(
            f"{url} is at a place that is not read ({scheme}); name a file, or an address that "
            f"begins with one of {', '.join(_REMOTE)}"
        )
    if not remote:
        raise DataError(
            f"{url} is on the network, from which nothing is read unless asked for; add --remote "
            "(in Python remote=True), or download it"
        )
    from tnet.adapters.zarr.remote import open_remote

    return open_remote(url, limits)


def _open_path(path: Path, reader: Reader | None, limits: Limits) -> Pyramid:
    try:
        if not path.exists():
            raise DataError(f"{path} does not exist; check the name")
        if not path.is_file() and not path.is_dir():
            raise DataError(f"{path} is neither a file nor a folder; save it as a file")
        if path.is_file() and path.stat().st_size == 0:
            raise DataError(f"{path} is empty (0 bytes); make or download it again")
        if reader is not None:
            return READERS[reader](path, limits)
        if path.is_dir():
            return _zarr(path, limits)
        return _first_that_reads(path, limits)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error


def _first_that_reads(path: Path, limits: Limits) -> Pyramid:
    reasons = []
    for opener in _IN_TURN:
        try:
            return opener(path, limits)
        except OverLimit:
            raise
        except UnsupportedImage as error:
            reasons.append(error)
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] in (b"II", b"MM"):
        raise reasons[1]
    if path.suffix.lower() in SLIDES and "not installed" in str(reasons[0]):
        raise reasons[0]
    raise UnsupportedImage(
        f"{path} is no image that is read here (zarr, TIFF, PNG, JPEG, WebP, BMP, and slides that "
        "OpenSlide knows); convert it to one of these"
    )


def is_image(path: Path) -> bool:
    """Say whether a path looks like an image: by its suffix, or a folder by its zarr metadata.

    Hidden files are none. Nothing is opened.
    """
    from tnet.adapters.zarr.opening import is_zarr

    if path.name.startswith("."):
        return False
    return is_zarr(path) if path.is_dir() else path.suffix.lower() in SUFFIXES


def describe(pyramid: Pyramid) -> dict[str, Any]:
    """Return the facts of a pyramid as JSON-able values.

    ``first_look_bytes`` is how many bytes of decoded pixels the first view of the whole image,
    stretched to 448 x 448 pixels, takes from the file.
    """
    return {
        "name": pyramid.name,
        "format": pyramid.format,
        "width": pyramid.width,
        "height": pyramid.height,
        "megapixels": pyramid.width * pyramid.height / 1e6,
        "bands": pyramid.bands,
        "dtype": str(pyramid.dtype),
        "levels": [
            {
                "width": level.width,
                "height": level.height,
                "scale": [level.scale_x, level.scale_y],
                "tile": list(level.tile) if level.tile else None,
            }
            for level in pyramid.levels
        ],
        "spacing": _listed(pyramid.spacing),
        "unit": pyramid.unit,
        "mpp": _listed(pyramid.mpp),
        "crs": pyramid.crs,
        "transform": _listed(pyramid.transform),
        "nodata": _json_number(pyramid.nodata),
        "background": [_json_number(value) for value in pyramid.background],
        "notes": list(pyramid.notes),
        "first_look_bytes": _first_look_bytes(pyramid),
    }


def _first_look_bytes(pyramid: Pyramid) -> int:
    level = coarsest_for(pyramid.levels, pyramid.width / FIRST_LOOK, pyramid.height / FIRST_LOOK)
    tile_x, tile_y = level.tile or (1, 1)
    across, down = -(-level.width // tile_x) * tile_x, -(-level.height // tile_y) * tile_y
    return across * down * pyramid.bands * pyramid.dtype.itemsize


def _listed(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]


def _json_number(value: float | None) -> float | str | None:
    """JSON has no NaN and no infinity; these become text."""
    if value is None or np.isfinite(value):
        return value
    return str(float(value))
