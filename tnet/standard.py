"""Features brought to one scale, entry by entry.

A network that was trained elsewhere and is frozen gives features with a large common part: all
tiles of a slide are tissue. What tells a rare glimpse from the others is small beside it, and an
aggregate that starts by weighing all alike would first have to find that out.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class Standard(nn.BatchNorm1d):
    """Entries of zero mean and unit variance over all glimpses: a batch norm without a scale.

    Training compares a glimpse with all others of its step, inference with the running mean and
    variance. A step of a single glimpse has nothing to compare it with and takes these, too.
    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015, without gamma and beta.

    Args:
        features: length D of a feature.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, affine=False)

    def forward(self, feature_GD: Tensor) -> Tensor:
        """Return the standardised features, float (G, D)."""
        if self.training and len(feature_GD) < 2:
            return F.batch_norm(feature_GD, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(feature_GD)
