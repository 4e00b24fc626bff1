"""The levels of a zarr store as a pyramid, and which of its chunks is hurt where reading fails."""

import os
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.zarr.checks import FileCheck
from tnet.adapters.zarr.chunks import MissingChunkError
from tnet.adapters.zarr.layers import Layer, Rectangle
from tnet.adapters.zarr.sources import Source, cause_of, is_of_network, unreachable
from tnet.adapters.zarr.windows import (
    IN_FLIGHT,
    TensorStoreWindows,
    Waiting,
    Windows,
    windows_of,
)
from tnet.errors import DataError, UnsupportedImage
from tnet.pyramid import Facts, LevelPyramid, Place

Pixels = NDArray[Any]

# That decode at once: two threads on one core take more of its time and end hardly sooner, and
# more than eight wait for the interpreter. Processors mostly count each core twice.
_CORES = max(1, min(8, (os.cpu_count() or 1) // 2))


class ZarrPyramid(LevelPyramid):
    """The arrays of a zarr store as levels."""

    def __init__(self, source: Source, layers: Sequence[Layer], facts: Facts) -> None:
        super().__init__(facts)
        self._source = source
        if source.patience is not None:
            self._threads = IN_FLIGHT  # they wait for the network more than they work
        self._layers = tuple(layers)
        self._checks = [FileCheck(source, layer) for layer in layers]
        self._stamps = [source.stamp(layer.array.document) for layer in layers]
        self._windows: dict[tuple[int, int], Windows] = {}

    def _fetch(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        window = (x, y, width, height)
        windows = self._checked(level, *window)
        try:
            pixels = windows.view(*window)
        except Exception as error:  # codecs of foreign data fail in many ways
            raise self._explained(error, level, window) from error
        self._check_still_there(level)
        return pixels

    def _fetch_own(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        out = np.empty((height, width, self.bands), self.dtype)
        self._fill((level, x, y), out)
        self._check_still_there(level)
        return out

    def _fill(self, place: Place, out: Pixels) -> None:
        """Fill ``out``, (height, width, bands), with the rectangle at its place."""
        level, x, y = place
        window = (x, y, out.shape[1], out.shape[0])
        windows = self._checked(level, *window)
        try:
            windows.fill(x, y, out)
        except Exception as error:  # as above
            raise self._explained(error, level, window) from error

    def _fetch_many(self, places: Sequence[Place], out: Sequence[Pixels]) -> None:
        in_one_chunk: list[tuple[Place, Pixels]] = []
        in_several: list[tuple[TensorStoreWindows, Place, Pixels]] = []
        others: list[tuple[Place, Pixels]] = []
        for place, pixels in zip(places, out, strict=True):
            level, x, y = place
            windows = self._checked(level, x, y, pixels.shape[1], pixels.shape[0])
            if windows.holds(x, y, pixels):
                self._fill(place, pixels)
            elif not isinstance(windows, TensorStoreWindows):
                others.append((place, pixels))
            elif windows.is_one_chunk(x, y, pixels):
                in_one_chunk.append((place, pixels))
            else:
                in_several.append((windows, place, pixels))
        self._fetch_begun(in_several)
        for listed, threads in ((in_one_chunk, _CORES), (others, self._threads)):
            self._fill_all([place for place, _ in listed], [o for _, o in listed], threads)
        for level in {level for level, _, _ in places}:
            self._check_still_there(level)

    def _fetch_begun(self, several: Sequence[tuple[TensorStoreWindows, Place, Pixels]]) -> None:
        """Fill windows through tensorstore, as many at once as may be."""
        begun: deque[tuple[Waiting, Place, Pixels]] = deque()
        for windows, place, pixels in several:
            if len(begun) == IN_FLIGHT:
                self._finish(*begun.popleft())
            begun.append((windows.start(*place[1:], pixels), place, pixels))
        while begun:
            self._finish(*begun.popleft())

    def _finish(self, waiting: Waiting, place: Place, pixels: Pixels) -> None:
        """Wait for what was begun."""
        try:
            waiting.result(self._source.patience)
        except Exception as error:  # codecs of foreign data fail in many ways
            level, x, y = place
            window = (x, y, pixels.shape[1], pixels.shape[0])
            raise self._explained(error, level, window) from error

    def _checked(self, level: int, *window: *Rectangle) -> Windows:
        """Return what reads a level, having looked at the files under a window."""
        self._checks[level](*window)
        return self._opened(level)

    def _opened(self, level: int) -> Windows:
        # A forked process cannot use what its parent has opened.
        key = (os.getpid(), level)
        if key not in self._windows:
            # Of two threads that open it at once, both take what the first one has.
            return self._windows.setdefault(key, windows_of(self._source, self._layers[level]))
        return self._windows[key]

    def _check_still_there(self, level: int) -> None:
        """Refuse pixels of a store that is not the one that was opened.

        Of a folder that is gone, all chunks would read as never written.
        """
        if self._source.stamp(self._layers[level].array.document) != self._stamps[level]:
            raise DataError(
                f"{self.name} was moved, removed or replaced while it was open; open it again"
            )

    def _explained(self, error: Exception, level: int, window: Rectangle) -> DataError:
        """Return what is wrong with a window: the first of its chunks that cannot be read."""
        self._check_still_there(level)
        windows = self._opened(level)
        for chunk in self._layers[level].under(*window):
            if isinstance(error, UnsupportedImage) or is_of_network(error):
                break
            try:
                windows.view(*chunk)
            except Exception as fault:  # as above
                error, window = fault, chunk
                break
        return self._said(error, level, window)

    def _said(self, error: Exception, level: int, window: Rectangle) -> DataError:
        """Return what is wrong with a window in words."""
        if isinstance(error, UnsupportedImage):
            return error
        if is_of_network(error):
            return unreachable(self.name, error)
        missing = isinstance(error, MissingChunkError) or str(error).endswith("is missing")
        fault = "lacks a chunk that was written" if missing else "has a damaged or unreadable chunk"
        mend = "run `tnet verify STORE --repair SOURCE` on it" if self._source.sealed else ""
        scale = (self.levels[level].scale_x, self.levels[level].scale_y)
        place = _span(window, (1.0, 1.0))
        if level > 0:
            place += f", which is {_span(window, scale)} of level 0"
        return DataError(
            f"{self.name} {fault} in level {level} at {place} ({cause_of(error)}); "
            f"{mend or 'write it again'}"
        )

    def close(self) -> None:
        """Let go of the files; a later read opens them again."""
        for windows in list(self._windows.values()):  # another thread may be opening one
            windows.close()
        self._windows.clear()
        self._source.close()


def _span(window: Rectangle, scale: tuple[float, float]) -> str:
    """Return the pixels of a window in words."""
    x, y, width, height = window
    across, down = scale
    return (
        f"x {x * across:.0f} to {(x + width) * across:.0f}, "
        f"y {y * down:.0f} to {(y + height) * down:.0f}"
    )
