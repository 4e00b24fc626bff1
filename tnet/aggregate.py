"""From the features of all glimpses to one: the mean, or learned weights.

B images, T glimpses (padded to the longest walk of the batch), D features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Mean(nn.Module):
    """The plain mean over an image's glimpses. Source: TNet (fMoW, ImageNet)."""

    def forward(self, feature_BTD: Tensor, there_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the aggregated feature (B, D) and the weights (B, T), which sum to 1.

        Args:
            feature_BTD: float (B, T, D).
            there_BT: bool (B, T), False where a shorter walk was padded.
        """
        weight_BT = there_BT.to(feature_BTD.dtype)
        weight_BT = weight_BT / weight_BT.sum(dim=1, keepdim=True).clamp_min(1)
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

    def __init__(self, features: int, reduction: int = 4) -> None:
        super().__init__()
        self.squeeze = nn.Linear(features, max(1, features // reduction))
        self.excite = nn.Linear(max(1, features // reduction), features)
        self.score = nn.Linear(features, 1)

    def forward(self, feature_BTD: Tensor, there_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return as :meth:`Mean.forward` does."""
        mean_BD, _ = Mean()(feature_BTD, there_BT)
        gate_BD = self.excite(F.silu(self.squeeze(mean_BD))).sigmoid()
        score_BT = self.score(feature_BTD * gate_BD[:, None]).squeeze(2)
        weight_BT = score_BT.masked_fill(~there_BT, float("-inf")).softmax(dim=1)
        # A row without any glimpse has no weights at all rather than NaN.
        weight_BT = weight_BT.masked_fill(~there_BT, 0.0)
        return torch.einsum("bt,btd->bd", weight_BT, feature_BTD), weight_BT
