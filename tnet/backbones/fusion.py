"""Attentional feature fusion: MS-CAM, AFF and iAFF.

Source: Dai et al., "Attentional Feature Fusion", WACV 2021 (arXiv 2009.14082), Section 3, in the
authors' MXNet form, which they call the reference. Their PyTorch port's iAFF uses the first
global context twice and leaves the second one dead; here the second pass has its own.

M maps, C channels, H rows, W columns.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tnet.backbones.features import BatchNorm
from tnet.errors import UsageError

Norm = Callable[[int], nn.Module]
Pool = Callable[[Tensor], Tensor]


def global_mean(x_MCHW: Tensor) -> Tensor:
    """Return each map's mean over its pixels, (M, C, 1, 1)."""
    return x_MCHW.mean(dim=(2, 3), keepdim=True)


class Context(nn.Module):
    """Channel context: B(W2 relu(B(W1 x))), where W are pointwise convolutions, B the norms.

    Args:
        channels: C.
        reduction: r; C / r channels inside, at least one.
        norm: makes B for a number of channels.
    """

    def __init__(self, channels: int, reduction: int, norm: Norm) -> None:
        super().__init__()
        inside = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, inside, 1)
        self.norm1 = norm(inside)
        self.excite = nn.Conv2d(inside, channels, 1)
        self.norm2 = norm(channels)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return the context, float (M, C, H, W)."""
        return self.norm2(self.excite(F.relu(self.norm1(self.squeeze(x_MCHW)))))


class MSCAM(nn.Module):
    """Multi-scale channel attention: x * M(x), with M(x) = sigmoid(L(x) + G(x)).

    L is the context of each pixel and G that of the pooled map, added to every pixel.

    G's batch norms see one value per map. With a single map in training they use their running
    statistics (see :class:`tnet.backbones.features.BatchNorm`), where torch would raise an error;
    who trains with batches of one from the start should put group norms in their place.

    Args:
        channels: C.
        reduction: r of both contexts; the ImageNet networks have 16, all else 4.
        norm: makes a norm for a number of channels; batch norm in the paper.
    """

    def __init__(self, channels: int, reduction: int = 4, norm: Norm = BatchNorm) -> None:
        super().__init__()
        self.local_context = Context(channels, reduction, norm)
        self.global_context = Context(channels, reduction, norm)

    def weights(self, x_MCHW: Tensor, pool: Pool = global_mean) -> Tensor:
        """Return M(x), float (M, C, H, W) between 0 and 1; ``pool`` gives what G sees."""
        return (self.local_context(x_MCHW) + self.global_context(pool(x_MCHW))).sigmoid()

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return x * M(x), float (M, C, H, W)."""
        return x_MCHW * self.weights(x_MCHW)


def mix(weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return weight * x + (1 - weight) * y."""
    return torch.addcmul(y, weight, x - y)


class AFF(nn.Module):
    """Attentional feature fusion: 2 (w * x + (1 - w) * y), with w = M(x + y).

    In a residual block x is the branch and y the shortcut. The factor 2 gives the two weights
    the sum that they have in plain addition; it is the authors' code's, not the paper's.

    Args:
        channels: C.
        reduction: r of MS-CAM.
        norm: as for :class:`MSCAM`.
    """

    gain = 2.0

    def __init__(self, channels: int, reduction: int = 4, norm: Norm = BatchNorm) -> None:
        super().__init__()
        self.attention = MSCAM(channels, reduction, norm)

    def gate(self, x_MCHW: Tensor, y_MCHW: Tensor, pool: Pool = global_mean) -> Tensor:
        """Return w, the share of x, float (M, C, H, W) between 0 and 1."""
        return self.attention.weights(x_MCHW + y_MCHW, pool)

    def soft_attention(self, x_MCHW: Tensor, y_MCHW: Tensor) -> Tensor:
        """Return the mean share of x over the channels, (M, H, W), between 0 and 1."""
        return self.gate(x_MCHW, y_MCHW).mean(dim=1)

    def forward(self, x_MCHW: Tensor, y_MCHW: Tensor) -> Tensor:
        """Return the fused map, float (M, C, H, W)."""
        return self.gain * mix(self.gate(x_MCHW, y_MCHW), x_MCHW, y_MCHW)


class IAFF(AFF):
    """Iterative attentional feature fusion: what AFF mixes says how to mix.

    u = w1 * x + (1 - w1) * y with w1 = M1(x + y); z = w2 * x + (1 - w2) * y with w2 = M2(u).
    There's no factor 2; the authors left it out by oversight and found it harmless.

    Args:
        channels: C.
        reduction: r of both MS-CAMs.
        norm: as for :class:`MSCAM`.
    """

    gain = 1.0

    def __init__(self, channels: int, reduction: int = 4, norm: Norm = BatchNorm) -> None:
        super().__init__(channels, reduction, norm)
        self.attention2 = MSCAM(channels, reduction, norm)

    def gate(self, x_MCHW: Tensor, y_MCHW: Tensor, pool: Pool = global_mean) -> Tensor:
        """Return w2, the share of x, float (M, C, H, W) between 0 and 1."""
        integrated = mix(super().gate(x_MCHW, y_MCHW, pool), x_MCHW, y_MCHW)
        return self.attention2.weights(integrated, pool)


class Add(nn.Module):
    """The plain addition of a residual network."""

    def forward(self, x_MCHW: Tensor, y_MCHW: Tensor) -> Tensor:
        """Return x + y."""
        return x_MCHW + y_MCHW


FusionName = Literal["add", "aff", "iaff"]


def fusion(
    name: FusionName, channels: int, reduction: int = 4, norm: Norm = BatchNorm
) -> nn.Module:
    """Return the named fusion of two maps of so many channels.

    Raises:
        UsageError: if there is none of this name.
    """
    if name == "add":
        return Add()
    kinds = {"aff": AFF, "iaff": IAFF}
    if name not in kinds:
        raise UsageError(f"fusion must be 'add', 'aff' or 'iaff', got {name!r}")
    return kinds[name](channels, reduction, norm)
