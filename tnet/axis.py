"""One axis of a read: which pixels of a plane lie under which output pixels.

Coordinates are in pixels of the plane that serves the read, and a pixel covers the interval from
its index to its index + 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tnet.resample import clamped

Rule = Callable[[NDArray[np.intp], int, int], NDArray[np.intp]]

_SAME = 1e-4  # a shift of this part of a pixel is none


@dataclass(frozen=True)
class Axis:
    """One axis of a read: ``count`` output pixels of ``step`` from ``start`` on.

    ``low`` to ``high`` are the pixels that may be read, ``begin`` to ``end`` the frame exactly.
    """

    start: float
    step: float
    count: int
    low: int
    high: int
    begin: float
    end: float

    @property
    def stop(self) -> float:
        """Where the last output pixel ends."""
        return self.start + self.step * self.count

    @property
    def margin(self) -> int:
        """How many pixels beyond the output its filter reaches."""
        return math.ceil(max(self.step, 1.0)) + 1

    @property
    def aligned(self) -> bool:
        """Say whether output pixels are pixels of the plane."""
        return _is_aligned(self.start, self.step, self.count)

    def coverage(self) -> NDArray[np.float32]:
        """Return how much of each output pixel lies inside the frame, 0 to 1, (count,)."""
        if self.aligned:
            index = round(self.start) + np.arange(self.count)
            return ((index >= self.low) & (index < self.high)).astype(np.float32)
        edges = np.clip(self.start + self.step * np.arange(self.count + 1), self.begin, self.end)
        share = np.diff(edges) / self.step
        share[share > 1 - 1e-5] = 1  # rounding errors shall not blend in the border
        share[share < 1e-5] = 0
        return share.astype(np.float32)

    def part(self, first: int, last: int) -> "Axis":
        """Return the axis of the output pixels from ``first`` up to ``last``."""
        return replace(self, start=self.start + self.step * first, count=last - first)

    def in_cells(self) -> tuple["Axis", int]:
        """Return the axis in cells of averaged pixels, and the pixels a cell: 1 for fine steps."""
        if self.step < 4:
            return self, 1
        cell = int(self.step / 2)
        axis = replace(
            self,
            start=self.start / cell,
            step=self.step / cell,
            low=self.low // cell,
            high=-(-self.high // cell),
        )
        return axis, cell

    def reach(self, rule: Rule) -> tuple[NDArray[np.intp], float]:
        """Return the pixels under the output and its filter, and where they begin.

        Pixels that the rule would invent are asked for only where the output itself lies there:
        the filter is cut off at the frame instead.
        """
        margin = self.margin
        first, last = math.floor(self.start), math.ceil(self.stop)
        if rule is clamped:
            first, last = (
                min(first, max(first - margin, self.low)),
                max(last, min(last + margin, self.high)),
            )
        else:
            first, last = first - margin, last + margin
        return rule(np.arange(first, last), self.low, self.high), first


def axis_of(start: float, length: float, count: int, begin: float, end: float, side: int) -> Axis:
    """Return the axis of ``count`` output pixels over a length, on a plane of ``side`` pixels.

    ``begin`` to ``end`` is what may be seen.
    """
    low, high = _limits(begin, end, side)
    return Axis(start, length / count, count, low, high, begin, end)


def stored_from(
    start: float, length: float, count: int, begin: float, end: float, side: int
) -> int | None:
    """Return the first pixel of the plane where output pixels are such that may be read.

    Of the same arguments as ``axis_of``, and None where they are not: every read asks.
    """
    if not _is_aligned(start, length / count, count):
        return None
    first = round(start)
    low, high = _limits(begin, end, side)
    return first if low <= first and first + count <= high else None


def _is_aligned(start: float, step: float, count: int) -> bool:
    return abs(start - round(start)) < _SAME and abs(step - 1) * count < _SAME


def _limits(begin: float, end: float, side: int) -> tuple[int, int]:
    """Return the first pixel that may be read, and the one after the last."""
    # A level whose size was rounded down ends a little before the image does.
    low = min(math.floor(begin + _SAME), side - 1)
    return low, max(low + 1, min(math.ceil(end - _SAME), side))
