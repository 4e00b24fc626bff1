"""JPEG tiles of a TIFF that can be moved into a store as they are: which, and how they decode."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.limits import Limits
from tnet.adapters.storage.codecs import Jpeg, decode_jpeg
from tnet.adapters.storage.layout import Layout, shard_size
from tnet.adapters.tiff import tiff_file
from tnet.errors import UnsupportedImage
from tnet.facts import Level

_JPEG = 7  # TIFF's number of it; the older 6 has no tables of its own
_TIMES = 2  # as wide and high as other shards: making files is a good part of what moving costs
_PHOTOMETRIC = {1: None, 2: "RGB", 6: None}  # grey and YCbCr need not be told to a decoder


@dataclass(frozen=True)
class Tiles:
    """One level of a TIFF whose tiles are JPEGs.

    Attributes:
        width: pixels across.
        height: pixels down.
        tile: height and width of a tile.
        codec: how a tile is decoded.
        offsets: int64, where each tile begins, row by row.
        counts: int64, bytes of each tile; 0 is a tile that was left out.
        empty: a JPEG of a tile that was left out; nothing where none was.
    """

    width: int
    height: int
    tile: tuple[int, int]
    codec: Jpeg
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    empty: bytes


def jpeg_levels(path: Path, empty: float, limits: Limits) -> list[Tiles]:
    """Return the levels of a TIFF whose tiles can be moved, finest first.

    Args:
        path: the file.
        empty: the value of tiles that were left out.
        limits: of what the file may declare.

    Raises:
        UnsupportedImage: if the tiles of one of them are no plain JPEGs.
    """
    try:
        with tiff_file(path, limits) as tiff:
            compared: set[Jpeg] = set()
            levels = [_tiles(path, lvl.pages, empty, compared) for lvl in tiff.series[0].levels]
    except UnsupportedImage:
        raise
    except Exception as error:  # a foreign index can break a parser in any way
        raise _unlike(path, f"it is no sound TIFF: {error}") from error
    return sorted(levels, key=lambda level: -level.width)


def _tiles(path: Path, pages: Sequence[Any], empty: float, compared: set[Jpeg]) -> Tiles:
    page, key = pages[0], pages[0].keyframe
    if int(key.compression) != _JPEG or not key.is_tiled:
        raise _unlike(path, f"they are {'tiled' if key.is_tiled else 'strips'}, "
                            f"{key.compression.name} compressed")  # fmt: skip
    simple = len(pages) == 1 and key.bitspersample == 8 and int(key.planarconfig) == 1
    if not simple or key.samplesperpixel not in (1, 3) or int(key.photometric) not in _PHOTOMETRIC:
        raise _unlike(path, f"{key.samplesperpixel} bands as {key.photometric.name}")
    bands, tile = int(key.samplesperpixel), (int(key.tilelength), int(key.tilewidth))
    codec = Jpeg(bands, tables=page.jpegtables, stored=_PHOTOMETRIC[int(key.photometric)])
    offsets = np.asarray(page.dataoffsets, np.int64)
    counts = np.asarray(page.databytecounts, np.int64)
    if len(offsets) != -(-key.imagelength // tile[0]) * -(-key.imagewidth // tile[1]):
        raise _unlike(path, "its index does not fit its size")
    if codec not in compared:  # levels mostly share their tables
        _compare(path, page, codec, offsets, counts)
        compared.add(codec)
    return Tiles(
        key.imagewidth,
        key.imagelength,
        tile,
        codec,
        offsets,
        counts,
        b"" if counts.all() else _empty(path, codec, tile, empty),
    )


def _compare(
    path: Path, page: Any, codec: Jpeg, offsets: NDArray[np.int64], counts: NDArray[np.int64]
) -> None:
    """Make sure that a tile decodes as the TIFF itself would decode it."""
    stored = np.flatnonzero(counts)
    if not len(stored):
        return
    index = int(stored[len(stored) // 2])
    data = page.parent.filehandle
    data.seek(int(offsets[index]))
    content = data.read(int(counts[index]))
    wanted = page.keyframe.decode(content, index, jpegtables=page.jpegtables)[0]
    found = decode_jpeg(content, codec.configuration())
    if wanted is None or not np.array_equal(found.reshape(-1), wanted.reshape(-1)):
        raise _unlike(path, "their colours need more than a JPEG decoder")


def _empty(path: Path, codec: Jpeg, tile: tuple[int, int], value: float) -> bytes:
    """Return a JPEG of one value."""
    import imagecodecs

    pixels = np.full((*tile, codec.bands), value, np.uint8)
    picture = pixels if codec.bands == 3 else pixels[..., 0]
    inside = "RGB" if codec.stored == "RGB" else None
    content = bytes(imagecodecs.jpeg8_encode(picture, 100, colorspace=inside, outcolorspace=inside))
    if not (decode_jpeg(content, codec.configuration()) == picture).all():
        raise _unlike(path, f"missing tiles of value {value:g} cannot be told by one")
    return content


def _unlike(path: Path, why: str) -> UnsupportedImage:
    return UnsupportedImage(
        f"{path}: its tiles cannot be moved as they are ({why}); leave --codec out, which stores "
        "the pixels without loss"
    )


def layout_of(tiles: Tiles, number: int, level: Level, fill: float) -> Layout:
    """Return how a level's tiles are laid out in a store: a chunk is a tile."""
    dtype, bands = np.dtype(np.uint8), tiles.codec.bands
    return Layout(
        path=str(number),
        shape=(bands, tiles.height, tiles.width),
        dtype=dtype,
        chunk=tiles.tile,
        shard=shard_size((tiles.width, tiles.height), bands, dtype, tiles.tile, _TIMES),
        codec=tiles.codec,
        fill=fill,
        scale=(level.scale_x, level.scale_y),
    )
