"""TNet, put together from its parts. It looks, locates, places and classifies; it does not walk.

M views, C bands, (H, W) the view, B images, T glimpses of each, D features, N cells, K classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tnet.errors import UsageError, counted
from tnet.geometry import Grid
from tnet.plan import Plan

# Those of the images that can be read: see ``LevelPyramid``.
DTYPES = (
    *("uint8", "uint16", "uint32", "int8", "int16", "int32"),
    *("float16", "float32", "float64"),
)


class Look(NamedTuple):
    """What the backbone saw in a batch of views: map (M, C', h, w) and feature (M, D)."""

    map: Tensor
    feature: Tensor


@dataclass(frozen=True)
class Input:
    """What pixels a model expects.

    Attributes:
        bands: how many.
        dtype: numpy name of the pixels' type, such as "uint8".
        mean, std: a number a band, in units of the pixels: the network sees
            (pixel - mean) / std.
        mpp: µm per px of level 0 of the images that it was trained on, if known.
    """

    bands: int = 3
    dtype: str = "uint8"
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    std: tuple[float, ...] = (127.5, 127.5, 127.5)
    mpp: float | None = None

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.bands >= 1:
            raise UsageError(
                f"a model of {counted(self.bands, 'band')} needs as many means and deviations, got "
                f"{len(self.mean)} and {len(self.std)}"
            )
        if not all(math.isfinite(value) for value in self.mean):
            raise UsageError(f"means must be numbers, got {self.mean}")
        if not all(0 < value < math.inf for value in self.std):
            raise UsageError(f"standard deviations must be above 0, got {self.std}")
        if self.mpp is not None and not 0 < self.mpp < math.inf:
            raise UsageError(f"µm per px must be above 0, got {self.mpp}")
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")


class Classifier(nn.Module):
    """Dropout and a linear layer; the logits are then exact sums over the glimpses.

    Args:
        features: length D of a feature.
        classes: K.
        dropout: of the feature's entries, while training.
        start: "released" draws the weights from +-1/sqrt(K), as the released code does; "small"
            from a normal distribution of deviation 0.02, as is common. With large weights every
            glimpse is evidence from the first step on, and an aggregate that learns weights
            learns which glimpses fit the draw, see docs/experiments.md.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        dropout: float = 0.0,
        start: Literal["released", "small"] = "released",
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, classes)
        if start == "small":
            nn.init.trunc_normal_(self.linear.weight, std=0.02)
        else:
            bound = 1 / classes**0.5
            nn.init.uniform_(self.linear.weight, -bound, bound)
        nn.init.zeros_(self.linear.bias)

    def forward(self, feature_MD: Tensor) -> Tensor:
        """Return logits, float (M, K)."""
        return self.linear(self.dropout(feature_MD))


class Scout(nn.Module):
    """Takes the first look: a backbone and a location module of its own.

    For when the other backbone is frozen or made for fine views, and would not find in a coarse
    one what is worth a closer look.

    Args:
        backbone: view -> map and feature, see :mod:`tnet.backbones`.
        location: map, feature and grid -> logits over the cells, see :mod:`tnet.location`; the
            feature is the projected one.
        features: lengths of the scout's own feature and of the model's. Where they differ the
            first is projected to the second.
    """

    def __init__(self, backbone: nn.Module, location: nn.Module, features: tuple[int, int]) -> None:
        super().__init__()
        own, wanted = features
        self.backbone = backbone
        self.location = location
        self.project: nn.Module = nn.Identity() if own == wanted else nn.Linear(own, wanted)

    def forward(self, view_MCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map (M, C', h, w) and the feature (M, D) of normalised views."""
        map_MChw, feature_ME = self.backbone(view_MCHW)
        return map_MChw, self.project(feature_ME)


class TNet(nn.Module):
    """A hard-attention classifier, given its parts.

    Args:
        backbone: view -> map and feature, see :mod:`tnet.backbones`.
        location: map, feature and grid -> logits over the cells, see :mod:`tnet.location`.
        position: feature and (y, x, scale) -> feature, see :mod:`tnet.position`; None leaves
            the feature as it is.
        aggregate: features, a mask and levels -> feature and weights, see
            :mod:`tnet.aggregate`.
        classifier: feature -> logits.
        plan: the walk that this model is made for; another may be given at inference.
        classes: names, in the order of the logits.

    It expects 8-bit RGB until :meth:`expect` says otherwise. These may be set on a finished
    model:

    Attributes:
        scout: takes the first look in the backbone's place, see :class:`Scout`; None for none.
        standard: brings features to one scale before they are placed, see
            :mod:`tnet.standard`; None leaves them as they are.
        temperature: what the location module's logits are divided by while training; above 1
            the draws explore more. It is not kept in the model's file.
        multilabel: classes do not exclude one another: each has a probability of its own.
        calibration: what the logits are divided by where they become probabilities, see
            :mod:`tnet.calibration`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        location: nn.Module,
        position: nn.Module | None,
        aggregate: nn.Module,
        classifier: Classifier,
        *,
        plan: Plan,
        classes: Sequence[str],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.location = location
        self.position = position
        self.aggregate = aggregate
        self.classifier = classifier
        self.plan = plan
        self.classes = tuple(str(name) for name in classes)
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 1:
            raise UsageError(f"class names must be given and differ, got {self.classes}")
        self.scout: Scout | None = None
        self.standard: nn.Module | None = None
        self.temperature = 1.0
        self.multilabel = False
        self.calibration = 1.0
        self.name = ""
        self.sha256 = ""  # of the file that it was loaded from, if it was
        # What the model was built from and what it learned from; kept in its file.
        self.recipe: tuple[str, dict[str, Any]] | None = None
        self.training_record: dict[str, Any] = {}
        self.expect(Input())

    def expect(self, expects: Input) -> None:
        """Set the pixels that the model is made for, and with them the normalisation."""
        self.expects = expects
        shape, device = (1, expects.bands, 1, 1), self.device
        mean = torch.tensor(expects.mean, device=device).view(shape)
        std = torch.tensor(expects.std, device=device).view(shape)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.classifier.linear.weight.device

    def look(self, view_MCHW: Tensor, first: bool = False) -> Look:
        """Look at views of raw pixels, any dtype (M, C, H, W).

        Missing pixels (NaN) are shown as the mean, lest one of them spoil the whole feature.

        Args:
            view_MCHW: pixels as they are read.
            first: whether these are first looks, which a scout takes where there is one.
        """
        view = (view_MCHW.to(self.mean.dtype) - self.mean) / self.std
        if view_MCHW.is_floating_point():
            view = view.masked_fill(~view.isfinite(), 0.0)
        eye = self.scout if first and self.scout is not None else self.backbone
        return Look(*eye(view))

    def locate(self, look: Look, grid: Grid, first: bool = False) -> Tensor:
        """Return logits over the grid's cells for each view, float (M, N).

        Args:
            look: what was seen.
            grid: the candidates.
            first: as of :meth:`look`.
        """
        location = self.scout.location if first and self.scout is not None else self.location
        logits_MN = location(look.map, look.feature, grid)
        if self.training and self.temperature != 1:
            logits_MN = logits_MN / self.temperature
        return logits_MN

    def place(self, feature_MD: Tensor, position_M3: Tensor) -> Tensor:
        """Return the features that know their place, float (M, D)."""
        if self.standard is not None:
            feature_MD = self.standard(feature_MD)
        return feature_MD if self.position is None else self.position(feature_MD, position_M3)

    def classify(
        self, feature_BTD: Tensor, there_BT: Tensor, level_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B, K), weights of the glimpses, aggregated features (B, D).

        The weights are (B, T, 1), or (B, T, D) if the aggregate weighs every entry of a feature
        by itself.

        Args:
            feature_BTD: float (B, T, D), placed features.
            there_BT: bool (B, T), False where a shorter walk was padded.
            level_BT: int64 (B, T), of each glimpse; see the aggregate for what None means.
        """
        feature_BD, weight = self.aggregate(feature_BTD, there_BT, level_BT)
        weight_BTD = weight if weight.ndim == 3 else weight[..., None]
        return self.classifier(feature_BD), weight_BTD, feature_BD

    def contributions(self, feature_TD: Tensor, weight: Tensor) -> Tensor:
        """Return what each glimpse adds to each class logit, float (T, K).

        The classifier is linear and the aggregate a weighted sum, so that the contributions of
        all glimpses and the classifier's bias add up to the logits exactly.

        Args:
            feature_TD: float (T, D), placed features.
            weight: of each glimpse, float (T,) or (T, 1), or of each of its entries, (T, D).
        """
        weight_TD = weight if weight.ndim == 2 else weight[:, None]
        return (weight_TD * feature_TD) @ self.classifier.linear.weight.T
