"""One step down: from the views of a level to the regions of the next.

P parent views, N cells of the grid, k cells chosen of each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet.errors import UsageError
from tnet.geometry import Grid, Region
from tnet.plan import Plan
from tnet.pyramid import Pyramid
from tnet.sampling import Policy, choose, marginal_log_probs, plackett_luce_log_probs, scores

# Two regions are the same when they agree to a thousandth of a pixel of level 0.
_SAME = 1e-3

# Of one image; a plan that takes more looks everywhere, and would rather be a sliding window.
MOST_GLIMPSES = 65_536


@dataclass(slots=True)
class Visit:
    """A region that is looked at, and how it came to be chosen.

    Attributes:
        image: index of the image in the batch.
        level: 0 for the first look.
        region: in pixels of level 0.
        valid: what of the image it may show; None for all of it.
        position: (y, x, scale), see :attr:`tnet.plan.Plan.positions`.
        parent: index, in the whole trace, of the visit it was chosen from.
        cell: its cell in the parent's grid, with ``row`` and ``column``.
        probability: of the cell, among those that could be chosen.
        rank: order of the draw among its siblings.
    """

    image: int
    level: int
    region: Region
    valid: Region | None
    position: tuple[float, float, float]
    parent: int | None = None
    cell: int | None = None
    row: int | None = None
    column: int | None = None
    probability: float = 1.0
    rank: int = 0


@dataclass
class Choice:
    """What one level chose: the next visits and the log-probabilities of the draws.

    Attributes:
        visits: the next level's, image by image, parent by parent, cells in raster order.
        log_prob: float (G,), of each draw given the ones before it (Plackett-Luce).
        marginal: float (G,), log(p + 1e-10) of each cell, as the released code has it.
        logits_PN: those of all parents, minus infinity where a cell could not be chosen.
        parents: index, in the whole trace, of each row of ``logits_PN``.
        grid: the candidates.
    """

    visits: list[Visit]
    log_prob: Tensor
    marginal: Tensor
    logits_PN: Tensor
    parents: list[int]
    grid: Grid


@dataclass
class Journey:
    """What stays the same over the levels of a batch's walk, and what each image has shown.

    Attributes:
        pyramids: the images.
        plan: the walk's.
        policy: how cells are chosen.
        roots: each image's first region.
        seen: each image's regions so far: x, y, width, height, float64 (n, 4).
        generators: each image's source of chance; None where nothing is drawn.
    """

    pyramids: Sequence[Pyramid]
    plan: Plan
    policy: Policy
    roots: list[Region]
    seen: list[NDArray[np.float64]]
    generators: list[torch.Generator | None]

    @classmethod
    def start(
        cls,
        pyramids: Sequence[Pyramid],
        plan: Plan,
        policy: Policy,
        generators: list[torch.Generator | None],
    ) -> "Journey":
        """Return a journey on which each image has shown its first region alone."""
        roots = [root(pyramid, plan, image).region for image, pyramid in enumerate(pyramids)]
        return cls(pyramids, plan, policy, roots, [_boxes([r]) for r in roots], generators)


def root(pyramid: Pyramid, plan: Plan, image: int) -> Visit:
    """Return the first visit of an image: all of it."""
    width, height = float(pyramid.width), float(pyramid.height)
    region = Region(0.0, 0.0, width, height)
    if plan.aspect == "keep":
        scale = max(width / plan.view[0], height / plan.view[1])
        wide, high = scale * plan.view[0], scale * plan.view[1]
        region = Region((width - wide) / 2, (height - high) / 2, wide, high)
    position = (0.0, 0.0, 0.0) if plan.positions == "cells" else (50.0, 50.0, 0.0)
    return Visit(image, 0, region, None, position)


def descend(
    front: Sequence[Visit],
    first: int,
    logits_PN: Tensor,
    shares_PN: NDArray[np.float64] | None,
    journey: Journey,
) -> Choice:
    """Choose the next level's regions.

    Args:
        front: the visits of this level.
        first: index, in the whole trace, of ``front[0]``.
        logits_PN: float (P, N), one row a visit.
        shares_PN: float64 (P, N), how much of each candidate is foreground; None does not ask.
        journey: the batch's; what is chosen is added to what it has seen.
    """
    plan = journey.plan
    step = plan.step(front[0].level)
    assert step is not None
    grid = step.grid(plan.rule)
    host_PN = logits_PN.detach().double().cpu()
    allowed_PN = torch.zeros(logits_PN.shape, dtype=torch.bool)
    drawn: list[list[int]] = []
    chances: list[list[float]] = []
    for p, visit in enumerate(front):
        allowed_N = _allowed(visit, grid, journey)
        if shares_PN is not None and plan.background is not None:
            allowed_N &= shares_PN[p] >= plan.background
        allowed_PN[p] = torch.from_numpy(allowed_N)
        row_N = host_PN[p].masked_fill(~allowed_PN[p], -math.inf)
        cells: list[int] = []
        if allowed_N.any():
            generator = journey.generators[visit.image]
            cells = choose(scores(row_N, journey.policy, generator), step.glimpses)
        drawn.append(cells)
        chances.append(row_N.softmax(dim=0)[cells].tolist())
        _remember(journey, visit.image, [grid.child(visit.region, cell) for cell in cells])
        if len(journey.seen[visit.image]) > MOST_GLIMPSES:
            raise UsageError(
                f"the plan would look at more than {MOST_GLIMPSES:,} regions of one image; take "
                "fewer glimpses a view, or end at a coarser resolution"
            )
    masked_PN = logits_PN.masked_fill(~allowed_PN.to(logits_PN.device), -math.inf)
    visits, order = _visits(front, first, drawn, chances, grid, journey)
    index = torch.tensor(order, dtype=torch.int64, device=masked_PN.device)
    log_prob, marginal = (values[index] for values in _log_probs(masked_PN, drawn))
    choosers = [p for p, cells in enumerate(drawn) if cells]
    return Choice(
        visits,
        log_prob,
        marginal,
        masked_PN[choosers],
        [first + p for p in choosers],
        grid,
    )


def _remember(journey: Journey, image: int, regions: Sequence[Region]) -> None:
    journey.seen[image] = np.concatenate([journey.seen[image], _boxes(regions)])


def _boxes(regions: Sequence[Region]) -> NDArray[np.float64]:
    """Return x, y, width, height of each region, float64 (n, 4)."""
    return np.array([[r.x, r.y, r.width, r.height] for r in regions]).reshape(-1, 4)


def _allowed(visit: Visit, grid: Grid, journey: Journey) -> NDArray[np.bool_]:
    """Return which candidates of a view may be chosen, bool (N,), whatever they show."""
    plan, pyramid = journey.plan, journey.pyramids[visit.image]
    if plan.fine_enough(visit.region, pyramid.mpp):
        return np.zeros(grid.cells, dtype=bool)
    allowed = _inside(visit.region, grid, pyramid)
    if not plan.revisit:
        allowed &= ~_seen(visit.region, grid, journey.seen[visit.image])
    return allowed


def _inside(parent: Region, grid: Grid, pyramid: Pyramid) -> NDArray[np.bool_]:
    """Return which candidates touch the image at all, bool (N,)."""
    rows, columns = (np.asarray(spans) for spans in grid.spans(parent))
    down = (rows[:, 0] < pyramid.height) & (rows.sum(axis=1) > 0)
    across = (columns[:, 0] < pyramid.width) & (columns.sum(axis=1) > 0)
    return np.logical_and.outer(down, across).ravel()


def _seen(parent: Region, grid: Grid, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which candidates have been looked at already, bool (N,)."""
    rows, columns = grid.spans(parent)
    taken = np.zeros((grid.rows, grid.columns), dtype=bool)
    size = [columns[0][1], rows[0][1]]
    for x, y, _, _ in boxes[(np.abs(boxes[:, 2:] - size) < _SAME).all(axis=1)]:
        at_row = np.abs(np.array([top for top, _ in rows]) - y) < _SAME
        at_column = np.abs(np.array([left for left, _ in columns]) - x) < _SAME
        taken |= np.logical_and.outer(at_row, at_column)
    return taken.ravel()


