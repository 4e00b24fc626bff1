"""Cloud-optimised GeoTIFF: a heat map with overviews, in register with the image on the ground.

All directories stand at the start of the file, and the coarsest pixels come first, so that a reader
far away needs two requests. Source: TIFF 6.0, OGC 19-008r4 (GeoTIFF 1.1), OGC 21-026 (COG).
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.exports.heat import Heat
from tnet.adapters.georeference import parsed, scaled
from tnet.record import Walk

_TILE = 256
_ASCII, _SHORT, _LONG, _DOUBLE = 2, 3, 4, 12
_CODES = {_ASCII: "s", _SHORT: "H", _LONG: "I", _DOUBLE: "d"}
_PROJECTED, _GEOGRAPHIC = 3072, 2048  # the keys that name a reference system
_USER_DEFINED = 32767


class Tag(NamedTuple):
    """A field of a directory: its number, the type of its values, and the values."""

    number: int
    kind: int
    values: Sequence[Any]


def export(walk: Walk, heat: Heat) -> bytes:
    """Return a heat map as a float32 GeoTIFF, NaN where nothing was looked at.

    Of an image without a reference system the transform leads to pixels of level 0, x to the right
    and y downwards.
    """
    maps = heat.levels(walk, _TILE)
    about = _description(heat.title(walk))
    directories, blocks = [], []
    for index, values in enumerate(maps):
        tiles = _tiles(values)
        tags = _structure(values.shape, len(tiles), overview=index > 0)
        if index == 0:
            tags += [Tag(42112, _ASCII, about), *_georeference(walk, values.shape)]
        directories.append([*tags, Tag(42113, _ASCII, b"nan\0")])
        blocks.append(tiles)
    return _assembled(directories, blocks)


def _tiles(values: NDArray[np.float32]) -> list[bytes]:
    """Return a map's tiles, compressed, row by row; the last ones are filled up with NaN."""
    height, width = values.shape
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    full = np.full((rows * _TILE, columns * _TILE), np.nan, dtype="<f4")
    full[:height, :width] = values
    return [
        zlib.compress(full[y : y + _TILE, x : x + _TILE].tobytes(), 6)
        for y in range(0, rows * _TILE, _TILE)
        for x in range(0, columns * _TILE, _TILE)
    ]


def _structure(shape: Sequence[int], tiles: int, *, overview: bool) -> list[Tag]:
    """Return the fields that say how the pixels are stored; offsets are filled in later."""
    height, width = shape
    return [
        Tag(254, _LONG, [int(overview)]),
        Tag(256, _LONG, [width]),
        Tag(257, _LONG, [height]),
        Tag(258, _SHORT, [32]),  # bits of a value
        Tag(259, _SHORT, [8]),  # deflate
        Tag(262, _SHORT, [1]),  # black is zero
        Tag(277, _SHORT, [1]),  # bands
        Tag(284, _SHORT, [1]),
        Tag(322, _LONG, [_TILE]),
        Tag(323, _LONG, [_TILE]),
        Tag(324, _LONG, [0] * tiles),
        Tag(325, _LONG, [0] * tiles),
        Tag(339, _SHORT, [3]),  # floats
    ]


def _description(title: str) -> bytes:
    """Return what GDAL shows as the band's name; ASCII, as the field must be."""
    text = escape(title).encode("ascii", "xmlcharrefreplace")
    item = b'<Item name="DESCRIPTION" sample="0" role="description">' + text + b"</Item>"
    return b"<GDALMetadata>" + item + b"</GDALMetadata>\0"


def _georeference(walk: Walk, shape: Sequence[int]) -> list[Tag]:
    """Return the fields that say where the map lies."""
    across, down = walk.width / shape[1], walk.height / shape[0]
    a, b, c, d, e, f = scaled(walk.transform or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), across, down)
    if b == d == 0 and a > 0 > e:
        tags = [Tag(33550, _DOUBLE, [a, -e, 0.0]), Tag(33922, _DOUBLE, [0.0, 0.0, 0.0, c, f, 0.0])]
    else:
        rows = [a, b, 0.0, c, d, e, 0.0, f, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
        tags = [Tag(34264, _DOUBLE, rows)]
    return tags + (_keys(walk) if walk.transform is not None else [])


def _keys(walk: Walk) -> list[Tag]:
    """Return the GeoTIFF keys of the image's reference system; none of one that is not known."""
    system = None if walk.crs is None else parsed(walk.crs)
    if system is None or not (system.is_projected or system.is_geographic):
        return []
    kind, key, citation = (1, _PROJECTED, 3073) if system.is_projected else (2, _GEOGRAPHIC, 2049)
    authority, number = system.to_authority(min_confidence=100) or ("", "0")
    keys = [(1024, 0, 1, kind), (1025, 0, 1, 1)]  # the second: a pixel is an area
    text = b""
    if authority == "EPSG" and int(number) < _USER_DEFINED:
        keys.append((key, 0, 1, int(number)))
    else:
        said = f"ESRI PE String = {system.to_wkt('WKT1_ESRI')}|"
        text = said.encode("ascii", "replace")
        keys += [(key, 0, 1, _USER_DEFINED), (citation, 34737, len(text), 0)]
    keys.sort()
    directory = [1, 1, 0, len(keys), *(value for entry in keys for value in entry)]
    tags = [Tag(34735, _SHORT, directory)]
    return [*tags, Tag(34737, _ASCII, text + b"\0")] if text else tags


def _assembled(directories: list[list[Tag]], blocks: list[list[bytes]]) -> bytes:
    """Return the file: header, directories, and the tiles, those of the coarsest map first."""
    # The offsets do not change how long the directories are.
    place = 8 + sum(len(_packed(tags, 0, last=True)) for tags in directories)
    offsets: list[list[int]] = []
    for tiles in reversed(blocks):
        offsets.insert(0, [])
        for tile in tiles:
            offsets[0].append(place)
            place += len(tile)
    parts = [b"II*\0" + struct.pack("<I", 8)]
    start = 8
    for index, tags in enumerate(directories):
        filled = [tag for tag in tags if tag.number not in (324, 325)]
        filled += [
            Tag(324, _LONG, offsets[index]),
            Tag(325, _LONG, [len(tile) for tile in blocks[index]]),
        ]
        parts.append(_packed(filled, start, last=index + 1 == len(directories)))
        start += len(parts[-1])
    return b"".join([*parts, *(tile for tiles in reversed(blocks) for tile in tiles)])


def _packed(tags: Sequence[Tag], start: int, *, last: bool) -> bytes:
    """Return a directory and, behind it, the values that do not fit into it.

    Args:
        tags: its fields.
        start: where in the file it stands.
        last: whether no other directory follows right behind.
    """
    entries, behind = [], b""
    after = start + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        values = tag.values
        count = len(values)
        data = bytes(values) if tag.kind == _ASCII else b""
        if tag.kind != _ASCII:
            data = struct.pack(f"<{count}{_CODES[tag.kind]}", *values)
        if len(data) > 4:
            place = struct.pack("<I", after + len(behind))
            behind += data + bytes(-len(data) % 8)
        else:
            place = data.ljust(4, b"\0")
        entries.append(struct.pack("<HHI", tag.number, tag.kind, count) + place)
    behind += bytes(-(after + len(behind)) % 8)
    following = 0 if last else after + len(behind)
    return b"".join([struct.pack("<H", len(tags)), *entries, struct.pack("<I", following), behind])
