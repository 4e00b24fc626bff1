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

from tnet.candidates import boxes_of, located, one_of_each, touching, unseen
from tnet.errors import UsageError
from tnet.geometry import Grid, Region
from tnet.plan import Plan
from tnet.pyramid import Pyramid
from tnet.sampling import Policy, choose, marginal_log_probs, plackett_luce_log_probs, scores

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
        return cls(pyramids, plan, policy, roots, [boxes_of([r]) for r in roots], generators)


def root(pyramid: Pyramid, plan: Plan, image: int) -> Visit:
    """Return the first visit of an image: all of it."""
    width, height = float(pyramid.width), float(pyramid.height)
    region = Region(0.0, 0.0, width, height)
    view = plan.view_at(0)
    if plan.aspect == "keep":
        scale = max(width / view[0], height / view[1])
        wide, high = scale * view[0], scale * view[1]
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
    regions: list[list[Region]] = []
    for p, visit in enumerate(front):
        boxes_N4 = located(
            visit.region, grid, plan, journey.pyramids[visit.image], valid_below(visit, plan)
        )
        shares_N = None if shares_PN is None else shares_PN[p]
        allowed_N = _allowed(visit, grid, boxes_N4, shares_N, host_PN[p], journey)
        allowed_PN[p] = torch.from_numpy(allowed_N)
        row_N = host_PN[p].masked_fill(~allowed_PN[p], -math.inf)
        cells: list[int] = []
        if allowed_N.any():
            generator = journey.generators[visit.image]
            cells = choose(scores(row_N, journey.policy, generator), step.glimpses)
        drawn.append(cells)
        chances.append(row_N.softmax(dim=0)[cells].tolist())
        regions.append([Region(*boxes_N4[cell].tolist()) for cell in cells])
        _remember(journey, visit.image, regions[-1])
        if len(journey.seen[visit.image]) > MOST_GLIMPSES:
            raise UsageError(
                f"the plan would look at more than {MOST_GLIMPSES:,} regions of one image; take "
                "fewer glimpses a view, or end at a coarser resolution"
            )
    masked_PN = logits_PN.masked_fill(~allowed_PN.to(logits_PN.device), -math.inf)
    visits, order = _visits(front, first, drawn, chances, regions, grid, journey)
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
    journey.seen[image] = np.concatenate([journey.seen[image], boxes_of(regions)])


def _allowed(
    visit: Visit,
    grid: Grid,
    boxes_N4: NDArray[np.float64],
    shares_N: NDArray[np.float64] | None,
    logits_N: Tensor,
    journey: Journey,
) -> NDArray[np.bool_]:
    """Return which candidates of a view may be chosen, bool (N,)."""
    plan, pyramid = journey.plan, journey.pyramids[visit.image]
    if plan.fine_enough(visit.region, pyramid.mpp, visit.level):
        return np.zeros(grid.cells, dtype=bool)
    allowed = touching(visit.region, grid, pyramid)
    if not plan.revisit:
        allowed &= unseen(boxes_N4, journey.seen[visit.image])
    if shares_N is not None and plan.background is not None:
        allowed &= shares_N >= plan.background
    if plan.snap and not plan.revisit and allowed.any():
        # Regions that were moved may have come to lie on one another.
        row_N = logits_N.masked_fill(~torch.from_numpy(allowed), -math.inf)
        allowed = one_of_each(boxes_N4, choose(scores(row_N, "greedy", None), grid.cells))
    return allowed


def valid_below(visit: Visit, plan: Plan) -> Region | None:
    """Return what of the image the candidates of a view may show; None for all of it."""
    if plan.outside == "image":
        return None
    valid = visit.region if visit.valid is None else visit.valid
    return valid.intersection(visit.region) or valid


def _visits(
    front: Sequence[Visit],
    first: int,
    drawn: Sequence[Sequence[int]],
    chances: Sequence[Sequence[float]],
    regions: Sequence[Sequence[Region]],
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
            region = regions[p][rank]
            position = _position(visit, (row, column), grid, region, journey)
            visits.append(
                Visit(
                    visit.image,
                    visit.level + 1,
                    region,
                    valid_below(visit, journey.plan),
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
    return centre_of(region, journey.roots[visit.image])


def centre_of(region: Region, top: Region) -> tuple[float, float, float]:
    """Return a region's centre and scale (y, x, scale) as seen from an image's first region.

    y and x go from 0 to 100 across the first region; the scale is 1 for half of its sides.
    """
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
