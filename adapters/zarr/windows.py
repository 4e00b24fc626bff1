"""Windows of one level of a zarr store, by whichever library reads its chunks best.

Tensorstore where it knows the codecs. Our own chunk reader for small windows of a store on this
machine, for JPEG, and in a process forked from one that used tensorstore, which would abort it.
Zarr-python for what neither knows.
"""

import math
import os
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.interleaving import interleaved
from tnet.adapters.segments import CACHE_BYTES
from tnet.adapters.zarr.checks import check_declared
from tnet.adapters.zarr.chunks import JPEG, ChunkReader, decoder_of
from tnet.adapters.zarr.layers import Layer
from tnet.adapters.zarr.metadata import Array
from tnet.adapters.zarr.sources import Source, is_of_network, unreachable
from tnet.errors import DataError, UnsupportedImage

Pixels = NDArray[Any]

# Of chunks under a window, up to which our own reader costs the least: no other thread has to be
# woken, and what was decoded stays as it is wanted, with the bands of a pixel side by side.
_FEW_BYTES = 2**20
IN_FLIGHT = 64  # windows, and requests to a remote store, at once


class Waiting(Protocol):
    """What is being read."""

    def result(self, timeout: float | None = None) -> Any:
        """Wait until it is there."""


@dataclass(frozen=True)
class _Interleaving:
    """Bands that are being read apart, and where they are to be put together."""

    bands: Waiting
    out: Pixels

    def result(self, timeout: float | None = None) -> Pixels:
        """Wait for the bands, and put them together."""
        return interleaved(self.bands.result(timeout), self.out)


class Windows(Protocol):
    """Reads the windows of one array."""

    def view(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, bands) in memory of any order."""

    def fill(self, x: int, y: int, out: Pixels) -> None:
        """Fill ``out``, (height, width, bands) in C order, with the rectangle at x, y."""

    def holds(self, x: int, y: int, out: Pixels) -> bool:
        """Say whether to fill ``out`` is to copy: all of it is decoded already."""

    def close(self) -> None:
        """Let go of what was read."""


class TensorStoreWindows:
    """Through tensorstore.

    Args:
        store: the array, opened.
        layer: the same, as we know it.
        patience: seconds that a read may take.
        small: reads windows of few chunks, where there is such a reader.
    """

    def __init__(
        self, store: Any, layer: Layer, patience: float | None, small: "ChunkWindows | None"
    ) -> None:
        kept = layer.of_picture()
        store = store[tuple(slice(None) if axis in kept else 0 for axis in layer.axes)]
        if "c" not in kept:
            store, kept = store[..., None], [*kept, "c"]
        # The same pixels in the order of the file, in ours, and each band on its own.
        self._stored, self._order = store, [kept.index(axis) for axis in "yxc"]
        self._apart = store.transpose([kept.index(axis) for axis in "cyx"])
        self._kept = kept
        self._patience = patience
        self._small = small

    def view(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, bands) in the order of the file."""
        window = {"x": slice(x, x + width), "y": slice(y, y + height), "c": slice(None)}
        part = self._stored[tuple(window[axis] for axis in self._kept)]
        return np.asarray(part.read().result(self._patience)).transpose(self._order)

    def fill(self, x: int, y: int, out: Pixels) -> None:
        """Fill ``out`` with the rectangle at x, y."""
        small = self._small_for(x, y, out)
        if small is not None:
            small.fill(x, y, out)
        else:
            self.start(x, y, out).result(self._patience)

    def holds(self, x: int, y: int, out: Pixels) -> bool:
        """Say whether to fill ``out`` is to copy."""
        small = self._small_for(x, y, out)
        return small is not None and small.holds(x, y, out)

    def is_one_chunk(self, x: int, y: int, out: Pixels) -> bool:
        """Say whether our own reader takes one chunk for ``out``, so that threads share nothing."""
        small = self._small_for(x, y, out)
        return small is not None and small.chunks(x, y, out) == 1

    def start(self, x: int, y: int, out: Pixels) -> Waiting:
        """Begin to fill ``out`` with the rectangle at x, y."""
        height, width = out.shape[:2]
        return _Interleaving(self._begun(x, y, width, height), out)

    def _small_for(self, x: int, y: int, out: Pixels) -> "ChunkWindows | None":
        """Return what fills ``out`` from few chunks, None where there are too many."""
        small = self._small
        return small if small is not None and small.chunks(x, y, out) <= small.few else None

    def _begun(self, x: int, y: int, width: int, height: int) -> Waiting:
        # Bands apart, as most stores have them: tensorstore is slow at putting them together.
        return self._apart[:, y : y + height, x : x + width].read(order="C")

    def close(self) -> None:
        """Let go of small windows; the rest is in the cache that all images share."""
        if self._small is not None:
            self._small.close()


