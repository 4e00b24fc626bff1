"""Shards: many chunks in one file, with an index at its end that says where each of them is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.storage.codecs import with_checksum, without_checksum
from tnet.adapters.storage.disk import reserve, write_pieces
from tnet.adapters.storage.seal import Sealed, new_digest
from tnet.errors import DataError

ABSENT = 2**64 - 1  # both numbers of a chunk that is not stored

_ENTRY_BYTES = 16
_CRC_BYTES = 4


class ShardFile:
    """A shard's file while it is written: chunks in any order, then the index.

    Args:
        path: of the file.
        count: how many chunks its grid has; those that are never added are not stored.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self._file = path.open("wb", buffering=0)
        self._index = np.full((count, 2), ABSENT, "<u8")
        self._digest = new_digest()
        self._size = 0

    def add(self, chunks: Sequence[tuple[int, bytes]]) -> None:
        """Write chunks, each with its place in the grid.

        Raises:
            OSError: if the system refuses.
        """
        for number, chunk in chunks:
            self._index[number] = self._size, len(chunk)
            self._size += len(chunk)
        self.write([chunk for _, chunk in chunks])

    def place(self, numbers: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Say which chunks ``write`` will write next, one after the other.

        Room for them is taken at once, which costs less than taking it write by write.

        Args:
            numbers: their places in the grid.
            lengths: bytes of each.

        Raises:
            OSError: if the disk has no such room.
        """
        self._index[numbers, 0] = self._size + np.cumsum(lengths) - lengths
        self._index[numbers, 1] = lengths
        total = int(lengths.sum())
        reserve(self._file.fileno(), self._size, total)
        self._size += total

    def finish(self) -> Sealed:
        """Write the index and close the file; return its length and digest.

        Raises:
            OSError: if the system refuses.
        """
        index = with_checksum(self._index.tobytes())
        self._size += len(index)
        self.write([index])
        self.close()
        return Sealed(self._size, self._digest.hexdigest())

    def close(self) -> None:
        """Close the file, finished or not."""
        self._file.close()

    def write(self, pieces: Sequence[bytes | memoryview], *, cached: bool = True) -> None:
        """Write bytes of chunks that have their place.

        Args:
            pieces: what to write.
            cached: False keeps them out of the system's cache, see ``write_pieces``.

        Raises:
            OSError: if the system refuses.
        """
        write_pieces(self._file.fileno(), pieces, cached=cached)
        for piece in pieces:
            self._digest.update(piece)


def index_bytes(count: int) -> int:
    """Return how long the index of a shard of ``count`` chunks is."""
    return count * _ENTRY_BYTES + _CRC_BYTES


def read_index(path: Path, count: int) -> NDArray[np.uint64]:
    """Return offset and length of every chunk of a shard, (count, 2).

    Raises:
        DataError: if the file is no whole shard of that many chunks.
        OSError: if it cannot be read.
    """
    size, length = path.stat().st_size, index_bytes(count)
    if size < length:
        raise DataError(f"it has {size} bytes, fewer than its index needs")
    with path.open("rb") as file:
        file.seek(size - length)
        return parsed_index(file.read(length), size - length)


def parsed_index(content: bytes, room: int) -> NDArray[np.uint64]:
    """Return offset and length of every chunk, (n, 2), from the bytes of an index.

    Args:
        content: the index, with its checksum.
        room: bytes before it, which the chunks have to lie in.

    Raises:
        DataError: if it is damaged.
    """
    try:
        entries = np.frombuffer(without_checksum(content), "<u8").reshape(-1, 2)
    except DataError as error:
        raise DataError("its index is damaged") from error
    stored = entries[(entries != ABSENT).all(axis=1)]
    # Compared without adding: the sum of two such numbers may not fit.
    if len(stored) and ((stored > room).any() or (stored[:, 0] > room - stored[:, 1]).any()):
        raise DataError("its index points outside of it")
    return entries
