"""What lies inside the glimpses of a walk: a map for each, of the pixels that it was given.

(H, W) the view.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tnet.attention import grad_cam, soft_attention
from tnet.descent import Visit
from tnet.model import TNet
from tnet.plan import Plan
from tnet.record import Walk
from tnet.replaying import Pixels, visits_of

_LAST = -1  # stage


def has_soft_attention(model: TNet) -> bool:
    """Say whether the backbone, or a scout's, has an attention of its own that can be shown."""
    eyes = [model.backbone] if model.scout is None else [model.backbone, model.scout.backbone]
    return any(hasattr(module, "soft_attention") for eye in eyes for module in eye.modules())


def soft_maps(model: TNet, walk: Walk, pixels: Pixels) -> dict[int, NDArray[np.float32]]:
    """Return what the backbone itself lets through inside each glimpse, float32 (H, W).

    The modules of :func:`tnet.attention.soft_attention` all have the same say: each one's map is
    divided by its mean over the view and stretched over it, and the maps are averaged. So 1 is
    what is let through on average, and 2 twice as much.

    Args:
        model: that walked.
        walk: the record.
        pixels: what was looked at.

    Returns:
        Maps by the number of their glimpse; none of what has no attention, as where a scout that
        has none takes the first look.
    """
    found = {}
    for number, view_CHW, visit in _views(walk, pixels):
        maps = soft_attention(model, view_CHW, first=visit.level == 0)
        if maps:
            height, width = view_CHW.shape[1:]
            each = [_stretched(m / m.mean().clamp_min(1e-12), height, width) for m in maps.values()]
            found[number] = torch.stack(each).mean(dim=0).cpu().numpy()
    return found


def grad_cam_maps(
    model: TNet, walk: Walk, pixels: Pixels, target: int | str
) -> dict[int, NDArray[np.float32]]:
    """Return which pixels of each glimpse speak for a class, float32 (H, W), from 0 upwards.

    That of the last stage, see :func:`tnet.attention.grad_cam`, stretched over the view. The
    logit is that of the glimpse alone, at its place.

    Args:
        model: that walked.
        walk: the record.
        pixels: what was looked at.
        target: the class, by number or name.

    Returns:
        Maps by the number of their glimpse.

    Raises:
        UsageError: if there is no such class, the backbone gives no map, or captum is missing.
    """
    found = {}
    for number, view_CHW, visit in _views(walk, pixels):
        cam_hw = grad_cam(
            model, view_CHW, target, _LAST, position=visit.position, first=visit.level == 0
        )
        found[number] = _stretched(cam_hw, *view_CHW.shape[1:]).cpu().numpy()
    return found


def _views(walk: Walk, pixels: Pixels) -> Iterator[tuple[int, Tensor, Visit]]:
    """Give the glimpses that the network looked at: number, view (C, H, W), and the visit."""
    visits = visits_of(walk, Plan.from_dict(walk.plan))
    absent = len(walk.glimpses) - len(visits)
    views = (view for part in (pixels.first, pixels.views) for view in part)
    for number, (view_HWC, visit) in enumerate(zip(views, visits, strict=True), start=absent):
        yield number, torch.from_numpy(np.ascontiguousarray(view_HWC)).permute(2, 0, 1), visit


def _stretched(map_hw: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(map_hw[None, None].float(), (height, width), mode="bilinear")[0, 0]
