"""Chunks of zarr v3 arrays, read and decoded one by one.

For small windows, where waking tensorstore's threads costs more than they save. And for what it
cannot read: it knows no JPEG, and must not be used in a process forked from one that used it.
"""

import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.headers import declared_size
from tnet.adapters.interleaving import interleaved
from tnet.adapters.segments import CACHE, Window, assemble
from tnet.adapters.storage.codecs import decode_jpeg, with_checksum, without_checksum
from tnet.adapters.storage.shards import ABSENT, index_bytes, parsed_index
from tnet.adapters.zarr.layers import Layer, Rectangle
from tnet.adapters.zarr.metadata import Array
from tnet.adapters.zarr.sources import Source
from tnet.errors import DataError

Pixels = NDArray[Any]
Decoder = Callable[[bytes], Pixels]

JPEG = "imagecodecs_jpeg"

_AT_ONCE = 64  # chunks asked for over the network
_UNKNOWN_SIZE = 2**63
_CRC = "crc32c"
_CRC_BYTES = 4
BLOSC_HEADER = 16
MORE = 2**10  # bytes that the codecs between may add to a chunk
_SLACK = 2**16  # bytes by which no codec makes a chunk longer


class MissingChunkError(DataError):
    """A chunk that nobody wrote, in a store that says it is complete."""


