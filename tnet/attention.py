"""Where inside a glimpse a class is seen, and how much of that lies on the object.

Grad-CAM for a stage of any convolutional backbone, the soft attention of the families that have
one, and the DAS paper's sfd score of a map.
C bands, K classes, (h, w) the stage's map, (H, W) the view.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tnet.backbones.generic import TimmBackbone
from tnet.errors import UsageError
from tnet.inference import evaluating, inferring
from tnet.model import TNet

_WHOLE_IMAGE = {"cells": (0.0, 0.0, 0.0), "centres": (50.0, 50.0, 0.0)}


def grad_cam(
    model: nn.Module,
    view_CHW: Tensor,
    target: int | str,
    stage: int | str,
    *,
    position: tuple[float, float, float] | None = None,
    first: bool = False,
) -> Tensor:
    """Return which pixels of a stage's map speak for a class: float (h, w), from 0 upwards.

    ReLU(sum_k a_k A_k), A_k the stage's channels and a_k the mean over the map's pixels of the
    gradient of the class's logit with respect to A_k. Source: Grad-CAM (Selvaraju et al., ICCV
    2017), eqs. 1 and 2. The model is looked at as it is at inference, and left as it was.

    Args:
        model: a TNet, whose logit is then that of this one glimpse; or any network that turns
            views (1, C, H, W) into logits (1, K).
        view_CHW: (C, H, W); pixels of any dtype for a TNet, the network's normalised input for
            another model.
        target: number of the class; for a TNet also its name.
        stage: place in the ``feature_info`` of a timm backbone (-1 the last), or the name of a
            module of the backbone. Deeper maps see more and say less exactly where.
        position: (y, x, scale) of the glimpse, for a TNet; None for the whole image's.
        first: whether the view is a first look, which a TNet's scout takes where there is one.

    Raises:
        UsageError: if there is no such class or stage, or the stage gives no map.
    """
    attribution = _captum()
    index = _class(model, target)
    layer = _layer(model, stage, first)
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        weight = next(model.parameters())
        # A view that asks for gradients gives them to the map where the weights are frozen.
        view = view_CHW[None].detach().to(weight.device, weight.dtype, copy=True).requires_grad_()
        explain = attribution.LayerGradCam(
            lambda view: _logits(model, view, position, first), layer
        )
        try:
            cam: Any = explain.attribute(view, target=index, relu_attributions=True)
        except IndexError as error:
            raise UsageError(f"the model has no class {target}") from error
        except AssertionError as error:  # captum's, of a layer that gave it nothing
            raise UsageError(
                f"the model never calls its module {stage!r} as a whole; name one inside it"
            ) from error
    if not isinstance(cam, Tensor) or cam.ndim != 4:
        raise UsageError(f"the stage {stage!r} gives no map of channels, rows and columns")
    return cam[0, 0].detach()


def soft_attention(model: nn.Module, view_CHW: Tensor, *, first: bool = False) -> dict[str, Tensor]:
    """Return what a backbone lets through where, float (h, w) for each module that has a say.

    The modules are those with a method ``soft_attention``: VAN's large-kernel attention, DAS's
    gates, RFAConv's, RFCBAMConv's and RFCAConv's spatial weights, AFF's and iAFF's shares of the
    branch. A backbone without any gives an empty dict. Maps are in the order of the calls; their
    values mean what the module says, and a map covers the whole view whatever its size.

    Args:
        model: a TNet, or any network that looks at views (1, C, H, W).
        view_CHW: (C, H, W); pixels of any dtype for a TNet, the network's normalised input for
            another model.
        first: whether the view is a first look, which a TNet's scout takes where there is one.
    """
    found: dict[str, Tensor] = {}
    look: Callable[[Tensor], Any] = (
        partial(model.look, first=first) if isinstance(model, TNet) else model
    )

    def keep(name: str, module: Any, inputs: tuple[Tensor, ...]) -> None:
        found[name] = module.soft_attention(*inputs)[0].detach()

    hooks = [
        module.register_forward_pre_hook(
            lambda module, inputs, name=name: keep(name, module, inputs)
        )
        for name, module in _network(model, first).named_modules()
        if hasattr(module, "soft_attention")
    ]
    try:
        with inferring(model):
            look(view_CHW[None].to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _network(model: nn.Module, first: bool) -> nn.Module:
    """Return the network whose modules have names: the eye of a TNet, or another model itself."""
    if not isinstance(model, TNet):
        return model
    scout = model.scout if first else None
    eye: Any = model.backbone if scout is None else scout.backbone
    return eye.model if isinstance(eye, TimmBackbone) else eye


def salience(cam_hw: Tensor, height: int, width: int) -> Tensor:
    """Return a Grad-CAM map as shown over its view: float (height, width), at most 1.

    Bilinear, divided by its largest value; NaN everywhere for a map without any positive value,
    whose salience is undefined.
    """
    full = F.interpolate(cam_hw[None, None], (height, width), mode="bilinear")[0, 0]
    return full / full.max()


def sfd(
    salience_HW: Tensor,
    region_HW: Tensor,
    *,
    threshold: float = 0.2,
    weight: Literal["mean", "sum"] = "mean",
    scaling: Literal["none", "inverse_log"] = "none",
    floor: float = 1e-3,
) -> float:
    """Return how much of what is salient lies on the object, from 0 to 1 (all of it).

    sfd = W_r / (W_r + W_n): W_r is the weight of the object's region R, W_n that of the salient
    pixels outside it. Source: DAS (arXiv 2311.12091), eq. 5, which leaves the three choices below
    open: give them beside every score.

    Args:
        salience_HW: float (H, W), from 0 to 1, see :func:`salience`.
        region_HW: bool (H, W), the object.
        threshold: pixels outside R are salient from this value on.
        weight: whether the weight of pixels is the mean or the sum over them.
        scaling: "inverse_log" stretches the values near 1 by log(1 - (1 - floor) s) / log(floor);
            the paper names such a scaling without its formula, so that this one is our reading.
            The threshold is applied before it.
        floor: the more values it stretches, the larger it is; between 0 and 1.

    Returns:
        The score; NaN if the salience is undefined, or nothing at all has any weight.

    Raises:
        UsageError: if the maps do not fit each other or a choice makes no sense.
    """
    _check_sfd(salience_HW, region_HW, threshold, weight, scaling, floor)
    salient = salience_HW.detach().double()
    if salient.isnan().any():
        return math.nan
    if salient.min() < 0 or salient.max() > 1:
        raise UsageError("salience must be from 0 to 1; bring a Grad-CAM map there with salience()")
    others = (salient >= threshold) & ~region_HW
    if scaling == "inverse_log":
        salient = torch.log1p(-(1 - floor) * salient) / math.log(floor)
    relevant, distracting = (_weight(salient[pixels], weight) for pixels in (region_HW, others))
    total = relevant + distracting
    return relevant / total if total > 0 else math.nan


def _weight(values_P: Tensor, weight: str) -> float:
    if len(values_P) == 0:
        return 0.0
    return float(values_P.mean() if weight == "mean" else values_P.sum())


def _check_sfd(
    salience: Tensor, region: Tensor, threshold: float, weight: str, scaling: str, floor: float
) -> None:
    if salience.ndim != 2 or salience.shape != region.shape or region.dtype != torch.bool:
        raise UsageError(
            "sfd needs a map and a bool mask of the same rows and columns, got "
            f"{tuple(salience.shape)} and {tuple(region.shape)} ({region.dtype})"
        )
    if not region.any():
        raise UsageError("sfd needs an object; its mask has no pixel")
    if weight not in ("mean", "sum"):
        raise UsageError(f"weight must be 'mean' or 'sum', got {weight!r}")
    if scaling not in ("none", "inverse_log"):
        raise UsageError(f"scaling must be 'none' or 'inverse_log', got {scaling!r}")
    if not 0 <= threshold <= 1:
        raise UsageError(f"threshold must be from 0 to 1, got {threshold}")
    if not 0 < floor < 1:
        raise UsageError(f"floor must be between 0 and 1, got {floor}")


def _captum() -> Any:
    """Return captum's attributions; only who asks for a map has to have it, and matplotlib."""
    try:
        import captum.attr
    except ImportError as error:
        raise UsageError("Grad-CAM needs captum: install 'tnet[attention]'") from error
    return captum.attr


