"""Every tile of an image instead of a walk: the baseline that a walk is measured against.

Tiles lie side by side from the image's upper left corner, each as large as a view shows at the
plan's resolution. Which of them show something is seen from an overview, read in strips; the
network looks at these alone. Pixels and views of a micro-batch are all that is in memory of the
tiles at once; what remains of each is its feature.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tnet.aggregate import LevelFusion
from tnet.background import foreground
from tnet.descent import Visit, centre_of, root
from tnet.errors import UsageError
from tnet.geometry import Region
from tnet.memory import Memory
from tnet.model import TNet
from tnet.observe import observe
from tnet.plan import Plan
from tnet.pyramid import Pyramid
from tnet.trace import Trace, conclude

# Of one image; their features alone would fill the memory of most machines.
MOST_TILES = 2**18

_SIDE = 8  # pixels of the overview to a side of a tile
_STRIP = 2**22  # pixels of the overview that are read at once


def over_tiles(
    model: TNet,
    pyramids: Sequence[Pyramid],
    plan: Plan,
    *,
    micro_batch: int | None,
    memory: Memory | None = None,
    draws: Sequence[torch.Generator | None] = (),
) -> Trace:
    """Look at every tile of each image that has foreground, and classify.

    The trace holds the tiles alone, all of level 1 and without a parent, row by row.

    Args:
        model: looks and classifies.
        pyramids: the images.
        plan: says how large tiles are, and how much of one must be foreground.
        micro_batch: views in memory and in the backbone at once; None is all of them.
        memory: of looks.
        draws: one an image, where the plan looks at a share of the tiles.

    Raises:
        UsageError: if an image has too many tiles, or the model cannot do with one level.
        DataError: if the plan is in µm per px and an image does not know its scale.
    """
    if isinstance(model.aggregate, LevelFusion):
        raise UsageError(
            "tiles are all of one level and the model's aggregate fuses levels; take 'attention', "
            "'weighting' or 'mean'"
        )
    visits: list[Visit] = []
    empty: list[bool] = []
    for image, pyramid in enumerate(pyramids):
        mine, nothing = tile_visits(pyramid, plan, image)
        visits.extend(mine if plan.tiles_share == 1 else _some(mine, plan, draws[image]))
        empty.append(nothing)
    level = observe(
        model, pyramids, visits, None, plan=plan, micro_batch=micro_batch, memory=memory
    )
    look_GD = torch.cat(level.look)
    level.look.clear()  # lest the features be there twice
    return conclude(model, visits, look_GD, [], empty)


def _some(visits: list[Visit], plan: Plan, draw: torch.Generator | None) -> list[Visit]:
    """Return a share of an image's tiles, drawn at random, in their order; at least one."""
    count = max(1, round(plan.tiles_share * len(visits)))
    chosen = torch.randperm(len(visits), generator=draw)[:count]
    return [visits[i] for i in chosen.sort().values.tolist()]


def tile_visits(pyramid: Pyramid, plan: Plan, image: int) -> tuple[list[Visit], bool]:
    """Return the visits of an image's tiles, row by row, and whether it is all background.

    Where no tile has enough foreground, the one with the most is looked at alone.

    Args:
        pyramid: the image.
        plan: with tiles.
        image: its index in the batch.
    """
    width, height = plan.tile(pyramid.mpp)
    # What sticks out by rounding alone makes no further tile.
    columns = max(1, math.ceil(pyramid.width / width - 1e-6))
    rows = max(1, math.ceil(pyramid.height / height - 1e-6))
    least = plan.background or 0.0
    wanted: list[int] = []
    best, most, before = 0, -1.0, 0
    for shares in _shares(pyramid, plan, (width, height), (rows, columns)):
        wanted.extend((before + np.flatnonzero(shares >= least)).tolist())
        if shares.max() > most:
            best, most = before + int(shares.argmax()), float(shares.max())
        before += len(shares)
        if len(wanted) > MOST_TILES:
            raise UsageError(
                f"{pyramid.name}: has more than {MOST_TILES:,} tiles of {width:g} x {height:g} "
                "pixels; take tiles of a coarser resolution, or a larger view"
            )
    top = root(pyramid, plan, image).region
    visits = []
    for tile in wanted or [best]:
        row, column = divmod(tile, columns)
        region = Region(column * width, row * height, width, height)
        place = centre_of(region, top) if plan.positions == "centres" else (row, column, 1.0)
        visits.append(Visit(image, 1, region, None, place, cell=tile, row=row, column=column))
    return visits, most < least or most == 0


def _shares(
    pyramid: Pyramid, plan: Plan, tile: tuple[float, float], grid: tuple[int, int]
) -> Iterator[NDArray[np.float64]]:
    """Yield how much of each tile is foreground, float64, some rows of tiles at a time.

    Args:
        pyramid: the image.
        plan: if it does not ask for foreground, nothing is read and every tile counts as full.
        tile: width and height of one, in pixels of level 0.
        grid: rows and columns of tiles.
    """
    rows, columns = grid
    at_once = max(1, _STRIP // (columns * _SIDE**2))
    for row in range(0, rows, at_once):
        count = min(at_once, rows - row)
        if plan.background is None:
            yield np.ones(count * columns)
            continue
        strip = Region(0.0, row * tile[1], columns * tile[0], count * tile[1])
        view = pyramid.read(strip, (columns * _SIDE, count * _SIDE))
        seen = foreground(view, pyramid).reshape(count, _SIDE, columns, _SIDE)
        yield seen.mean(axis=(1, 3)).ravel()
