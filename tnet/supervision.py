"""Teaching with boxes: where the evidence is known, glimpses and cells have labels of their own.

Optional; the learning rule needs image labels alone. P parent views, N cells in R rows and K
columns, G glimpses, Q boxes of an image.
"""

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet.descent import Visit
from tnet.geometry import Grid, Region
from tnet.sampling import whole
from tnet.trace import Trace

Boxes = Sequence[Sequence[Region]]

# A little below one half, for boxes that end in the middle of a cell but for rounding.
_HALF = 0.5 - 1e-9


def glimpse_labels(trace: Trace, boxes: Boxes, label: Tensor, absent: int) -> Tensor:
    """Return each glimpse's own label, int64 (G,), or float (G, classes) with several.

    A glimpse that shows a box has its image's label, any other one has ``absent``. What shows a
    box is what :func:`location_loss` teaches.

    Args:
        trace: the batch's walks.
        boxes: of each image, in pixels of level 0.
        label: the images' labels, int64 (B,) or float (B, classes).
        absent: the class of a view that shows no evidence, or -100 for no label at all. With
            several labels an image any number from 0 says that no class is present.
    """
    held_GN = _held(Grid(1, 1, 1.0), list(trace.visits), boxes)
    shows_G = torch.from_numpy(held_GN[:, 0] > 0).to(label.device)
    if label.ndim == 2:
        nothing = label.new_full((), min(absent, 0))
        return torch.where(shows_G[:, None], label[trace.image_G], nothing)
    return torch.where(shows_G, label[trace.image_G], absent)


def location_loss(trace: Trace, boxes: Boxes) -> Tensor:
    """Return the cross-entropy from where the boxes are to the location distributions, float ().

    Of each parent view that shows a box: a cell is worth as much as the number of boxes that it
    shows, and shows a box if it holds its centre, or at least half of the smaller of both
    areas. The centre finds small boxes that lie across the border of cells; the area finds all
    cells of a box that is larger than one, such as a part of a mask. A mean over these views; 0
    where there is none.
    """
    terms = []
    for choice in trace.choices:
        parents = [trace.visits[p] for p in choice.parents]
        logits_PN = whole(choice.logits_PN)
        target_PN = torch.from_numpy(_held(choice.grid, parents, boxes)).to(logits_PN)
        # A cell that may not be chosen, because it was seen before, cannot be taught.
        target_PN = target_PN.masked_fill(logits_PN.isinf(), 0.0)
        total_P = target_PN.sum(dim=1)
        taught = total_P > 0
        log_p_PN = logits_PN.log_softmax(dim=1).masked_fill(target_PN == 0, 0.0)
        terms.append(-((target_PN * log_p_PN).sum(dim=1)[taught] / total_P[taught]))
    losses = torch.cat(terms) if terms else trace.logits_BK.new_zeros(0)
    return losses.mean() if len(losses) else trace.logits_BK.new_zeros(())


def found_boxes(trace: Trace, boxes: Boxes) -> NDArray[np.int64]:
    """Return how many boxes the glimpses of each level found, int64 (levels,), from level 1.

    A level found a box if one of its glimpses holds the box's centre.
    """
    levels = max((visit.level for visit in trace.visits), default=0)
    found = np.zeros(levels, dtype=np.int64)
    for level in range(1, levels + 1):
        for image, mine in enumerate(boxes):
            seen = [v.region for v in trace.visits if (v.image, v.level) == (image, level)]
            if seen and mine:
                x, y, width, height = np.array([astuple(r) for r in seen]).T[:, None]
                across, down = _centres(mine).T[:, :, None]
                inside = (across >= x) & (across < x + width)
                inside &= (down >= y) & (down < y + height)
                found[level - 1] += int(inside.any(axis=1).sum())
    return found


def _centres(boxes: Sequence[Region]) -> NDArray[np.float64]:
    """Return (x, y) of the boxes' centres, float64 (boxes, 2)."""
    return np.array([[b.x + b.width / 2, b.y + b.height / 2] for b in boxes]).reshape(-1, 2)


def _held(grid: Grid, parents: Sequence[Visit], boxes: Boxes) -> NDArray[np.float64]:
    """Return how many boxes each candidate of each view shows, float64 (P, N)."""
    held_PN = np.zeros((len(parents), grid.cells))
    for p, parent in enumerate(parents):
        if boxes[parent.image]:
            held_PN[p] = _counts(grid, parent.region, boxes[parent.image])
    return held_PN


def _counts(grid: Grid, parent: Region, boxes: Sequence[Region]) -> NDArray[np.float64]:
    """Return how many boxes each candidate of a view shows, float64 (N,)."""
    rows, columns = (np.asarray(spans) for spans in grid.spans(parent))
    box_4Q1 = np.array([astuple(box) for box in boxes]).T[:, :, None]
    x, y, width, height = box_4Q1
    across, in_column = _along(x, width, columns)
    down, in_row = _along(y, height, rows)
    overlap_QRK = down[:, :, None] * across[:, None, :]
    cell_RK = rows[:, None, 1] * columns[None, :, 1]
    smaller_QRK = np.minimum(cell_RK[None], (width * height)[:, :, None])
    shown_QRK = in_row[:, :, None] & in_column[:, None, :]
    shown_QRK |= overlap_QRK >= _HALF * smaller_QRK
    return shown_QRK.sum(axis=0, dtype=np.float64).ravel()


def _along(
    start_Q1: NDArray[np.float64], side_Q1: NDArray[np.float64], spans_C2: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return along one axis how long boxes and cells overlap, and which hold a box's centre.

    Args:
        start_Q1: origins of the boxes.
        side_Q1: their lengths.
        spans_C2: origin and length of each row or column.
    """
    begin_C, end_C = spans_C2[:, 0], spans_C2.sum(axis=1)
    overlap_QC = np.minimum(start_Q1 + side_Q1, end_C) - np.maximum(start_Q1, begin_C)
    centre_Q1 = start_Q1 + side_Q1 / 2
    return overlap_QC.clip(0), (centre_Q1 >= begin_C) & (centre_Q1 < end_C)
