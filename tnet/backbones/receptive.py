"""Receptive-field attention convolutions: RFAConv, RFCBAMConv, RFCAConv (arXiv:2304.03198).

A convolution shares its kernel between all places. These weigh each place's receptive field
first: a k x k depthwise convolution generates k² features per channel, one for each tap of the
kernel; an attention weighs them; a k x k convolution gathers them.

The originals lay the k² features out as a map k times higher and wider and gather it with stride
k. Nothing of that map is needed: each output sees exactly the k² features of its own place, so a
1x1 convolution over them is the same sum. That, and one multiplication of matrices per channel
in the place of a convolution with groups, which is slow on processors, is the cheap form. The
literal form is there to compare with (``literal=True``); both have the same weights.

M views, C channels in, O channels out, K = CT; T = k² taps in row order, h x w places of the
output, H x W = kh x kw places of the k times larger map. Training on a single view works on any
map: see :class:`tnet.backbones.features.BatchNorm`.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnet.backbones.features import BatchNorm
from tnet.backbones.taps import (
    check_sizes,
    eager_on_cpu,
    gather_taps,
    in_parts,
    weighted,
    windows,
)


class ReceptiveConv(nn.Module):
    """What the convolutions share: the features of each receptive field, and their gathering.

    In the place of ``nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2)``,
    for any number of bands and any odd kernel.

    Args:
        in_channels: channels of the input, C.
        out_channels: channels of the output, O.
        kernel_size: side k of the receptive field, odd.
        stride: step between receptive fields.
        literal: compute as the paper draws it, with the k times larger map.

    Raises:
        UsageError: if the kernel is even or the stride is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        literal: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(kernel_size, stride)
        self.kernel_size, self.stride, self.literal = kernel_size, stride, literal
        taps = kernel_size**2
        self.generate = nn.Conv2d(
            in_channels,
            in_channels * taps,
            kernel_size,
            stride,
            kernel_size // 2,
            groups=in_channels,
            bias=False,
        )
        self.norm = BatchNorm(in_channels * taps)
        self.gather = nn.Conv2d(in_channels, out_channels, kernel_size, stride=kernel_size)
        self.add_attention(in_channels, taps)

    def add_attention(self, in_channels: int, taps: int) -> None:
        """Add the parts that weigh the features."""
        raise NotImplementedError

    def forward(self, x_MCyx: Tensor) -> Tensor:
        """Return (M, O, h, w); h, w as of a convolution with padding k // 2."""
        if self.literal:
            return cast(Tensor, self.gather(self.weighted_map(x_MCyx)))
        # A norm that learns has to see all views together.
        if any(part.training for part in self.modules()) or not eager_on_cpu(x_MCyx):
            return gather_taps(self.weighted_taps(x_MCyx), self.gather)
        values = x_MCyx.shape[1:].numel() * self.kernel_size**2 // self.stride**2
        return in_parts(lambda x: gather_taps(self.weighted_taps(x), self.gather), x_MCyx, values)

    def weighted_taps(self, x_MCyx: Tensor) -> Tensor:
        """Return the weighted features of each receptive field, (M, C, T, h, w)."""
        raise NotImplementedError

    def soft_attention(self, x_MCyx: Tensor) -> Tensor:
        """Return the mean spatial weight over the channels, (M, rows, columns), from 0 on.

        RFAConv's map is as large as its input and says how much weight each pixel has in the
        receptive fields that it lies in, 1 if all of a field's pixels weigh the same. Those of
        the others are k times larger than their output, and lie between 0 and 1.
        """
        raise NotImplementedError

    def weighted_map(self, x_MCyx: Tensor) -> Tensor:
        """Return the same as a map k times larger, (M, C, H, W), step by step as in the paper."""
        raise NotImplementedError

    def features(self, windows_MCThw: Tensor) -> Tensor:
        """Return ReLU(Norm(generate(x))), (M, C, T, h, w), from the windows of x."""
        taps, shape = windows_MCThw.shape[2], windows_MCThw.shape
        kernels_CTT = self.generate.weight.reshape(-1, taps, taps)
        generated_MCTp = kernels_CTT @ windows_MCThw.flatten(3)
        normed_MKhw = self.norm(generated_MCTp.view(shape[0], shape[1] * taps, *shape[3:]))
        return F.relu(normed_MKhw, inplace=True).view(shape)

    def feature_map(self, x_MCyx: Tensor) -> Tensor:
        """Return the features as a map k times larger, (M, C, H, W)."""
        return F.pixel_shuffle(F.relu(self.norm(self.generate(x_MCyx))), self.kernel_size)

    def extra_repr(self) -> str:
        """Say which form computes."""
        return f"literal={self.literal}"