def _visits(
    front: Sequence[Visit],
    first: int,
    drawn: Sequence[Sequence[int]],
    chances: Sequence[Sequence[float]],
    grid: Grid,
    journey: Journey,
) -> tuple[list[Visit], list[int]]:
    """Return the next visits, and where each one's draw stands in the order of all draws."""
    visits, order, start = [], [], 0
    for p, (visit, cells) in enumerate(zip(front, drawn, strict=True)):
        # Raster order, not the order of the draw, as in the released code.
        for rank in sorted(range(len(cells)), key=lambda j: cells[j]):
            cell = cells[rank]
            row, column = grid.row_column(cell)
            region = grid.child(visit.region, cell)
            valid = None
            if journey.plan.outside == "zero":
                valid = visit.region if visit.valid is None else visit.valid
                valid = valid.intersection(visit.region) or valid
            position = _position(visit, (row, column), grid, region, journey)
            visits.append(
                Visit(
                    visit.image,
                    visit.level + 1,
                    region,
                    valid,
                    position,
                    parent=first + p,
                    cell=cell,
                    row=row,
                    column=column,
                    probability=chances[p][rank],
                    rank=rank,
                )
            )
            order.append(start + rank)
        start += len(cells)
    return visits, order


def _position(
    visit: Visit,
    cell: tuple[int, int],
    grid: Grid,
    region: Region,
    journey: Journey,
) -> tuple[float, float, float]:
    """Return (y, x, scale) of a child at ``cell`` (row, column) of a visit's grid."""
    if journey.plan.positions == "cells":
        row, column = cell
        y, x, scale = visit.position
        return (y * grid.rows + row, x * grid.columns + column, scale + 1)
    top = journey.roots[visit.image]
    return (
        100 * (region.y + region.height / 2 - top.y) / top.height,
        100 * (region.x + region.width / 2 - top.x) / top.width,
        0.5 * math.log2(top.area / region.area),
    )


def _log_probs(masked_PN: Tensor, drawn: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return the draws' conditional and marginal log-probabilities, each float (G,)."""
    found: list[tuple[int, Tensor]] = []
    # Parents that drew equally many cells are reckoned together; nearly always all of them.
    for count in sorted({len(cells) for cells in drawn} - {0}):
        rows = [p for p, cells in enumerate(drawn) if len(cells) == count]
        cells_Pk = torch.tensor([drawn[p] for p in rows], device=masked_PN.device)
        logits_Pn = masked_PN[rows]
        columns = (
            plackett_luce_log_probs(logits_Pn, cells_Pk),
            marginal_log_probs(logits_Pn, cells_Pk),
        )
        found.extend(zip(rows, torch.stack(columns, dim=2), strict=True))
    found.sort(key=lambda row: row[0])
    table_G2 = torch.cat([masked_PN.new_zeros(0, 2), *(values for _, values in found)])
    ordered, marginal = table_G2.unbind(dim=1)
    return ordered, marginal
