"""What a walk says about places: probabilities of paths, and heat maps at any resolution.

Functions of a record alone. R rows and C columns of a grid, (h, w) the map.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tnet.errors import UsageError
from tnet.record import Chances, Walk

Kind = Literal["probability", "weight", "contribution"]
KINDS: tuple[Kind, ...] = ("probability", "weight", "contribution")

MOST_PIXELS = 2**28  # of a map: 1.3 GB while it is made

_STRIP = 128  # rows that are painted at once, which keeps the memory for a map near that of the map

# Sides that were multiplied and divided carry rounding errors; less of a pixel is not covered.
_ROUNDING = 1e-9

Span = tuple[float, float]


def path_probabilities(walk: Walk) -> NDArray[np.float64]:
    """Return how likely the way to each glimpse was, float64 (glimpses,).

    The product, down the tree, of the probabilities of the cells: that of coming to a glimpse if
    one cell were drawn of every grid. It is 1 for the first look.
    """
    found = np.ones(len(walk.glimpses))
    for index, glimpse in enumerate(walk.glimpses):
        if glimpse.parent is not None:
            found[index] = found[glimpse.parent] * glimpse.probability
    return found


def class_index(walk: Walk, target: int | str | None) -> int | None:
    """Return the number of a class.

    Args:
        walk: whose classes they are.
        target: its name or number; None for the predicted one, which there is none of without
            evidence.

    Raises:
        UsageError: if there is no such class.
    """
    if target is None:
        return None if walk.label is None else walk.classes.index(walk.label)
    if isinstance(target, str):
        if target not in walk.classes:
            raise UsageError(f"there is no class {target!r}; there are {', '.join(walk.classes)}")
        return walk.classes.index(target)
    if not 0 <= target < len(walk.classes):
        raise UsageError(f"there is no class {target}; there are {len(walk.classes)}, from 0")
    return int(target)


def heat_map(
    walk: Walk,
    size: tuple[int, int],
    kind: Kind = "contribution",
    target: int | str | None = None,
    *,
    first: bool = False,
) -> NDArray[np.float32]:
    """Return a heat map over the whole image, float32 (h, w); NaN where nothing was looked at.

    A value is the mean over the area of its pixel, wherever the borders of the regions fall, so
    that a map of any size is in register with the image: pixel (column, row) covers level 0
    from column * width / w and row * height / h on. What is not covered counts as 0 in it.

    - "contribution": at each place, what the glimpses that show it add to the class's logit.
    - "weight": at each place, the weights of the glimpses that show it.
    - "probability": how much likelier a place is than any other would be by chance, if one cell
      were drawn of every grid down to the last. The mean over the image is 1 (less what lies
      beyond it). NaN where no cell could be chosen.

    Args:
        walk: the record.
        size: w and h of the map.
        kind: what is shown.
        target: the class, by name or number; None for the predicted one. Without evidence there
            is none, and the map of its contributions is all NaN.
        first: whether the first look is shown, which covers everything. With it the contributions
            add up to the logit less the bias, and the weights to 1.

    Raises:
        UsageError: if there is no such kind or class, or the size makes no sense.
    """
    if min(size) < 1 or size[0] * size[1] > MOST_PIXELS:
        raise UsageError(f"a heat map has 1 to {MOST_PIXELS:,} pixels, got {size[0]} x {size[1]}")
    canvas = _Canvas(walk, size)
    if kind == "probability":
        _paint_probability(canvas, walk)
        return canvas.map()
    if kind not in KINDS:
        raise UsageError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    number = class_index(walk, target)
    if kind == "contribution" and number is None:
        return canvas.map()
    for glimpse in walk.glimpses:
        if glimpse.level or (first and walk.first_view != (0, 0)):
            value = glimpse.weight
            if kind == "contribution" and number is not None:
                value = glimpse.contributions[number]
            canvas.paint(
                [glimpse_span(glimpse.region, 1)], [glimpse_span(glimpse.region, 0)], value
            )
    return canvas.map()


def glimpse_span(region: Any, axis: int) -> Span:
    """Return start and length of a region along x (0) or y (1)."""
    return (region.y, region.height) if axis else (region.x, region.width)


def _paint_probability(canvas: "_Canvas", walk: Walk) -> None:
    """Spread the mass of every path over the last cell that it came to."""
    rule = walk.plan.get("rule", "exact")
    path = path_probabilities(walk)
    image = float(walk.width * walk.height)
    asked = {grid.parent for grid in walk.grids}
    children: dict[int | None, list[int]] = {}
    for index, glimpse in enumerate(walk.glimpses):
        children.setdefault(glimpse.parent, []).append(index)
    for chances in walk.grids:
        region = walk.glimpses[chances.parent].region
        rows, columns = chances.grid(rule).spans(region)
        mass = _masses(chances) * path[chances.parent]
        for index in children.get(chances.parent, ()):
            glimpse = walk.glimpses[index]
            # What was chosen is shown where it was looked at, or by its own grid.
            mass[glimpse.row, glimpse.column] = 0.0
            if index not in asked:
                share = path[index] * image / glimpse.region.area
                canvas.paint(
                    [glimpse_span(glimpse.region, 1)], [glimpse_span(glimpse.region, 0)], share
                )
        canvas.paint(rows, columns, mass * image / (rows[0][1] * columns[0][1]))


def _masses(chances: Chances) -> NDArray[np.float64]:
    """Return the probabilities of a grid, (R, C); NaN where a cell could not be chosen."""
    said = [np.nan if p is None else p for p in chances.probabilities]
    return np.array(said, dtype=np.float64).reshape(chances.rows, chances.columns)


class _Canvas:
    """A map in the making.

    Args:
        walk: of the image that it shows.
        size: w and h.
    """

    def __init__(self, walk: Walk, size: tuple[int, int]) -> None:
        self._scale = (size[0] / walk.width, size[1] / walk.height)
        self._sum = np.zeros((size[1], size[0]), dtype=np.float32)
        self._said = np.zeros((size[1], size[0]), dtype=bool)

    def paint(
        self, rows: Sequence[Span], columns: Sequence[Span], values: NDArray[np.float64] | float
    ) -> None:
        """Add the values of a grid of rectangles, each to the pixels as far as it covers them.

        Args:
            rows: y and height of each row, in pixels of level 0.
            columns: x and width of each column.
            values: (R, C); NaN for a rectangle of which nothing is said.
        """
        values_RC = np.broadcast_to(np.asarray(values), (len(rows), len(columns)))
        top, down_Rh = _coverage(rows, self._scale[1], self._sum.shape[0])
        left, across_Cw = _coverage(columns, self._scale[0], self._sum.shape[1])
        known_RC = np.isfinite(values_RC)
        across_Rw = np.where(known_RC, values_RC, 0.0) @ across_Cw
        said_Rw = known_RC.astype(np.float32) @ (across_Cw > 0)
        for start in range(0, down_Rh.shape[1], _STRIP):
            strip_Rh = down_Rh[:, start : start + _STRIP]
            first = top + start
            part = np.s_[first : first + strip_Rh.shape[1], left : left + across_Cw.shape[1]]
            self._sum[part] += strip_Rh.T @ across_Rw
            self._said[part] |= (strip_Rh > 0).T.astype(np.float32) @ said_Rw > 0

    def map(self) -> NDArray[np.float32]:
        """Return the map, NaN where nothing was painted."""
        self._sum[~self._said] = np.nan
        return self._sum


def _coverage(spans: Sequence[Span], scale: float, count: int) -> tuple[int, NDArray[np.float64]]:
    """Return how much of each pixel each span covers, from 0 to 1, and the first such pixel.

    Args:
        spans: start and length of each, in pixels of level 0.
        scale: pixels of the map to one of level 0.
        count: pixels of the map along this axis.
    """
    ends = np.array([(start, start + length) for start, length in spans]) * scale
    ends = np.clip(ends, 0, count)
    first, last = int(np.floor(ends.min())), int(np.ceil(ends.max()))
    pixels = np.arange(first, last)
    cover = np.minimum(pixels + 1, ends[:, 1:]) - np.maximum(pixels, ends[:, :1])
    return first, np.where(cover > _ROUNDING, cover, 0.0)
