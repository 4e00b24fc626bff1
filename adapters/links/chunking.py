"""How the tiles of a file are expressed as chunks of zarr: TIFFs, and pictures of one piece."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tnet.adapters.limits import Limits
from tnet.adapters.links.level import PICTURE_CODECS, Chunks
from tnet.adapters.pages import STRIP_BYTES, painting
from tnet.adapters.segments import Page
from tnet.adapters.tiff import TiffPyramid, tiff_file
from tnet.errors import TNetError
from tnet.facts import Level
from tnet.pyramid import Pyramid

_PICTURES = {
    "BMP": "imagecodecs_bmp",
    "JPEG": "imagecodecs_jpeg",
    "PNG": "imagecodecs_png",
    "WEBP": "imagecodecs_webp",
}
# Of TIFF's Compression.
_PLAIN = 1
_CODECS = {
    5: "imagecodecs_lzw",
    7: "imagecodecs_jpeg",
    8: "zlib",
    32773: "imagecodecs_packbits",
    32946: "zlib",
    33003: "imagecodecs_jpeg2k",
    33004: "imagecodecs_jpeg2k",
    33005: "imagecodecs_jpeg2k",
    33007: "imagecodecs_jpeg",
    34712: "imagecodecs_jpeg2k",
    34887: "imagecodecs_lerc",
    34892: "imagecodecs_jpeg",
    34925: "imagecodecs_lzma",
    34933: "imagecodecs_png",
    50000: "imagecodecs_zstd",
    50001: "imagecodecs_webp",
    50002: "imagecodecs_jpegxl",
    52546: "imagecodecs_jpegxl",
}
_BITS = (8, 16, 32, 64)
_FORMATS = (1, 2, 3)  # of TIFF's SampleFormat: unsigned, signed, float
_NO_PREDICTOR, _DIFFERENCES, _FLOATS = 1, 2, 3
_GREY, _RGB, _CMYK, _YCBCR = 1, 2, 5, 6  # TIFF's and imagecodecs' numbers of colour spaces
_UNASSOCIATED = 2  # of TIFF's ExtraSamples: transparency beside plain colours
_LARGEST_PALETTE = 8  # bits


class Unlinkable(TNetError):
    """Why zarr cannot express how a file is stored; the part of a sentence."""


def picture_chunks(
    path: Path, picture: Pyramid, alpha: bool
) -> tuple[tuple[Chunks], dict[str, Any] | None]:
    """Return a picture that is one chunk, the whole file, and what paints it.

    Args:
        path: of the file.
        picture: the same, open.
        alpha: whether it is stored with one band more, its transparency.

    Raises:
        Unlinkable: if it is of a format without a codec.
    """
    codec = _PICTURES.get(picture.format)
    if codec is None:
        raise Unlinkable(f"zarr has no codec for {picture.format}")
    chunks = Chunks(
        width=picture.width,
        height=picture.height,
        tile=(picture.width, picture.height),
        samples=picture.bands + alpha,
        planes=1,
        dtype=picture.dtype,
        compressor={"id": codec},
        filters=(),
        empty=0,
        offsets=(0,),
        counts=(path.stat().st_size,),
    )
    colours = _RGB if picture.bands > 1 else _GREY
    paint = {
        "photometric": colours,
        "bitspersample": 8 * picture.dtype.itemsize,
        "extrasamples": [_UNASSOCIATED],
        "colormap": None,
    }
    return (chunks,), paint if alpha else None


def tiff_chunks(
    path: Path, tiff: TiffPyramid, wanted: Sequence[Level], limits: Limits
) -> tuple[tuple[Chunks, ...], dict[str, Any] | None]:
    """Return the levels of a TIFF, and what paints their pixels.

    Args:
        path: of the file.
        tiff: the same, open.
        wanted: the levels that are linked; they are found by their size.
        limits: of what the file may declare.

    Raises:
        Unlinkable: if it has no such levels, or stores them in a way that zarr has no words for.
    """
    pages = {(p[0].width, p[0].height): p for p in reversed(tiff.pages)}
    with tiff_file(path, limits) as file:
        series = {
            (s.keyframe.imagewidth, s.keyframe.imagelength): s
            for s in reversed(file.series[0].levels)
        }
        sizes = [(level.width, level.height) for level in wanted]
        if any(size not in pages or size not in series for size in sizes):
            raise Unlinkable("its levels are not those that the slide shows")
        levels = tuple(_level(pages[size], series[size]) for size in sizes)
        return levels, _paint(series[sizes[0]].keyframe, levels[0])


def _level(pages: list[Page], series: Any) -> Chunks:
    """Return a level from its pages, one or one a band, and tifffile's series of them."""
    key, first = series.keyframe, pages[0]
    _check_kind(key)
    if any((p.tile, p.bands) != (first.tile, 1 if len(pages) > 1 else p.bands) for p in pages):
        raise Unlinkable("its bands are cut into pieces in different ways")
    codec = _compressor(key, pages, series)
    native = key.predictor == _FLOATS or (codec and codec["id"] in PICTURE_CODECS)
    order = "=" if native else key.parent.byteorder
    level = Chunks(
        width=first.width,
        height=first.height,
        tile=first.tile,
        samples=first.samples,
        planes=sum(page.planes for page in pages),
        dtype=np.dtype(order + first.dtype.char),
        compressor=codec,
        filters=(),
        empty=first.empty,
        offsets=tuple(offset for page in pages for offset in page.offsets),
        counts=tuple(count for page in pages for count in page.counts),
    )
    level = replace(level, filters=_filters(key, level))
    if codec is None and not level.filters and not key.is_tiled:
        level = _cut_anew(level)
    if not key.is_tiled and level.height % level.tile[1]:
        raise Unlinkable("its last strip has fewer rows than the others")
    return level


