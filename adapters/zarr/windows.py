"""Windows of one level of a zarr store, by whichever library reads its chunks best.

Tensorstore where it knows the codecs. Our own chunk reader for JPEG, and in a process forked from
one that used tensorstore, which would abort it. Zarr-python for what neither knows.
"""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.interleaving import interleaved
from tnet.adapters.zarr.chunks import JPEG, ChunkReader, check_declared, decoder_of
from tnet.adapters.zarr.layers import Layer
from tnet.adapters.zarr.metadata import Array
from tnet.adapters.zarr.sources import Source, is_of_network, unreachable
from tnet.errors import DataError, UnsupportedImage

Pixels = NDArray[Any]

CACHE_BYTES = 2**27
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

    def own(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, bands) in C order, which nobody else holds."""

    def close(self) -> None:
        """Let go of what was read."""


class TensorStoreWindows:
    """Through tensorstore."""

    def __init__(self, store: Any, layer: Layer, patience: float | None) -> None:
        kept = layer.of_picture()
        store = store[tuple(slice(None) if axis in kept else 0 for axis in layer.axes)]
        if "c" not in kept:
            store, kept = store[..., None], [*kept, "c"]
        # The same pixels in the order of the file, in ours, and each band on its own.
        self._stored, self._order = store, [kept.index(axis) for axis in "yxc"]
        self._apart = store.transpose([kept.index(axis) for axis in "cyx"])
        self._kept = kept
        self._patience = patience

    def view(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, bands) in the order of the file."""
        window = {"x": slice(x, x + width), "y": slice(y, y + height), "c": slice(None)}
        part = self._stored[tuple(window[axis] for axis in self._kept)]
        return np.asarray(part.read().result(self._patience)).transpose(self._order)

    def own(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, bands) in C order."""
        return interleaved(self._begun(x, y, width, height).result(self._patience))

    def start(self, x: int, y: int, out: Pixels) -> Waiting:
        """Begin to fill ``out`` with the rectangle at x, y."""
        height, width = out.shape[:2]
        return _Interleaving(self._begun(x, y, width, height), out)

    def _begun(self, x: int, y: int, width: int, height: int) -> Waiting:
        # Bands apart, as most stores have them: tensorstore is slow at putting them together.
        return self._apart[:, y : y + height, x : x + width].read(order="C")

    def close(self) -> None:
        """Keep nothing: what was read is in the cache that all images share."""


class ChunkWindows:
    """Through our own reader of chunks."""

    def __init__(self, reader: ChunkReader, layer: Layer) -> None:
        self._reader = reader
        self._bands = layer.size("c")
        self._dtype = layer.array.dtype
        self.close = reader.close

    def own(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, bands) in C order."""
        out = np.empty((height, width, self._bands), self._dtype)
        self._reader.fill(x, y, out)
        return out

    view = own


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

    def own(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, bands) in C order."""
        return np.require(self.view(x, y, width, height), requirements=["C", "W", "O"])

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
    if not jpeg and not forked:
        try:
            store = _opened(source, layer.array, context)
            return TensorStoreWindows(store, layer, source.patience)
        except (ValueError, TimeoutError) as error:
            if is_of_network(error):
                raise unreachable(source.name, error) from error
            # Others know more codecs, registered extensions among them.
    if forked and source.patience is not None:
        raise forked_too_late(source.name)
    decode = decoder_of(layer)
    if decode is not None:
        return ChunkWindows(ChunkReader(source, layer, decode), layer)
    return _through_python(source, layer)


def forked_too_late(name: str) -> DataError:
    """Return why a forked process cannot read what only tensorstore reads."""
    return DataError(
        f"{name} is read by a process that was forked from one that had read a zarr store, where "
        "that does not work; start workers with the method 'spawn'"
    )


class FileCheck:
    """Looks once at each file of an array before others read it: is it inside, and no bomb?"""

    _MOST = 2**16  # files to be remembered

    def __init__(self, source: Source, layer: Layer) -> None:
        self._source = source
        self._layer = layer
        self._seen: set[tuple[int, int]] = set()
        axes, files = layer.axes, layer.array.files
        self._side = (files[axes.index("x")], files[axes.index("y")])
        count = layer.size("c") if "c" in axes else 1
        self._bands = range(-(-count // files[axes.index("c")]) if "c" in axes else 1)

    def __call__(self, x: int, y: int, width: int, height: int) -> None:
        """Check the files under a window.

        Raises:
            UnsupportedImage: if a link leads out of the store, or a chunk declares too much.
        """
        across, down = self._side
        for row in range(y // down, (y + height - 1) // down + 1):
            for column in range(x // across, (x + width - 1) // across + 1):
                if (row, column) not in self._seen:
                    self._look(row, column)

    def _look(self, row: int, column: int) -> None:
        for band in self._bands:
            numbers = {"c": band, "y": row, "x": column}
            place = [numbers.get(axis, 0) for axis in self._layer.axes]
            key = self._layer.array.file(place)
            self._source.check(key)
            if self._source.patience is None:  # over the network that would cost a round trip
                check_declared(self._source, self._layer.array, key)
        if len(self._seen) >= self._MOST:
            self._seen.clear()
        self._seen.add((row, column))


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