class RFAConv(ReceptiveConv):
    """Softmax over the taps, from the mean of the receptive field.

    The paper's softmax(g_1x1(AvgPool(X))) * ReLU(Norm(g_kxk(X))), where g are convolutions with
    a group per channel.
    Arguments as of :class:`ReceptiveConv`.
    """

    def add_attention(self, in_channels: int, taps: int) -> None:
        """Add the parts that weigh the features."""
        self.weigh = nn.Conv2d(in_channels, in_channels * taps, 1, groups=in_channels, bias=False)

    def weighted_taps(self, x_MCyx: Tensor) -> Tensor:
        """Return the features weighted by the softmax over T, (M, C, T, h, w)."""
        windows_MCThw = windows(x_MCyx, self.kernel_size, self.stride)
        return weighted(self.features(windows_MCThw), self.weights(windows_MCThw))

    def weights(self, windows_MCThw: Tensor) -> Tensor:
        """Return the weights of each receptive field's taps, (M, C, T, h, w), which sum to 1."""
        # Pooling counts the zeros beyond the border, so that it is the mean of the windows.
        mean_MC1p = windows_MCThw.flatten(3).mean(2, keepdim=True)
        taps_CT1 = self.weigh.weight.reshape(-1, windows_MCThw.shape[2], 1)
        logits_MCThw = (taps_CT1 @ mean_MC1p).view(windows_MCThw.shape)
        return logits_MCThw.softmax(2)

    def soft_attention(self, x_MCyx: Tensor) -> Tensor:
        """Return the weight of each pixel in its receptive fields, (M, rows, columns)."""
        k, size = self.kernel_size, x_MCyx.shape[2:]
        mean_MThw = self.weights(windows(x_MCyx, k, self.stride)).mean(dim=1)

        def onto_pixels(taps_MThw: Tensor) -> Tensor:
            return F.fold(taps_MThw.flatten(2), size, k, padding=k // 2, stride=self.stride)[:, 0]

        even = torch.full_like(mean_MThw, 1 / k**2)
        return onto_pixels(mean_MThw) / onto_pixels(even).clamp_min(1e-12)

    def weighted_map(self, x_MCyx: Tensor) -> Tensor:
        """Return (M, C, H, W), step by step as in the paper."""
        k = self.kernel_size
        logits_MKhw = self.weigh(F.avg_pool2d(x_MCyx, k, self.stride, k // 2))
        weights_MCThw = logits_MKhw.unflatten(1, (-1, k * k)).softmax(2)
        features_MKhw = F.relu(self.norm(self.generate(x_MCyx)))
        weighted_MCThw = weights_MCThw * features_MKhw.unflatten(1, (-1, k * k))
        return F.pixel_shuffle(weighted_MCThw.flatten(1, 2), k)


class RFCBAMConv(ReceptiveConv):
    """Channel attention from the input, spatial attention from the features of all taps.

    The hidden width of the channel attention is 16 whatever C, as in the original code, where
    the paper divides C by a ratio; the published parameter counts include it so. The spatial
    attention sees the features before they are weighted. Arguments as of :class:`ReceptiveConv`.
    """

    def add_attention(self, in_channels: int, taps: int) -> None:
        """Add the parts that weigh the features."""
        self.channel = nn.Sequential(
            nn.Linear(in_channels, 16, bias=False),
            nn.ReLU(),
            nn.Linear(16, in_channels, bias=False),
            nn.Sigmoid(),
        )
        self.spatial = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def weighted_taps(self, x_MCyx: Tensor) -> Tensor:
        """Return the features weighted by both attentions, (M, C, T, h, w)."""
        features_MCThw = self.features(windows(x_MCyx, self.kernel_size, self.stride))
        spatial_M1HW = self.spatial_weights(features_MCThw)
        spatial_M1Thw = F.pixel_unshuffle(spatial_M1HW, self.kernel_size)[:, None]
        channel_MC111 = self.channel(x_MCyx.mean((2, 3)))[:, :, None, None, None]
        return weighted(features_MCThw, channel_MC111, spatial_M1Thw)

    def spatial_weights(self, features_MCThw: Tensor) -> Tensor:
        """Return the weights of the k times larger map's places, (M, 1, H, W)."""
        # Only these two summaries become a map k times larger, where the 3x3 looks across taps.
        summaries_MKhw = torch.cat([features_MCThw.amax(1), features_MCThw.mean(1)], 1)
        return self.spatial(F.pixel_shuffle(summaries_MKhw, self.kernel_size)).sigmoid()

    def soft_attention(self, x_MCyx: Tensor) -> Tensor:
        """Return the spatial weights, (M, H, W); the channels' are left out."""
        windows_MCThw = windows(x_MCyx, self.kernel_size, self.stride)
        return self.spatial_weights(self.features(windows_MCThw))[:, 0]

    def weighted_map(self, x_MCyx: Tensor) -> Tensor:
        """Return (M, C, H, W), step by step as in the paper."""
        map_MCHW = self.feature_map(x_MCyx)
        summaries_M2HW = torch.cat([map_MCHW.amax(1, True), map_MCHW.mean(1, True)], 1)
        channel_MC11 = self.channel(x_MCyx.mean((2, 3)))[:, :, None, None]
        return map_MCHW * channel_MC11 * self.spatial(summaries_M2HW).sigmoid()


class RFCAConv(ReceptiveConv):
    """Coordinate attention (arXiv:2103.02907) over the features of all taps.

    Each row and each column of the k times larger map has a weight per channel, from its mean.
    Arguments as of :class:`ReceptiveConv`.
    """

    def add_attention(self, in_channels: int, taps: int) -> None:
        """Add the parts that weigh the features."""
        hidden = max(8, in_channels // 32)
        self.squeeze = nn.Conv2d(in_channels, hidden, 1)
        self.squeeze_norm = BatchNorm(hidden)
        self.rows = nn.Conv2d(hidden, in_channels, 1)
        self.columns = nn.Conv2d(hidden, in_channels, 1)

    def weighted_taps(self, x_MCyx: Tensor) -> Tensor:
        """Return the features weighted by row and column, (M, C, T, h, w)."""
        k = self.kernel_size
        features_MCThw = self.features(windows(x_MCyx, k, self.stride))
        # Tap (i, j) of place (y, x) is row y k + i and column x k + j of the larger map.
        features_MCijyx = features_MCThw.unflatten(2, (k, k))
        # The mean over taps first: it is the fast one, and leaves a third to the other.
        rows_MCyi = features_MCijyx.mean(3).mean(4).transpose(2, 3)
        columns_MCxj = features_MCijyx.mean(2).mean(3).transpose(2, 3)
        rows_MCH, columns_MCW = self.coordinates(rows_MCyi.flatten(2), columns_MCxj.flatten(2))
        by_row = rows_MCH.unflatten(2, (-1, k)).transpose(2, 3)[:, :, :, None, :, None]
        by_column = columns_MCW.unflatten(2, (-1, k)).transpose(2, 3)[:, :, None, :, None, :]
        return weighted(features_MCijyx, by_column, by_row).flatten(2, 3)

    def weighted_map(self, x_MCyx: Tensor) -> Tensor:
        """Return (M, C, H, W), step by step as in the paper."""
        map_MCHW = self.feature_map(x_MCyx)
        rows_MCH, columns_MCW = self.coordinates(map_MCHW.mean(3), map_MCHW.mean(2))
        return map_MCHW * columns_MCW[:, :, None, :] * rows_MCH[:, :, :, None]

    def soft_attention(self, x_MCyx: Tensor) -> Tensor:
        """Return the mean over the channels of row times column weight, (M, H, W)."""
        map_MCHW = self.feature_map(x_MCyx)
        rows_MCH, columns_MCW = self.coordinates(map_MCHW.mean(3), map_MCHW.mean(2))
        return torch.einsum("mcy,mcx->myx", rows_MCH, columns_MCW) / rows_MCH.shape[1]

    def coordinates(self, rows_MCH: Tensor, columns_MCW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of rows (M, C, H) and columns (M, C, W) from their means."""
        means_MCL1 = torch.cat([rows_MCH, columns_MCW], 2)[..., None]
        hidden = F.hardswish(self.squeeze_norm(self.squeeze(means_MCL1)))
        rows, columns = hidden.split([rows_MCH.shape[2], columns_MCW.shape[2]], 2)
        return self.rows(rows).sigmoid()[..., 0], self.columns(columns).sigmoid()[..., 0]


class UnfoldRFAConv(nn.Module):
    """RFAConv's other variant, which weighs the pixels themselves, not generated features.

    The logits of the taps come from all pixels of the receptive field, through a 1x1 convolution
    with a group per channel and a batch norm. The paper's results are not from this one, and no
    network here uses it.

    Args:
        in_channels: channels of the input, C.
        out_channels: channels of the output, O.
        kernel_size: side k of the receptive field, odd.
        stride: step between receptive fields; the original knows 1 only.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1
    ) -> None:
        super().__init__()
        check_sizes(kernel_size, stride)
        self.kernel_size, self.stride = kernel_size, stride
        taps = kernel_size**2
        self.weigh = nn.Conv2d(in_channels * taps, in_channels * taps, 1, groups=in_channels)
        self.weigh_norm = BatchNorm(in_channels * taps)
        self.gather = nn.Conv2d(in_channels, out_channels, kernel_size, stride=kernel_size)

    def forward(self, x_MCyx: Tensor) -> Tensor:
        """Return (M, O, h, w); h, w as of a convolution with padding k // 2."""
        windows_MCThw = windows(x_MCyx, self.kernel_size, self.stride)
        logits_MKhw = self.weigh_norm(self.weigh(windows_MCThw.flatten(1, 2)))
        weights_MCThw = logits_MKhw.view(windows_MCThw.shape).softmax(2)
        return gather_taps(windows_MCThw * weights_MCThw, self.gather)