def _check_kind(key: Any) -> None:
    """Refuse what zarr has no words for."""
    compression = int(key.compression)
    if compression != _PLAIN and compression not in _CODECS:
        raise Unlinkable(f"zarr has no codec for its compression ({key.compression.name})")
    if key.bitspersample not in _BITS or key.sampleformat not in _FORMATS or key.fillorder != 1:
        raise Unlinkable(f"its values take {key.bitspersample} bits, which zarr does not unpack")


def _compressor(key: Any, pages: list[Page], series: Any) -> dict[str, Any] | None:
    """Return the configuration of the codec of a level."""
    if int(key.compression) == _PLAIN:
        return None
    codec: dict[str, Any] = {"id": _CODECS[int(key.compression)]}
    if codec["id"] == "imagecodecs_webp" and key.samplesperpixel == 4:
        codec["hasalpha"] = True
    if codec["id"] != "imagecodecs_jpeg":
        return codec
    begin = {page.offsets[0] for page in pages}
    used = [page for page in series.pages if page is not None and page.dataoffsets[0] in begin]
    tables = {page.jpegtables for page in used}
    if len(tables) != 1:
        raise Unlinkable("its bands have JPEG tables of their own")
    known: dict[str, Any] = {
        "tables": _text(tables.pop()),
        "header": _text(getattr(used[0], "jpegheader", None)),
    }
    known |= _jpeg_colours(key)
    return codec | {name: value for name, value in known.items() if value is not None}


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _jpeg_colours(key: Any) -> dict[str, int | None]:
    """Return the colour space inside a JPEG tile, where it does not say so, and the one wanted."""
    if key.planarconfig != 1:
        return {"colorspace_data": _GREY}
    if key.extrasamples:
        return {}
    colours = int(key.photometric)
    # Scanners store RGB in JPEG without the marker from which a decoder would know.
    stored = _RGB if colours == _RGB and not key.is_jfif else None
    shown = {_RGB: _RGB, _YCBCR: _RGB, _CMYK: 4}.get(colours)
    return {"colorspace_jpeg": stored, "colorspace_data": shown}


def _filters(key: Any, level: Chunks) -> tuple[dict[str, Any], ...]:
    """Return what undoes the prediction of a level."""
    if key.predictor == _NO_PREDICTOR or (
        level.compressor and level.compressor["id"] in PICTURE_CODECS
    ):
        return ()
    if key.predictor not in (_DIFFERENCES, _FLOATS):
        raise Unlinkable(f"zarr has no codec for its predictor ({key.predictor})")
    name = "delta" if key.predictor == _DIFFERENCES else "floatpred"
    return (
        {
            "id": f"imagecodecs_{name}",
            "axis": -2 if level.samples > 1 else -1,
            "dist": 1,
            "shape": level.along(*level.tile, level.samples),
            "dtype": level.dtype.str,
        },
    )


def _cut_anew(level: Chunks) -> Chunks:
    """Return an uncompressed level of strips, cut into strips of equally many rows."""
    row = level.width * level.samples * level.dtype.itemsize
    start, needed = level.offsets[0], row * level.height * level.planes
    ends = [o + c for o, c in zip(level.offsets, level.counts, strict=True)]
    if ends[:-1] != list(level.offsets[1:]) or ends[-1] != start + needed:
        return level
    most = min(level.height, max(1, STRIP_BYTES // row))
    rows = next(n for n in range(most, 0, -1) if level.height % n == 0)
    tops = range(0, level.height * level.planes, rows)
    return replace(
        level,
        tile=(level.width, rows),
        offsets=tuple(start + row * top for top in tops),
        counts=(row * rows,) * len(tops),
    )


def _paint(key: Any, level: Chunks) -> dict[str, Any] | None:
    """Return what makes plain pixels of stored ones, as ``painting`` takes it; None for nothing."""
    paint, *_ = painting(key, level.samples * level.planes)
    if paint is None:
        return None
    if key.colormap is not None and key.bitspersample > _LARGEST_PALETTE:
        raise Unlinkable("its palette has too many colours")
    return {
        "photometric": int(key.photometric),
        "bitspersample": int(key.bitspersample),
        "extrasamples": [int(kind) for kind in key.extrasamples],
        "colormap": None if key.colormap is None else np.asarray(key.colormap).tolist(),
    }
