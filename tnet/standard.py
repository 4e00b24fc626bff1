"""Features brought to one scale, entry by entry.

A network that was trained elsewhere and is frozen gives features with a large common part: all
tiles of a slide are tissue. What tells a rare glimpse from the others is small beside it, and an
aggregate that starts by weighing all alike would first have to find that out.
"""

import torch
from torch import Tensor, nn

# Of a variance: an entry that is the same everywhere is not blown up.
_LEAST = 1e-5


class Standard(nn.Module):
    """Entries of zero mean and unit variance over the glimpses of the first steps of training.

    Later steps leave mean and variance alone. They would follow the walk, which looks more and
    more where the answer is: what is rare at first would become the measure of everything.

    Args:
        features: length D of a feature.
        steps: of training that are measured.
    """

    mean: Tensor
    square: Tensor
    count: Tensor
    seen: Tensor

    def __init__(self, features: int, steps: int = 50) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("square", torch.ones(features))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, feature_GD: Tensor) -> Tensor:
        """Return the standardised features, float (G, D)."""
        if self.training and int(self.seen) < self.steps:
            self._measure(feature_GD.detach().float())
        variance = (self.square - self.mean.square()).clamp_min(_LEAST)
        return (feature_GD - self.mean) / variance.sqrt()

    @torch.no_grad()
    def _measure(self, feature_GD: Tensor) -> None:
        """Count glimpses into the means of the features and of their squares."""
        self.count += len(feature_GD)
        share = len(feature_GD) / int(self.count)
        self.mean += share * (feature_GD.mean(dim=0) - self.mean)
        self.square += share * (feature_GD.square().mean(dim=0) - self.square)
        self.seen += 1
