"""What a view offers to look at next: where its candidates lie, and which may be chosen.

N candidates, n regions seen so far.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tnet.geometry import Grid, Region
from tnet.plan import Plan
from tnet.pyramid import Pyramid
from tnet.snapping import snapped

# Two regions are the same when they agree to a thousandth of a pixel of level 0.
_SAME = 1e-3


def boxes_of(regions: Sequence[Region]) -> NDArray[np.float64]:
    """Return x, y, width, height of each region, float64 (n, 4)."""
    return np.array([[r.x, r.y, r.width, r.height] for r in regions]).reshape(-1, 4)


def located(
    parent: Region, grid: Grid, plan: Plan, pyramid: Pyramid, valid: Region | None
) -> NDArray[np.float64]:
    """Return where candidates would be looked at: x, y, width, height, float64 (N, 4).

    Args:
        parent: the region that the view shows.
        grid: its candidates, all of one size.
        plan: says how far they may be moved.
        pyramid: the image.
        valid: what of the image they may show; None for all of it.
    """
    image = Region(0.0, 0.0, pyramid.width, pyramid.height)
    frame = image if valid is None else image.intersection(valid) or image
    return snapped(grid.spans(parent), plan.snap, plan.view, pyramid.levels, frame)


def touching(parent: Region, grid: Grid, pyramid: Pyramid) -> NDArray[np.bool_]:
    """Return which candidates touch the image at all, bool (N,)."""
    rows, columns = (np.asarray(spans) for spans in grid.spans(parent))
    down = (rows[:, 0] < pyramid.height) & (rows.sum(axis=1) > 0)
    across = (columns[:, 0] < pyramid.width) & (columns.sum(axis=1) > 0)
    return np.logical_and.outer(down, across).ravel()


def unseen(boxes_N4: NDArray[np.float64], seen_n4: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which candidates, all of one size, have not been looked at, bool (N,)."""
    taken = np.zeros(len(boxes_N4), dtype=bool)
    alike = (np.abs(seen_n4[:, 2:] - boxes_N4[0, 2:]) < _SAME).all(axis=1)
    # Of the many regions that an image may have shown, few lie in this view.
    low, high = boxes_N4[:, :2].min(axis=0) - _SAME, boxes_N4[:, :2].max(axis=0) + _SAME
    alike &= ((seen_n4[:, :2] > low) & (seen_n4[:, :2] < high)).all(axis=1)
    for place in seen_n4[alike, :2]:
        taken |= (np.abs(boxes_N4[:, :2] - place) < _SAME).all(axis=1)
    return ~taken


def one_of_each(boxes_N4: NDArray[np.float64], ranked: Sequence[int]) -> NDArray[np.bool_]:
    """Return which candidates may be chosen if no two may be the same region, bool (N,).

    Of those that came to lie on the same place, the best stands for all.

    Args:
        boxes_N4: x, y, width, height of candidates of one size.
        ranked: those that may be chosen at all, the best first.
    """
    x, y = (_places(boxes_N4[:, axis]) for axis in (0, 1))
    order = np.asarray(ranked, dtype=np.int64)
    _, first = np.unique((y * len(boxes_N4) + x)[order], return_index=True)
    alone = np.zeros(len(boxes_N4), dtype=bool)
    alone[order[first]] = True
    return alone


def _places(starts: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number the places where candidates start, those that differ by rounding alone alike."""
    order = np.argsort(starts)
    places = np.empty(len(starts), dtype=np.int64)
    places[order] = np.cumsum(np.diff(starts[order], prepend=starts[order[:1]]) > _SAME)
    return places
