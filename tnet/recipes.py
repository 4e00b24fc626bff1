"""Named models: plain functions that put a TNet together, and the dict that names them.

Options are JSON values, because a model file holds them; see :mod:`tnet.bundle`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from tnet.aggregate import AggregateName, FeatureWeighting, Mean, named_aggregate
from tnet.backbones.bagnet import TappedBagNet77
from tnet.backbones.efficientnet import SCALING, TappedEfficientNet
from tnet.backbones.generic import TimmBackbone
from tnet.errors import UsageError
from tnet.location import ContextLocation, SqueezeLocation, Tap
from tnet.model import Classifier, Input, Scout, TNet
from tnet.plan import Plan, Step
from tnet.position import Position
from tnet.standard import Standard

_OFFICIAL: dict[str, Any] = {
    "rule": "official",
    "resampling": "official",
    "outside": "zero",
    "revisit": True,
    "positions": "cells",
}


def _scaled(model: TNet, bands: int) -> TNet:
    """Let the model scale 8-bit pixels to [-1, 1], as the released ones do."""
    model.expect(Input(bands=bands, mean=(127.5,) * bands, std=(127.5,) * bands))
    return model


def default(  # noqa: PLR0913 - every argument is an option in the model's file
    classes: Sequence[str],
    bands: int = 3,
    backbone: str = "resnet18",
    stride: int = 16,
    aggregate: AggregateName = "mean",
    norm: Literal["batch", "group"] = "batch",
    dropout: float = 0.0,
    location: Literal["detached", "joint"] = "detached",
    scout: str = "",
    scout_stride: int = 16,
    scout_norm: Literal["", "batch", "group"] = "",
    features: Literal["raw", "standard"] = "raw",
    position: Literal["code", "none"] = "code",
) -> TNet:
    """What the paper says and what works: any timm backbone, free logits, true regions.

    Against ``official_*``: logits are not L2-normalised, so that the policy can commit; views
    are anti-aliased; children show the image, not zeros, beyond their parent; nothing is read
    twice; positions are centres; empty background is left out; the classifier starts small.

    Args:
        classes: names.
        bands: bands of the images.
        backbone: a timm architecture.
        stride: of the location module's map, in pixels of the view.
        aggregate: "mean", or learned "weighting", "attention" or "maxout"; "aff" and "iaff" fuse
            the levels, the coarsest first.
        norm: "batch" leaves the backbone's norms; "group" replaces its batch norms, which lets
            it train with any batch size and see every level alike.
        dropout: before the classifier.
        location: "detached" stops the location module's gradients at the map, as released;
            "joint" lets it teach the backbone what is worth a closer look.
        scout: a timm architecture of its own for the first look, for a backbone that is frozen
            or made for fine views; "" looks with the backbone.
        scout_stride: of the scout's map, in pixels of the first view.
        scout_norm: as ``norm``, of the scout; "" is the backbone's. A first look is pooled over
            the whole image, which differs so little from image to image that it can be less
            than what a batch norm's running statistics are off.
        features: "standard" brings them to one scale before anything is made of them, see
            :mod:`tnet.standard`; "raw" leaves them as they are.
        position: "code" tells every feature its place, as released; "none" leaves it out, lest
            places be learned by heart.
    """
    if position not in ("code", "none"):
        raise UsageError(f"position must be 'code' or 'none', got {position!r}")
    if features not in ("raw", "standard"):
        raise UsageError(f"features must be 'raw' or 'standard', got {features!r}")
    if location not in ("detached", "joint"):
        raise UsageError(f"location must be 'detached' or 'joint', got {location!r}")
    detach = location == "detached"
    network = TimmBackbone(backbone, bands=bands, stride=stride, norm=norm)
    length = network.features
    model = TNet(
        network,
        ContextLocation(network.map_channels, length, width=128, detach=detach),
        Position(length, max(6, length // 4)) if position == "code" else None,
        named_aggregate(aggregate, length),
        Classifier(length, len(classes), dropout, start="small"),
        plan=Plan(
            view=(224, 224),
            steps=(Step(8, 8, 0.1875, 8), Step(4, 4, 0.375, 2)),
            background=0.02,
        ),
        classes=classes,
    )
    if scout:
        eye = TimmBackbone(scout, bands=bands, stride=scout_stride, norm=scout_norm or norm)
        where = ContextLocation(eye.map_channels, length, width=128, detach=detach)
        model.scout = Scout(eye, where, (eye.features, length))
    if features == "standard":
        model.standard = Standard(length)
    return _scaled(model, bands)


def imported(
    classes: Sequence[str], bands: int = 3, backbone: str = "resnet18", stride: int = 16
) -> TNet:
    """What an official checkpoint becomes: its backbone and its classifier, at one look.

    Against ``default``: a feature is not told its place, since the classifier has never seen one
    that was, and the plan's grids have no glimpses, since the location module has learned nothing.

    Args:
        classes: names.
        bands: bands of the images.
        backbone: a timm architecture.
        stride: of the location module's map, in pixels of the view.
    """
    model = default(classes, bands, backbone, stride, position="none")
    steps = tuple(replace(step, glimpses=0) for step in model.plan.steps)
    model.plan = replace(model.plan, steps=steps)
    return model


def official_fmow(
    classes: Sequence[str],
    bands: int = 3,
    width: float = 1.0,
    depth: float = 1.0,
    tap: Literal["lg3x3", "lg5x5"] = "lg3x3",
    dropout: float = 0.5,
    drop_path: float = 0.3,
) -> TNet:
    """The released fMoW model: EfficientNet-B0, 3x3 candidates of half the side, mean.

    The plan is the second stage's: 896 pixels, three levels, [2, 1] locations.

    Args:
        classes: names.
        bands: bands of the images.
        width: EfficientNet's multiplier of channels; 1.0 is B0.
        depth: EfficientNet's multiplier of repeats; 1.0 is B0.
        tap: "lg3x3", or the released alternative "lg5x5" with a 5x5 grid of 0.34375.
        dropout: before the classifier.
        drop_path: rate of stochastic depth.
    """
    taps = {"lg3x3": ((3, 2), Tap(2, None, 4)), "lg5x5": ((2, 1), Tap(3, None, 5))}
    if tap not in taps:
        raise UsageError(f"tap must be 'lg3x3' or 'lg5x5', got {tap!r}")
    at, cells = taps[tap]
    network = TappedEfficientNet(at, width=width, depth=depth, bands=bands, drop_path=drop_path)
    side, patch = (3, 0.5) if tap == "lg3x3" else (5, 0.34375)
    model = TNet(
        network,
        SqueezeLocation(network.map_channels, tap=cells, normalise=True),
        Position(network.features, network.features // 4),
        Mean(),
        Classifier(network.features, len(classes), dropout),
        plan=Plan(
            view=(224, 224),
            steps=(Step(side, side, patch, 2), Step(side, side, patch, 1)),
            **_OFFICIAL,
        ),
        classes=classes,
    )
    return _scaled(model, bands)


def official_cub(
    classes: Sequence[str],
    bands: int = 3,
    variant: str = "b0",
    width: float = 1.0,
    dropout: float = 0.75,
    drop_path: float = 0.5,
) -> TNet:
    """The released CUB and NABirds model: EfficientNet-B0..B7, 5x5 of 0.35, learned weights.

    Args:
        classes: names.
        bands: bands of the images.
        variant: "b0" to "b7".
        width: a further multiplier of the variant's channels.
        dropout: before the classifier.
        drop_path: rate of stochastic depth.
    """
    if variant not in SCALING:
        raise UsageError(f"variant must be one of {', '.join(SCALING)}, got {variant!r}")
    at, cells = (2, 1), Tap(5, 22, 4)
    if variant == "b0":
        at, cells = (3, 0), Tap(2, 12, 2)
    elif variant in ("b6", "b7"):
        at = (2, 0)
    scale, depth = SCALING[variant]
    network = TappedEfficientNet(
        at, width=scale * width, depth=depth, bands=bands, drop_path=drop_path
    )
    model = TNet(
        network,
        SqueezeLocation(network.map_channels, tap=cells, normalise=True),
        Position(network.features, network.features // 4),
        FeatureWeighting(network.features),
        Classifier(network.features, len(classes), dropout),
        plan=Plan(view=(224, 224), steps=(Step(5, 5, 0.35, 3),), **_OFFICIAL),
        classes=classes,
    )
    return _scaled(model, bands)


def official_imagenet(classes: Sequence[str], bands: int = 3, dropout: float = 0.5) -> TNet:
    """The released ImageNet model: BagNet-77 at 77 pixels, 5x5 of 0.34375, mean.

    Args:
        classes: names.
        bands: bands of the images.
        dropout: of whole channels of the backbone's last map.
    """
    network = TappedBagNet77(bands=bands, dropout=dropout)
    classifier = Classifier(network.features, len(classes))
    nn.init.xavier_normal_(classifier.linear.weight)
    model = TNet(
        network,
        ContextLocation(
            network.map_channels, network.features, tap=Tap(0, None, 2), normalise=True
        ),
        Position(network.features, network.features, form="concat"),
        Mean(),
        classifier,
        plan=Plan(view=(77, 77), steps=(Step(5, 5, 0.34375, 3),), **_OFFICIAL),
        classes=classes,
    )
    return _scaled(model, bands)


RECIPES: dict[str, Callable[..., TNet]] = {
    "default": default,
    "imported": imported,
    "official_cub": official_cub,
    "official_fmow": official_fmow,
    "official_imagenet": official_imagenet,
}


# What the options' numbers may be, and whether they are whole.
_LIMITS: dict[str, tuple[float, float, type]] = {
    "bands": (1, 4096, int),
    "stride": (1, 1024, int),
    "scout_stride": (1, 1024, int),
    "width": (0.01, 16, float),
    "depth": (0.01, 16, float),
    "dropout": (0, 1, float),
    "drop_path": (0, 1, float),
}


def _check(options: Mapping[str, Any]) -> None:
    """Refuse options of a wrong type or size; a model file may hold anything."""
    for name, value in options.items():
        if name in _LIMITS:
            low, high, kind = _LIMITS[name]
            number = isinstance(value, kind | int) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                whole = "a whole number" if kind is int else "a number"
                raise UsageError(f"{name} must be {whole} from {low} to {high}, got {value!r}")
        elif name == "classes":
            if isinstance(value, str) or not isinstance(value, Sequence) or not value:
                raise UsageError(f"classes must be a list of names, got {value!r}")
        elif not isinstance(value, str):
            raise UsageError(f"{name} must be a name, got {value!r}")


def build(recipe: str, **options: Any) -> TNet:
    """Build a model by its recipe's name; what it was built from is kept for its file.

    Raises:
        UsageError: for an unknown recipe, an unknown option, or a value that does not fit.
    """
    if recipe not in RECIPES:
        raise UsageError(f"there is no recipe {recipe!r}; there are {', '.join(sorted(RECIPES))}")
    known = inspect.signature(RECIPES[recipe]).parameters
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError(
            f"the recipe {recipe!r} has no option {unknown[0]!r}; it has {', '.join(known)}"
        )
    _check(options)
    model = RECIPES[recipe](**options)
    model.recipe = (recipe, dict(options))
    model.name = recipe
    return model