class ChunkWindows:
    """Through our own reader of chunks."""

    def __init__(self, reader: ChunkReader, layer: Layer) -> None:
        self._bands = layer.size("c")
        self._dtype = layer.array.dtype
        self._tile = layer.tile()
        self.few = _FEW_BYTES // (math.prod(self._tile) * self._bands * self._dtype.itemsize)
        self.fill = reader.fill
        self.holds = reader.holds
        self.close = reader.close

    def chunks(self, x: int, y: int, out: Pixels) -> int:
        """Return how many chunks a rectangle at x, y lies on."""
        (across, down), (height, width) = self._tile, out.shape[:2]
        columns = (x + width - 1) // across - x // across + 1
        return columns * ((y + height - 1) // down - y // down + 1)

    def view(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, bands) in C order."""
        out = np.empty((height, width, self._bands), self._dtype)
        self.fill(x, y, out)
        return out


class PythonWindows:
    """Through zarr-python, which knows the most codecs."""

    def __init__(self, array: Any, layer: Layer) -> None:
        self._array = array
        self._axes = layer.axes

    def view(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, bands) in the order of the file."""
        window = {"x": slice(x, x + width), "y": slice(y, y + height), "c": slice(None)}
        pixels = np.asarray(self._array[tuple(window.get(axis, 0) for axis in self._axes)])
        kept = [axis for axis in self._axes if axis in window]
        if "c" not in kept:
            pixels, kept = pixels[..., None], [*kept, "c"]
        return pixels.transpose([kept.index(axis) for axis in "yxc"])

    def fill(self, x: int, y: int, out: Pixels) -> None:
        """Fill ``out`` with the rectangle at x, y."""
        out[...] = self.view(x, y, out.shape[1], out.shape[0])

    def holds(self, x: int, y: int, out: Pixels) -> bool:
        """Keep nothing."""
        return False

    def close(self) -> None:
        """Keep nothing."""


def windows_of(source: Source, layer: Layer) -> Windows:
    """Open an array for reading.

    Raises:
        DataError: if none of the libraries can read it.
    """
    context, owner = shared_context()
    forked = owner != os.getpid()
    jpeg = any(codec["name"] == JPEG for codec in layer.array.codecs or ())
    decode = decoder_of(layer)
    chunks = decode and ChunkWindows(ChunkReader(source, layer, decode), layer)
    if not jpeg and not forked:
        try:
            store = _opened(source, layer.array, context)
            small = chunks if source.patience is None else None
            return TensorStoreWindows(store, layer, source.patience, small)
        except (ValueError, TimeoutError) as error:
            if is_of_network(error):
                raise unreachable(source.name, error) from error
            # Others know more codecs, registered extensions among them.
    if forked and source.patience is not None:
        raise forked_too_late(source.name)
    return chunks or _through_python(source, layer)


def forked_too_late(name: str) -> DataError:
    """Return why a forked process cannot read what only tensorstore reads."""
    return DataError(
        f"{name} is read by a process that was forked from one that had read a zarr store, where "
        "that does not work; start workers with the method 'spawn'"
    )


def all_of(source: Source, array: Array) -> Pixels:
    """Return all values of a small array that is no image, such as a colour profile.

    Raises:
        DataError: if the process was forked from one that had read a zarr store.
        UnsupportedImage: if a chunk declares too much.
        ValueError: if it cannot be read.
    """
    context, owner = shared_context()
    if owner != os.getpid():
        raise forked_too_late(source.name)
    grid = (-(-n // file) for n, file in zip(array.shape, array.files, strict=True))
    for place in np.ndindex(*grid):
        source.check(array.file(place))
        check_declared(source, array, array.file(place))
    return np.asarray(_opened(source, array, context).read().result(source.patience))


def _opened(source: Source, array: Array, context: Any) -> Any:
    """Open an array with tensorstore."""
    import tensorstore

    spec = {
        "driver": "zarr" if array.codecs is None else "zarr3",
        "kvstore": source.spec(array.key),
        "fill_missing_data_reads": not source.sealed,
        # Looked at again for each read, a store costs as much as reading it.
        "recheck_cached_data": "open",
        "recheck_cached_metadata": "open",
    }
    return tensorstore.open(spec, read=True, context=context).result(source.patience)


def _through_python(source: Source, layer: Layer) -> PythonWindows:
    import zarr

    where = source.where(layer.array.key)
    if source.patience is not None or source.sealed:
        raise UnsupportedImage(
            f"{where} uses a codec that cannot be read from a remote or a sealed store; "
            "convert it with `tnet convert`"
        )
    try:
        return PythonWindows(zarr.open_array(where, mode="r"), layer)
    except Exception as error:  # extensions can break in any way
        raise DataError(
            f"{where} cannot be opened as zarr ({type(error).__name__}: {error}); it is damaged or "
            "uses an extension that is not installed"
        ) from error


@cache
def shared_context() -> tuple[Any, int]:
    """Return the cache and the threads that all zarr images share, and whose process they are."""
    import tensorstore

    retries = {"max_retries": 4, "initial_delay": "100ms", "max_delay": "2s"}
    requests = {"limit": IN_FLIGHT}
    context = tensorstore.Context(
        {
            "cache_pool": {"total_bytes_limit": CACHE_BYTES},
            "data_copy_concurrency": {"limit": max(2, os.cpu_count() or 1)},
            "file_io_concurrency": {"limit": 32},
            "http_request_concurrency": requests,
            "http_request_retries": retries,
            "s3_request_concurrency": requests,
            "s3_request_retries": retries,
            "gcs_request_concurrency": requests,
            "gcs_request_retries": retries,
        }
    )
    return context, os.getpid()
