"""JPEG tiles of a TIFF moved into shards as they are: nothing is decoded, no pixel changes."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.limits import Limits
from tnet.adapters.segments import File
from tnet.adapters.storage.codecs import CHECKSUM_BYTES, Jpeg, checksum, decode_jpeg
from tnet.adapters.storage.layout import Layout, shard_size
from tnet.adapters.storage.staging import Stage
from tnet.adapters.tiff import tiff_file
from tnet.errors import DataError, UnsupportedImage
from tnet.facts import Level

_START = b"\xff\xd8"  # of every JPEG
_JPEG = 7  # TIFF's number of it; the older 6 has no tables of its own
_PHOTOMETRIC = {1: None, 2: "RGB", 6: None}  # grey and YCbCr need not be told to a decoder
_GAP = 2**16  # bytes between tiles that are read along rather than left out


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
        shard=shard_size((tiles.width, tiles.height), bands, dtype, tiles.tile),
        codec=tiles.codec,
        fill=fill,
        scale=(level.scale_x, level.scale_y),
    )


def move(
    file: File,
    tiles: Tiles,
    layout: Layout,
    stage: Stage,
    threads: int,
    told: Callable[[int], None],
) -> None:
    """Write a level's tiles into shards.

    Args:
        file: the TIFF.
        tiles: what to move.
        layout: where to.
        stage: of the store; what it holds is not written again.
        threads: how many read and write.
        told: called with the number of pixels that are done since last time.

    Raises:
        DataError: if the file ends within its pixels, or has a tile that is no JPEG.
        OSError: if the system refuses.
    """
    rows, columns = layout.grid
    pool = ThreadPoolExecutor(threads, "tnet-move")
    waiting: deque[Future[None]] = deque()
    try:
        for row in range(rows):
            for column in range(columns):
                if not stage.holds(layout.key(row, column)):
                    waiting.append(pool.submit(_shard, file, tiles, layout, stage, (row, column)))
                if len(waiting) > 2 * threads:
                    waiting.popleft().result()
                part = layout.part(row, column)
                told(part.width * part.height)
        for task in waiting:
            task.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _shard(file: File, tiles: Tiles, layout: Layout, stage: Stage, place: tuple[int, int]) -> None:
    down, across = layout.chunks
    rows, columns = (
        -(-side // t) for side, t in zip((tiles.height, tiles.width), tiles.tile, strict=True)
    )
    top, left = place[0] * down, place[1] * across
    count = min(across, columns - left)
    firsts = [(top + row) * columns + left for row in range(min(down, rows - top))]
    shard = stage.begin(layout.key(*place), down * across)
    try:
        for row, first in enumerate(firsts):
            lengths = _lengths(tiles, first, count)
            _lay_out(file, tiles, first, lengths, shard.room(row * across, lengths))
        stage.finish(layout.key(*place), shard)
    finally:
        shard.close()


def _lengths(tiles: Tiles, first: int, count: int) -> list[int]:
    """Return how long neighbouring tiles are with their checksums."""
    counts: list[int] = tiles.counts[first : first + count].tolist()
    return [(stored or len(tiles.empty)) + CHECKSUM_BYTES for stored in counts]


def _lay_out(
    file: File, tiles: Tiles, first: int, lengths: Sequence[int], room: memoryview
) -> None:
    """Put neighbouring tiles of a row into ``room``, each with its checksum behind it.

    They are read straight to where they belong, and written from there: each further copy of
    them would cost as much as the copying of the file.
    """
    ends = list(accumulate(lengths))
    bodies = [
        room[end - length : end - CHECKSUM_BYTES] for end, length in zip(ends, lengths, strict=True)
    ]
    offsets = tiles.offsets[first : first + len(lengths)].tolist()
    stored = tiles.counts[first : first + len(lengths)].tolist()
    for offset, run in _runs(offsets, stored, bodies):
        file.read_into(offset, run)
    for number, (body, end) in enumerate(zip(bodies, ends, strict=True)):
        if not stored[number]:
            body[:] = tiles.empty
        if body[: len(_START)] != _START:
            raise DataError(
                f"{file.path} has a tile (number {first + number}) that is no JPEG; it is damaged"
            )
        room[end - CHECKSUM_BYTES : end] = checksum(body)


def _runs(
    offsets: Sequence[int], counts: Sequence[int], bodies: Sequence[memoryview]
) -> Iterator[tuple[int, list[memoryview]]]:
    """Give what is read at once: an offset, and where the bytes from there on belong, in turn.

    Tiles that lie side by side in the file make a run, and small gaps between them are read along.
    """
    run: list[memoryview] = []
    start = end = 0
    for offset, count, body in zip(offsets, counts, bodies, strict=True):
        if not count:
            continue
        if run and 0 <= offset - end <= _GAP:
            run += [memoryview(bytearray(offset - end)), body] if offset > end else [body]
        else:
            if run:
                yield start, run
            run, start = [body], offset
        end = offset + count
    if run:
        yield start, run
