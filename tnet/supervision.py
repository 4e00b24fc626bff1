"""Teaching with boxes: where the evidence is known, glimpses and cells have labels of their own.

Optional; the learning rule needs image labels alone. P parent views, N cells, G glimpses.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet.geometry import Grid, Region
from tnet.trace import Trace

Boxes = Sequence[Sequence[Region]]


def glimpse_labels(trace: Trace, boxes: Boxes, label_B: Tensor, absent: int) -> Tensor:
    """Return each glimpse's own label, int64 (G,).

    A glimpse that shows the centre of a box has its image's label, any other one has ``absent``.

    Args:
        trace: the batch's walks.
        boxes: of each image, in pixels of level 0.
        label_B: int64 (B,), the images' labels.
        absent: the class of a view that shows no evidence, or -100 for no label at all.
    """
    centres = [_centres(mine) for mine in boxes]
    shows = torch.tensor(
        [_counts(Grid(1, 1, 1.0), v.region, centres[v.image]).any() for v in trace.visits],
        device=label_B.device,
    )
    return torch.where(shows, label_B[trace.image_G], absent)


def location_loss(trace: Trace, boxes: Boxes) -> Tensor:
    """Return the cross-entropy from where the boxes are to the location distributions, float ().

    Of each parent view that shows a box: a cell is worth as much as the number of box centres
    that it holds. A mean over these views; 0 where there is none.
    """
    centres = [_centres(mine) for mine in boxes]
    terms = []
    for choice in trace.choices:
        held_PN = np.stack(
            [
                _counts(choice.grid, trace.visits[p].region, centres[trace.visits[p].image])
                for p in choice.parents
            ]
            or [np.zeros(choice.grid.cells)]
        )
        target_PN = torch.from_numpy(held_PN).to(choice.logits_PN)[: len(choice.parents)]
        # A cell that may not be chosen, because it was seen before, cannot be taught.
        target_PN = target_PN.masked_fill(choice.logits_PN.isinf(), 0.0)
        total_P = target_PN.sum(dim=1)
        taught = total_P > 0
        log_p_PN = choice.logits_PN.log_softmax(dim=1).masked_fill(target_PN == 0, 0.0)
        terms.append(-((target_PN * log_p_PN).sum(dim=1)[taught] / total_P[taught]))
    losses = torch.cat(terms) if terms else trace.logits_BK.new_zeros(0)
    return losses.mean() if len(losses) else trace.logits_BK.new_zeros(())


def _centres(boxes: Sequence[Region]) -> NDArray[np.float64]:
    return np.array([[b.x + b.width / 2, b.y + b.height / 2] for b in boxes]).reshape(-1, 2)


def _counts(grid: Grid, parent: Region, centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many centres each candidate of a view holds, float64 (N,)."""
    rows, columns = (np.asarray(spans) for spans in grid.spans(parent))
    across, down = centres[:, 0, None], centres[:, 1, None]
    in_column = (across >= columns[:, 0]) & (across < columns.sum(axis=1))
    in_row = (down >= rows[:, 0]) & (down < rows.sum(axis=1))
    return (in_row.T.astype(np.float64) @ in_column).ravel()
