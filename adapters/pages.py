"""From tifffile's pages to ours, and from stored values to the ones we show."""

from collections.abc import Callable
from functools import partial
from itertools import compress
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.headers import declared_size
from tnet.adapters.limits import DEFAULT, Limits
from tnet.adapters.segments import Page
from tnet.errors import DataError, UnsupportedImage
from tnet.facts import representable

Pixels = NDArray[Any]
Paint = Callable[[Pixels], Pixels]

STRIP_BYTES = 2**18  # of the strips into which a page without tiles is cut

_WHITE_IS_ZERO, _PALETTE, _YCBCR = 0, 3, 6
_READ_AS_THEY_ARE = (0, 1, 2, 3, 5, 32844, 34892)
_JPEG_LIKE = (6, 7, 33007, 34712, 34892, 50001)
_ASSOCIATED, _UNASSOCIATED = 1, 2
_MORE = 4  # times the declared pixels: strips may be rounded up


def check_kind(path: Path, page: Any) -> None:
    """Refuse what would come out in wrong colours, or not at all."""
    if page.dtype is None:
        raise UnsupportedImage(
            f"{path} stores values of {page.bitspersample} bits in a format that is not read "
            f"({page.sampleformat}); convert it to integers of at most 32 bits or to floats"
        )
    colours, codec = int(page.photometric), int(page.compression)
    if colours not in _READ_AS_THEY_ARE and not (colours == _YCBCR and codec in _JPEG_LIKE):
        raise UnsupportedImage(
            f"{path} stores colours as {page.photometric.name} with {page.compression.name} "
            "compression, which is not read; convert it to RGB"
        )
    if page.shaped[1] != 1:
        raise UnsupportedImage(
            f"{path} holds a volume of {page.shaped[1]} planes; extract the one to classify"
        )


def page_of(path: Path, page: Any, nodata: float | None, limits: Limits = DEFAULT) -> Page:
    """Collect what reading a page needs, and check it against the file's length and the limits."""
    key = page.keyframe
    planes, _, height, width, samples = key.shaped
    offsets, counts = tuple(page.dataoffsets), tuple(page.databytecounts)
    if not len(offsets) == len(counts) > 0:
        raise DataError(
            f"{path} is damaged: it lists {len(offsets)} places of tiles and {len(counts)} of "
            "their lengths; make or download it again"
        )
    # Without a loop of our own: a slide has a hundred thousand tiles.
    needed = max(map(add, compress(offsets, counts), filter(None, counts)), default=0)
    length = path.stat().st_size
    if needed > length:
        raise DataError(
            f"{path} is truncated: it needs {needed} bytes and has {length}; copy it again"
        )
    stored = np.dtype(key.parent.byteorder + key.dtype.char)
    # Looked up now: tifffile reads these from the file, which it may have closed later.
    decoder, tables = key.decode, page.jpegtables
    header = getattr(page, "jpegheader", None)  # only first pages have one

    def decode(data: bytes, index: int) -> Pixels:
        _check_content(data, tile)
        return decoder(data, index, jpegtables=tables, jpegheader=header)[0]

    def as_it_is(data: bytes, index: int) -> Pixels:
        pixels = np.frombuffer(data, stored).reshape(1, -1, width, samples)
        return pixels.astype(stored.newbyteorder("="), copy=False)

    row = width * samples * stored.itemsize
    in_one_piece = key.is_final and offsets[0] + row * height * planes == needed
    if in_one_piece:  # not compressed: cut it into strips of our own
        rows = min(height, max(1, STRIP_BYTES // row))
        tops = range(0, height, rows)
        tile = (width, rows)
        offsets = tuple(offsets[0] + row * (p * height + y) for p in range(planes) for y in tops)
        counts = tuple(row * min(rows, height - y) for _ in range(planes) for y in tops)
    elif key.is_tiled:
        tile = (key.tilewidth, key.tilelength)
    else:
        tile = (width, min(key.rowsperstrip, height))
    result = Page(
        width=width,
        height=height,
        tile=tile,
        samples=samples,
        planes=planes,
        dtype=stored.newbyteorder("="),
        offsets=offsets,
        counts=counts,
        decode=as_it_is if in_one_piece else decode,
        empty=representable(nodata, stored) or 0,
    )
    _check_page(path, result, 1 if in_one_piece else key.tiledepth, limits)
    return result


def _check_page(path: Path, page: Page, depth: int, limits: Limits) -> None:
    """Refuse pages whose index contradicts itself, and tiles too large to decode."""
    limits.check_image(str(path), page.width, page.height)
    across, down = page.tile
    decoded = across * down * depth * page.samples * page.dtype.itemsize
    pieces = f"pieces of {across} x {down} pixels"
    limits.check_piece(str(path), pieces, max(decoded, max(page.counts, default=0)))
    tiles = page.grid[0] * page.grid[1] * page.planes
    if len(page.offsets) != tiles:
        raise DataError(
            f"{path} is damaged: it lists {len(page.offsets)} tiles and its size needs {tiles}; "
            "make or download it again"
        )


def _check_content(data: bytes, tile: tuple[int, int]) -> None:
    """Refuse a compressed tile or strip that would decode to far more than the file declares.

    Raises:
        ValueError: if it would; somewhat more is left to the decoder.
    """
    inside = declared_size(data)
    if inside is not None and inside[0] * inside[1] > _MORE * tile[0] * tile[1]:
        raise ValueError(f"it holds {inside[0]} x {inside[1]} pixels, not {tile[0]} x {tile[1]}")


def painting(page: Any, bands: int) -> tuple[Paint | None, int, np.dtype[Any], tuple[str, ...]]:
    """Return what makes plain pixels of stored ones: function, bands, dtype and notes."""
    byte, dtype = np.dtype(np.uint8), page.dtype.newbyteorder("=")
    if page.photometric == _PALETTE:
        colours = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        return partial(_coloured, colours), 3, byte, ()
    if dtype == np.bool_:
        white = page.photometric == _WHITE_IS_ZERO
        return (lambda pixels: (pixels != white).astype(np.uint8) * np.uint8(255)), bands, byte, ()
    if page.photometric == _WHITE_IS_ZERO and dtype.kind == "u":
        top = np.asarray(2**page.bitspersample - 1, dtype)
        return (lambda pixels: top - pixels), bands, dtype, ("white is zero in the file",)
    alpha = tuple(int(kind) for kind in page.extrasamples)
    if dtype == byte and alpha in ((_ASSOCIATED,), (_UNASSOCIATED,)) and bands in (2, 4):
        note = "transparent parts are shown on white"
        return partial(_on_white, alpha[0] == _ASSOCIATED), bands - 1, byte, (note,)
    return None, bands, dtype, ()


def _coloured(colours: Pixels, pixels: Pixels) -> Pixels:
    """Look up (height, width, 1) in a palette (n, 3)."""
    return colours[np.minimum(pixels[..., 0], len(colours) - 1)]


def _on_white(premultiplied: bool, pixels: Pixels) -> Pixels:
    """Lay uint8 with an alpha band, which comes last, on white."""
    colour, alpha = pixels[..., :-1].astype(np.uint16), pixels[..., -1:].astype(np.uint16)
    if not premultiplied:
        colour = (colour * alpha + 127) // 255
    return np.minimum(colour + (255 - alpha), 255).astype(np.uint8)
