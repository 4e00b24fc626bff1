"""Replay: the pixels that a walk looked at, kept, and the answer recomputed from them alone.

G glimpses that the network looked at, (H, W) a view, C bands, D features, K classes.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet.descent import Visit, centre_of, valid_below
from tnet.errors import DataError, UsageError, counted
from tnet.inference import inferring
from tnet.model import TNet
from tnet.observe import shown
from tnet.plan import Plan
from tnet.pyramid import Pyramid
from tnet.record import Walk

_AT_ONCE = 32  # views


@dataclass(frozen=True, eq=False)
class Pixels:
    """All that a network was given of an image, before its normalisation.

    Attributes:
        first: (1, H, W, C), the first look; (0, H, W, C) where there was none.
        views: (G, H, W, C), the other glimpses, in the walk's order. Both are uint8, or float32,
            in which missing pixels are NaN.
    """

    first: NDArray[Any]
    views: NDArray[Any]

    def to_bytes(self) -> bytes:
        """Return the content of an .npz file with the arrays ``first`` and ``views``."""
        file = io.BytesIO()
        np.savez_compressed(file, first=self.first, views=self.views)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Pixels":
        """Return what :meth:`to_bytes` made a file of.

        Raises:
            DataError: if it is no such file.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return cls(arrays["first"], arrays["views"])
        except Exception as error:  # whatever zipfile, zlib and numpy make of a damaged file
            raise DataError(f"these are no pixels of a walk: {error}") from error


def pixels_of(model: TNet, walk: Walk, pyramid: Pyramid) -> Pixels:
    """Return what the network was given on a walk; the glimpses are read once more.

    Args:
        model: that walked; it says what lies beyond a parent's border.
        walk: the record.
        pyramid: the image, opened the same way.

    Raises:
        DataError: if the image cannot be read.
    """
    plan = Plan.from_dict(walk.plan)
    visits = visits_of(walk, plan)
    tops = [visit for visit in visits if visit.level == 0]
    deeper = [visit for visit in visits if visit.level > 0]
    found = []
    for part in (tops, deeper):
        across, down = plan.view_at(0 if part is tops else 1)
        none = np.empty((0, down, across, pyramid.bands), pyramid.dtype)
        found.append(shown(model, [pyramid], part, plan) if part else none)
    return Pixels(*found)


def features_of(model: TNet, walk: Walk, pixels: Pixels) -> NDArray[np.float32]:
    """Return the placed features of a walk's glimpses from its pixels, float32 (T, D).

    What the network did not look at, the whole image of a plan of tiles, has a feature of zeros.

    Args:
        model: that walked.
        walk: the record.
        pixels: what was looked at.

    Raises:
        DataError: if the pixels are not those of this walk, or not fit for the model.
    """
    visits = visits_of(walk, Plan.from_dict(walk.plan))
    _check(model, walk, pixels, len(visits))
    parts: list[Tensor] = []
    with inferring(model):
        for views, first in ((pixels.first, True), (pixels.views, False)):
            for start in range(0, len(views), _AT_ONCE):
                view = torch.from_numpy(np.ascontiguousarray(views[start : start + _AT_ONCE]))
                view_MCHW = view.to(model.device).permute(0, 3, 1, 2)
                parts.append(model.look(view_MCHW, first).feature)
        position_G3 = torch.tensor([visit.position for visit in visits], device=model.device)
        placed = model.place(torch.cat(parts), position_G3).float().cpu().numpy()
    absent = len(walk.glimpses) - len(visits)
    return np.concatenate([np.zeros_like(placed[:absent]), placed])


def replay(model: TNet, walk: Walk, pixels: Pixels) -> NDArray[np.float64]:
    """Return the logits that a walk's pixels lead to, float64 (K,), and nothing but these pixels.

    They are the walk's own, up to the rounding of differently batched views, if this is the model
    that walked. Arguments and exceptions are those of :func:`features_of`.
    """
    feature_TD = torch.from_numpy(features_of(model, walk, pixels)).to(model.device)
    level_T = torch.tensor([glimpse.level for glimpse in walk.glimpses], device=model.device)
    there_T = torch.ones(len(level_T), dtype=torch.bool, device=model.device)
    there_T[0] = walk.first_view != (0, 0)
    with inferring(model):
        logits_1K, _, _ = model.classify(feature_TD[None], there_T[None], level_T[None])
    return logits_1K[0].double().cpu().numpy()


def _check(model: TNet, walk: Walk, pixels: Pixels, count: int) -> None:
    if len(pixels.first) + len(pixels.views) != count:
        raise DataError(
            f"{walk.image}: the walk looked at {counted(count, 'view')} and there are "
            f"{len(pixels.first) + len(pixels.views)}; take the pixels that belong to it"
        )
    bands = {array.shape[-1] for array in (pixels.first, pixels.views)}
    if bands != {model.expects.bands} or model.classes != walk.classes:
        raise UsageError(f"{walk.image}: another model walked here; take that one")


def visits_of(walk: Walk, plan: Plan) -> list[Visit]:
    """Return what the network looked at, as the walk's own visits were."""
    top = walk.glimpses[0].region
    start = (50.0, 50.0, 0.0) if plan.positions == "centres" else (0.0, 0.0, 0.0)
    visits = [Visit(0, 0, top, None, start)]
    for glimpse in walk.glimpses[1:]:
        assert glimpse.parent is not None
        parent = visits[glimpse.parent]
        place = centre_of(glimpse.region, top)
        if plan.positions == "cells":
            place = _cell(glimpse.row or 0, glimpse.column or 0, parent, plan)
        valid = None if plan.tiles is not None else valid_below(parent, plan)
        visits.append(Visit(0, glimpse.level, glimpse.region, valid, place))
    return visits if plan.tiles is None else visits[1:]


def _cell(row: int, column: int, parent: Visit, plan: Plan) -> tuple[float, float, float]:
    """Return the position of a cell by its integer coordinates."""
    step = plan.step(parent.level)
    if plan.tiles is not None or step is None:
        return float(row), float(column), 1.0
    y, x, scale = parent.position
    return y * step.rows + row, x * step.columns + column, scale + 1