class ChunkReader:
    """Reads windows of an array chunk by chunk; decoded chunks stay in the cache of all images.

    Args:
        source: the store.
        layer: the array.
        decode: what makes a chunk of its bytes.
    """

    def __init__(self, source: Source, layer: Layer, decode: Decoder) -> None:
        array, axes = layer.array, layer.axes
        self._source = source
        self._layer = layer
        self._array = array
        self._decode = decode
        self._samples = array.chunks[axes.index("c")] if "c" in axes else 1
        self._planes = -(-layer.size("c") // self._samples)
        self._tile = layer.tile()
        self.token = object()  # names the array in the cache

    def fill(self, x: int, y: int, out: Pixels) -> None:
        """Fill ``out``, (height, width, bands), with the rectangle at x, y.

        Raises:
            DataError: if a chunk is damaged, or missing where it should not be.
        """
        if self._source.patience is not None:
            self._ahead(x, y, out.shape[1], out.shape[0])
        assemble(out, (x, y), self._tile, self._samples, self._part)

    def holds(self, x: int, y: int, out: Pixels) -> bool:
        """Say whether all chunks under the rectangle at x, y are decoded already."""
        places = self._places(x, y, out.shape[1], out.shape[0])
        return CACHE.holds((self.token, place) for place in places)

    def _ahead(self, *window: *Rectangle) -> None:
        """Ask for all chunks under a window at once, because the network is slow."""
        places = list(self._places(*window))
        if len(places) > 1:
            for _ in _pool(os.getpid()).map(self._decoded, places):
                pass

    def _places(self, x: int, y: int, width: int, height: int) -> Iterator[tuple[int, ...]]:
        """Give the places of the chunks under a window."""
        across, down = self._tile
        for row in range(y // down, (y + height - 1) // down + 1):
            for column in range(x // across, (x + width - 1) // across + 1):
                for plane in range(self._planes):
                    yield self._place(plane, row, column)

    def _place(self, plane: int, row: int, column: int) -> tuple[int, ...]:
        numbers = {"c": plane, "y": row, "x": column}
        return tuple(numbers.get(axis, 0) for axis in self._layer.axes)

    def _decoded(self, place: tuple[int, ...]) -> Pixels:
        return CACHE.get((self.token, place), partial(self._chunk, place))

    def _part(self, plane: int, row: int, column: int, window: Window) -> Pixels | float:
        pixels = self._decoded(self._place(plane, row, column))
        if pixels.ndim == 0:
            return pixels[()]
        return pixels[(*window, slice(self._layer.size("c") - plane * self._samples))]

    def _chunk(self, place: tuple[int, ...]) -> Pixels:
        """Return a chunk, (height, width, bands); one number where nobody wrote it."""
        content = self._content(place)
        if content is None:
            if self._source.sealed:
                raise MissingChunkError("it is missing")
            return np.asarray(self._array.fill, self._array.dtype)
        pixels = self._decode(content)
        kept = self._layer.of_picture()
        pixels = pixels[tuple(slice(None) if axis in kept else 0 for axis in self._layer.axes)]
        if kept == ["c", "y", "x"]:
            return interleaved(pixels)
        if "c" not in kept:
            pixels, kept = pixels[..., None], [*kept, "c"]
        return np.ascontiguousarray(pixels.transpose([kept.index(axis) for axis in "yxc"]))

    def _content(self, place: tuple[int, ...]) -> bytes | None:
        """Return the bytes of a chunk, None where there are none."""
        per_file = self._array.per_file
        key = self._array.file([p // n for p, n in zip(place, per_file, strict=True)])
        if self._array.sharding is None:
            return self._source.read(key, 0, None)
        index = CACHE.get((self.token, key), partial(shard_index, self._source, self._array, key))
        if not len(index):
            return None
        inside = [p % n for p, n in zip(place, per_file, strict=True)]
        start, count = (int(v) for v in index[np.ravel_multi_index(inside, per_file)])
        if start == count == ABSENT:
            return None
        return stored_chunk(self._source, self._array, key, start, count)

    def close(self) -> None:
        """Forget the decoded chunks."""
        CACHE.forget(self.token)


def stored_chunk(source: Source, array: Array, key: str, start: int, count: int) -> bytes | None:
    """Return the bytes of a chunk from its file, None where there is no such file.

    Raises:
        DataError: if there are more than any codec makes of a chunk, or the file ends before.
    """
    if count > 2 * array.chunk_bytes + _SLACK:
        raise DataError("its length makes no sense")
    return source.read(key, start, count)


def shard_index(
    source: Source, array: Array, key: str, size: int | None = None
) -> NDArray[np.uint64]:
    """Return offset and length of each chunk of a shard, (n, 2); none without a file.

    Args:
        source: the store.
        array: whose shard it is.
        key: of the shard's file.
        size: of that file, which the chunks have to lie in; None where it is not known.

    Raises:
        DataError: if the index is damaged.
    """
    length, sharding = index_length(array), array.sharding or {}
    at_end = sharding.get("index_location", "end") == "end"
    content = source.read(key, -length if at_end else 0, length)
    if content is None:
        return np.empty((0, 2), np.uint64)
    room = _UNKNOWN_SIZE if size is None else size - (length if at_end else 0)
    return parsed_index(content if _is_checked(array) else with_checksum(content), room)


def index_length(array: Array) -> int:
    """Return how many bytes the index of a shard has."""
    count = math.prod(array.per_file)
    return index_bytes(count) - (0 if _is_checked(array) else _CRC_BYTES)


def _is_checked(array: Array) -> bool:
    return any(codec["name"] == _CRC for codec in (array.sharding or {})["index_codecs"])


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the threads that wait for chunks from the network."""
    return ThreadPoolExecutor(_AT_ONCE, f"tnet-chunks-{process}")


def decoder_of(layer: Layer) -> Decoder | None:
    """Return what decodes the chunks of an array, None where that is not known here."""
    array = layer.array
    if array.codecs is None:
        return None
    shape = array.chunks
    codecs = list(array.codecs)
    back: list[int] | None = None
    if codecs and codecs[0]["name"] == "transpose":
        order = codecs.pop(0)["configuration"].get("order")
        if not isinstance(order, list) or sorted(order) != list(range(len(shape))):
            return None
        shape, back = tuple(shape[axis] for axis in order), [int(v) for v in np.argsort(order)]
    if not codecs or any(codec["name"] not in _OF_BYTES for codec in codecs[1:]):
        return None
    pixels_of = _first(codecs[0], shape, array.dtype)
    if pixels_of is None:
        return None
    steps = [partial(_OF_BYTES[c["name"]], array.chunk_bytes) for c in reversed(codecs[1:])]

    def decode(content: bytes) -> Pixels:
        for step in steps:
            content = step(content)
        pixels = pixels_of(content)
        return pixels if back is None else pixels.transpose(back)

    return decode


def _first(codec: Mapping[str, Any], shape: Sequence[int], dtype: np.dtype[Any]) -> Decoder | None:
    """Return what makes an array of bytes."""
    configuration = codec["configuration"]
    if codec["name"] == JPEG and dtype == np.uint8:
        return partial(_jpeg, configuration, tuple(shape))
    if codec["name"] != "bytes":
        return None
    stored = dtype.newbyteorder(">" if configuration.get("endian") == "big" else "<")

    def plain(content: bytes) -> Pixels:
        return np.frombuffer(content, stored).reshape(shape).astype(dtype, copy=False)

    return plain


def _jpeg(configuration: Mapping[str, Any], shape: tuple[int, ...], content: bytes) -> Pixels:
    size = declared_size(content)
    if size is not None and size[0] * size[1] > math.prod(shape):
        raise DataError(f"it holds {size[0]} x {size[1]} pixels")
    picture = decode_jpeg(content, configuration)
    if [side for side in picture.shape if side > 1] != [side for side in shape if side > 1]:
        raise DataError(f"it holds a picture of {picture.shape} values")
    return picture.reshape(shape)


def _zstd(expected: int, content: bytes) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.zstd_decode(content, out=expected + MORE))


def _blosc(expected: int, content: bytes) -> bytes:
    import imagecodecs

    declared = int.from_bytes(content[4:8], "little")
    if len(content) < BLOSC_HEADER or declared > expected + MORE:
        raise DataError(f"it holds {declared} bytes instead of {expected}")
    return bytes(imagecodecs.blosc_decode(content, numthreads=1))


def _gzip(expected: int, content: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(content, expected + MORE)


def _crc32c(expected: int, content: bytes) -> bytes:
    return without_checksum(content)


_OF_BYTES: dict[str, Callable[[int, bytes], bytes]] = {
    "blosc": _blosc,
    "crc32c": _crc32c,
    "gzip": _gzip,
    "zstd": _zstd,
}