def _logits(
    model: nn.Module, view_1CHW: Tensor, position: tuple[float, float, float] | None, first: bool
) -> Tensor:
    """Return the logits of one view, float (1, K)."""
    if not isinstance(model, TNet):
        return model(view_1CHW)
    place = position or _WHOLE_IMAGE[model.plan.positions]
    position_13 = torch.tensor([place], device=view_1CHW.device)
    feature_1D = model.place(model.look(view_1CHW, first).feature, position_13)
    there_11 = torch.ones((1, 1), dtype=torch.bool, device=view_1CHW.device)
    return model.classify(feature_1D[:, None], there_11)[0]


def _class(model: nn.Module, target: int | str) -> int:
    """Return the number of a class."""
    if isinstance(target, str):
        names = model.classes if isinstance(model, TNet) else ()
        if target not in names:
            raise UsageError(
                f"there is no class {target!r}; there are {', '.join(names) or 'none'}"
            )
        return names.index(target)
    if isinstance(model, TNet) and not 0 <= target < len(model.classes):
        raise UsageError(f"there is no class {target}; there are {len(model.classes)}, from 0")
    return target


def _layer(model: nn.Module, stage: int | str, first: bool) -> nn.Module:
    """Return the module whose output is the stage's map."""
    network: Any = _network(model, first)
    if getattr(network, "output_fmt", "NCHW") != "NCHW":
        raise UsageError(f"{type(network).__name__} gives no maps with their channels first")
    name = stage
    if isinstance(name, int):
        names = [info["module"] for info in getattr(network, "feature_info", ())]
        if not -len(names) <= name < len(names):
            raise UsageError(
                f"the backbone has {len(names)} stages, none of them {stage}; "
                "name one of its modules instead"
            )
        name = names[name]
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        raise UsageError(f"the backbone has no module {name!r}") from error
