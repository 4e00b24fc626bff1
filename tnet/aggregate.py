"""From the features of all glimpses to one: the mean, learned weights, or fused levels.

Whatever the weights depend on, the one feature is a sum of weighted glimpses, so that a class
logit remains an exact sum over the glimpses.

B images, T glimpses (padded to the longest walk of the batch), D features.
"""

from typing import Literal

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from tnet.backbones.fusion import AFF, IAFF
from tnet.errors import UsageError

AggregateName = Literal["mean", "weighting", "attention", "maxout", "aff", "iaff"]


class Mean(nn.Module):
    """The plain mean over an image's glimpses. Source: TNet (fMoW, ImageNet)."""

    name = "mean"

    def forward(
        self, feature_BTD: Tensor, there_BT: Tensor, level_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the aggregated feature (B, D) and the weights (B, T), which sum to 1.

        Args:
            feature_BTD: float (B, T, D).
            there_BT: bool (B, T), False where a shorter walk was padded.
            level_BT: int64 (B, T), of no effect here.
        """
        weight_BT = _shares(there_BT, feature_BTD)
        return torch.einsum("bt,btd->bd", weight_BT, feature_BTD), weight_BT


class FeatureWeighting(nn.Module):
    """Learned weights: each feature is excited by the mean feature, then scored.

    e = sigmoid(W2 swish(W1 mean + b1) + b2); score = v (feature * e) + c; the weights are the
    softmax of the scores over the glimpses, and the features that are averaged are the ones
    before excitation. Source: TNet (CUB, NABirds).

    Args:
        features: length D of a feature.
        reduction: D / reduction channels inside; 4 as released.
    """

    name = "weighting"

    def __init__(self, features: int, reduction: int = 4) -> None:
        super().__init__()
        self.squeeze = nn.Linear(features, max(1, features // reduction))
        self.excite = nn.Linear(max(1, features // reduction), features)
        self.score = nn.Linear(features, 1)

    def forward(
        self, feature_BTD: Tensor, there_BT: Tensor, level_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return as :meth:`Mean.forward` does."""
        mean_BD, _ = Mean()(feature_BTD, there_BT)
        gate_BD = self.excite(F.silu(self.squeeze(mean_BD))).sigmoid()
        weight_BT = _softmax(self.score(feature_BTD * gate_BD[:, None]).squeeze(2), there_BT)
        return torch.einsum("bt,btd->bd", weight_BT, feature_BTD), weight_BT


class GatedAttention(nn.Module):
    """Learned weights: the softmax over the glimpses of w^T (tanh(V h) * sigmoid(U h)).

    Each glimpse is scored by itself, so that one of importance stands out among any number of
    others. The scores see features brought to zero mean and unit variance, each by itself: then
    tanh and sigmoid are neither idle nor saturated, whatever the backbone's scale is. The
    features that are averaged are the ones as they came.

    Source: Ilse, Tomczak and Welling, "Attention-based Deep Multiple Instance Learning", ICML
    2018, equation 9; the normalisation is not theirs.

    Args:
        features: length D of a feature.
        width: length L of the scores' hidden layer; 128 in the paper.
    """

    name = "attention"

    def __init__(self, features: int, width: int = 128) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features, elementwise_affine=False)
        self.value = nn.Linear(features, width)
        self.gate = nn.Linear(features, width)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(
        self, feature_BTD: Tensor, there_BT: Tensor, level_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return as :meth:`Mean.forward` does."""
        known_BTD = self.norm(feature_BTD)
        hidden_BTL = self.value(known_BTD).tanh() * self.gate(known_BTD).sigmoid()
        weight_BT = _softmax(self.score(hidden_BTL).squeeze(2), there_BT)
        return torch.einsum("bt,btd->bd", weight_BT, feature_BTD), weight_BT


class Maxout(nn.Module):
    """Learned weights: the softmax over the glimpses of max_m(e_m . h) - mean_m(e_m . h).

    A glimpse weighs much if it is strong evidence of one kind, whichever kind that is. It has few
    parameters and does not saturate; docs/experiments.md says where that helped and where
    :class:`GatedAttention` was better. Features should be of one scale, see :mod:`tnet.standard`.

    Source: the unit is that of Goodfellow et al., "Maxout Networks", ICML 2013; that it should
    weigh glimpses, less its mean, is TNet's own.

    Args:
        features: length D of a feature.
        kinds: M, of evidence.
    """

    name = "maxout"

    def __init__(self, features: int, kinds: int = 8) -> None:
        super().__init__()
        self.evidence = nn.Linear(features, kinds)

    def forward(
        self, feature_BTD: Tensor, there_BT: Tensor, level_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return as :meth:`Mean.forward` does."""
        evidence_BTM = self.evidence(feature_BTD)
        score_BT = evidence_BTM.amax(dim=2) - evidence_BTM.mean(dim=2)
        weight_BT = _softmax(score_BT, there_BT)
        return torch.einsum("bt,btd->bd", weight_BT, feature_BTD), weight_BT


class LevelFusion(nn.Module):
    """The levels of a walk, coarse to fine, fused by AFF or iAFF.

    Level 0 is the first y. Each glimpse x of the next level is fused with y, w * x + (1 - w) * y,
    and the mean over these is the y of the level after; the last y is the result. All levels
    share one fusion. In w = M(x + y) the glimpses of a level take the place of a map's pixels:
    there is a local context for each and a global one for their mean.

    Two things differ from a residual network's fusion. AFF's factor 2 is left out, for the
    weights to sum to 1. And layer norms over the channels replace the batch norms, whose
    statistics would mix images and levels, and which a batch of one image lacks. The last
    norm of each context starts at zero, w therefore at a half.

    Source: Dai et al., "Attentional Feature Fusion", WACV 2021, of features "inconsistent in
    semantics and scale"; that a walk's levels be such features is TNet's own.

    Args:
        features: length D of a feature.
        kind: "aff" or "iaff".
        reduction: D / reduction channels inside each context.
    """

    def __init__(self, features: int, kind: Literal["aff", "iaff"], reduction: int = 4) -> None:
        super().__init__()
        if kind not in ("aff", "iaff"):
            raise UsageError(f"levels can be fused by 'aff' or 'iaff', got {kind!r}")
        self.name = kind
        self.fusion = {"aff": AFF, "iaff": IAFF}[kind](features, reduction, LayerNorm2d)
        for key, parameter in self.fusion.named_parameters():
            if key.endswith("norm2.weight"):
                nn.init.zeros_(parameter)

    def forward(
        self, feature_BTD: Tensor, there_BT: Tensor, level_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the fused feature (B, D) and each glimpse's weights (B, T, D).

        The weights of each of the D entries sum to 1 over the glimpses, and the feature is the
        sum of the weighted glimpses.

        Args:
            feature_BTD: float (B, T, D).
            there_BT: bool (B, T), False where a shorter walk was padded.
            level_BT: int64 (B, T), from 0; None takes the first glimpse for level 0 and all
                others for level 1.
        """
        if level_BT is None:
            level_BT = torch.ones_like(there_BT, dtype=torch.int64)
            level_BT[:, 0] = 0
        feature_BTD = feature_BTD.masked_fill(~there_BT[..., None], 0.0)
        share_BT = _shares(there_BT & (level_BT == 0), feature_BTD)
        weight_BTD = share_BT[..., None].expand_as(feature_BTD)
        for level in range(1, int(level_BT.max()) + 1):
            share_BT = _shares(there_BT & (level_BT == level), feature_BTD)
            coarse_BD = (weight_BTD * feature_BTD).sum(dim=1)
            gate_BTD = self._gate(feature_BTD, coarse_BD, share_BT)
            fine_BTD = share_BT[..., None] * gate_BTD
            # What the fine level takes, the coarse ones lose; nothing where it has no glimpse.
            weight_BTD = weight_BTD * (1 - fine_BTD.sum(dim=1, keepdim=True)) + fine_BTD
        return (weight_BTD * feature_BTD).sum(dim=1), weight_BTD

    def _gate(self, fine_BTD: Tensor, coarse_BD: Tensor, share_BT: Tensor) -> Tensor:
        """Return w for each glimpse, (B, T, D); what is not of the level gets any number."""
        fine_BDT1 = fine_BTD.transpose(1, 2)[..., None]
        share_B1T1 = share_BT[:, None, :, None]

        def pool(x_BDT1: Tensor) -> Tensor:
            return (x_BDT1 * share_B1T1).sum(dim=2, keepdim=True)

        gate_BDT1 = self.fusion.gate(fine_BDT1, coarse_BD[:, :, None, None], pool)
        return gate_BDT1.squeeze(3).transpose(1, 2)


def _shares(chosen_BT: Tensor, like: Tensor) -> Tensor:
    """Return equal shares (B, T) of the chosen glimpses, which sum to 1 if there are any."""
    share_BT = chosen_BT.to(like.dtype)
    return share_BT / share_BT.sum(dim=1, keepdim=True).clamp_min(1)


def _softmax(score_BT: Tensor, there_BT: Tensor) -> Tensor:
    """Return weights (B, T) that sum to 1 over the glimpses that are there."""
    weight_BT = score_BT.masked_fill(~there_BT, float("-inf")).softmax(dim=1)
    # A row without any glimpse has no weights at all rather than NaN.
    return weight_BT.masked_fill(~there_BT, 0.0)


def named_aggregate(name: AggregateName, features: int) -> nn.Module:
    """Return the named aggregate of features of a length.

    Raises:
        UsageError: if there is none of this name.
    """
    if name == "mean":
        return Mean()
    if name == "weighting":
        return FeatureWeighting(features)
    if name == "attention":
        return GatedAttention(features)
    if name == "maxout":
        return Maxout(features)
    if name not in ("aff", "iaff"):
        raise UsageError(
            "aggregate must be 'mean', 'weighting', 'attention', 'maxout', 'aff' or 'iaff', got "
            f"{name!r}"
        )
    return LevelFusion(features, name)
