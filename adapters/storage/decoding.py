"""Every chunk of a file of a store, decoded: which of them cannot be, and why."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.storage.findings import Fault, Stored
from tnet.adapters.storage.shards import ABSENT
from tnet.adapters.zarr.chunks import decoder_of, index_length, shard_index, stored_chunk
from tnet.adapters.zarr.layers import Layer
from tnet.adapters.zarr.sources import Source
from tnet.errors import DataError

Place = tuple[int, ...]

_CRC = "crc32c"


@dataclass(frozen=True)
class Decoded:
    """What came of a file.

    Attributes:
        chunks: how many are stored in it and belong to the array.
        faults: of these.
        tight: whether no byte of the file lies outside of chunks and index.
    """

    chunks: int
    faults: tuple[Fault, ...]
    tight: bool = True


class Checker:
    """Decodes the chunks of an array, file by file; safe with threads.

    Args:
        source: the store.
        stored: the array.
    """

    def __init__(self, source: Source, stored: Stored) -> None:
        self._source = source
        self._stored = stored
        self._array = stored.array
        self._decode = decoder_of(Layer(stored.array, ()))
        self._foreign: Callable[[Any], Any] | None = None

    def file(self, place: Place) -> Decoded:
        """Return what came of the file at a place in the grid of files, which exists."""
        if self._array.sharding is None:
            return self._chunk_file(place)
        name, pieces = self._stored.file(place), self._pieces(place)
        try:
            index, room = self._index(name)
        except (DataError, OSError) as error:
            return Decoded(len(pieces), (self._stored.fault(place, _cannot(error)),))
        pieces = [piece for piece in pieces if index[self._inside(piece)][0] != ABSENT]
        faults: list[tuple[Place, Exception]] = []
        for piece in pieces:
            start, count = map(int, index[self._inside(piece)])
            try:
                self._decoded(piece, partial(self._chunk, name, start, count))
            except Exception as error:  # codecs of foreign data fail in many ways
                faults.append((piece, error))
        stored = index[index[..., 0] != ABSENT]
        tight = int(stored[:, 1].sum()) == room
        if len(faults) == len(pieces) and faults:
            return Decoded(len(pieces), (self._stored.fault(place, _cannot(faults[0][1])),), tight)
        found = [self._stored.fault(place, _cannot(error), piece) for piece, error in faults]
        return Decoded(len(pieces), tuple(found), tight)

    def _chunk_file(self, place: Place) -> Decoded:
        name = self._stored.file(place)
        try:
            self._decoded(place, lambda: self._chunk(name, 0, self._size(name)))
        except Exception as error:  # codecs of foreign data fail in many ways
            return Decoded(1, (self._stored.fault(place, _cannot(error)),))
        return Decoded(1, ())

    def _pieces(self, place: Place) -> list[Place]:
        """Return the places of a shard's chunks in the grid of chunks, beyond the array none."""
        ranges = [
            range(p * n, min((p + 1) * n, -(-length // chunk)))
            for p, n, length, chunk in zip(
                place, self._array.per_file, self._array.shape, self._array.chunks, strict=True
            )
        ]
        return list(itertools.product(*ranges))

    def _inside(self, piece: Place) -> Place:
        return tuple(p % n for p, n in zip(piece, self._array.per_file, strict=True))

    def _index(self, name: str) -> tuple[NDArray[np.uint64], int]:
        """Return offset and length of every chunk of a shard, and how many bytes they have."""
        size, length = self._size(name), index_length(self._array)
        if size < length:
            raise DataError(f"it has {size} bytes, fewer than its index needs")
        entries = shard_index(self._source, self._array, name, size)
        return entries.reshape(*self._array.per_file, 2), size - length

    def _size(self, name: str) -> int:
        return Path(self._source.where(name)).stat().st_size

    def _chunk(self, name: str, start: int, count: int) -> bytes:
        content = stored_chunk(self._source, self._array, name, start, count)
        if content is None:
            raise DataError("it is missing")
        return content

    def _decoded(self, piece: Place, content: Callable[[], bytes]) -> None:
        """Decode one chunk.

        Raises:
            Exception: of any kind, if it cannot be.
        """
        if self._decode is not None:
            self._decode(content())
            return
        if self._foreign is None:
            self._foreign = _reader(self._source, self._array.key)
        sides = zip(piece, self._array.chunks, self._array.shape, strict=True)
        self._foreign(tuple(slice(p * c, min((p + 1) * c, length)) for p, c, length in sides))


def has_checksums(stored: Stored) -> bool:
    """Say whether an array's chunks carry checksums, so that no flipped bit goes unseen."""
    return any(codec["name"] == _CRC for codec in stored.array.codecs or ())


def _reader(source: Source, key: str) -> Callable[[Any], Any]:
    """Return what reads a window of an array whose codecs are not known here."""
    import tensorstore
    import zarr

    array = zarr.open_array(source.where(key), mode="r")
    driver = "zarr3" if array.metadata.zarr_format == 3 else "zarr"
    try:
        spec = {"driver": driver, "kvstore": source.spec(key)}
        store = tensorstore.open(spec, read=True).result()
    except ValueError:  # zarr-python knows more codecs
        return lambda window: array[window]
    return lambda window: store[window].read().result()


def _cannot(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    return f"cannot be decoded ({said})"


def places(grid: Sequence[int]) -> Iterator[Place]:
    """Give all places of a grid, the last axis fastest."""
    return itertools.product(*map(range, grid))
