"""Residual networks whose blocks fuse branch and shortcut, by attention or by adding them.

Source: Dai et al., "Attentional Feature Fusion", WACV 2021, and the authors' networks
(YimianDai/open-aff). The variants are in :mod:`tnet.backbones.aff` (the paper's) and
:mod:`tnet.backbones.aff_port` (their PyTorch port's).
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from tnet.backbones.features import BatchNorm, ChannelsLast, Stage, StagedNetwork
from tnet.backbones.fusion import FusionName, fusion


@dataclass(frozen=True)
class Layout:
    """How a residual network is laid out.

    Attributes:
        depths: blocks of each stage.
        widths: channels of each stage's 3x3 convolutions, before ``groups`` changes them.
        stem_width: channels that the first stage gets.
        stem: "deep" (three 3x3 convolutions) and "plain" (7x7), both with pooling; "cifar"
            (one 3x3 convolution at full resolution).
        block: "bottleneck" and "basic" end with ReLU (He et al., 2016); "preactivation" has its
            norms and ReLUs before the convolutions and none after the fusion.
        groups: 32 for ResNeXt 32x4d: 32 groups of 4 channels for each 64 of the width.
        reduction: r of the fusion.
        start: number of the first stage, from 1, whose blocks fuse by attention; those before
            add.
        pooled_shortcut: whether a shortcut shrinks by average pooling, or else by a strided
            convolution.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem_width: int = 64
    stem: Literal["deep", "plain", "cifar"] = "deep"
    block: Literal["bottleneck", "basic", "preactivation"] = "bottleneck"
    groups: int = 1
    reduction: int = 16
    start: int = 3
    pooled_shortcut: bool = True


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def _chain(convs: list[nn.Conv2d], bare: bool = False) -> "OrderedDict[str, nn.Module]":
    """Return the convolutions, each with its norm and ReLU; ``bare`` leaves out the last ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, conv in enumerate(convs, start=1):
        layers[f"conv{i}"] = conv
        layers[f"norm{i}"] = BatchNorm(conv.out_channels)
        layers[f"act{i}"] = nn.ReLU(inplace=True)
    if bare:
        layers.popitem()
    return layers


def _branch(layout: Layout, inputs: int, width: int, stride: int) -> tuple[nn.Sequential, int]:
    """Return a block's residual branch and how many channels come out of it."""
    if layout.block == "preactivation":
        pairs = [
            ("norm1", BatchNorm(inputs)),
            ("act1", nn.ReLU(inplace=True)),
            ("conv1", _conv(inputs, width, 3, stride)),
            ("norm2", BatchNorm(width)),
            ("act2", nn.ReLU(inplace=True)),
            ("conv2", _conv(width, width, 3)),
        ]
        return nn.Sequential(OrderedDict(pairs)), width
    if layout.block == "basic":
        convs = [_conv(inputs, width, 3, stride), _conv(width, width, 3)]
        return nn.Sequential(_chain(convs, bare=True)), width
    inside = width if layout.groups == 1 else layout.groups * (width * 4 // 64)
    convs = [
        _conv(inputs, inside, 1),
        _conv(inside, inside, 3, stride, layout.groups),
        _conv(inside, 4 * width, 1),
    ]
    return nn.Sequential(_chain(convs, bare=True)), 4 * width


def _shortcut(layout: Layout, inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if layout.pooled_shortcut and stride > 1:
        layers["pool"] = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        stride = 1
    layers["conv"] = _conv(inputs, outputs, 1, stride)
    if layout.block != "preactivation":
        layers["norm"] = BatchNorm(outputs)
    return nn.Sequential(layers)


class FusedBlock(nn.Module):
    """A residual block whose branch and shortcut are fused: act(fusion(branch(x), shortcut(x))).

    Args:
        layout: of the network.
        inputs: channels that come in.
        width: of the stage, see :class:`Layout`.
        stride: of the block.
        fuse: "add", "aff" or "iaff".
    """

    def __init__(
        self, layout: Layout, inputs: int, width: int, stride: int, fuse: FusionName
    ) -> None:
        super().__init__()
        self.branch, self.channels = _branch(layout, inputs, width, stride)
        self.shortcut = _shortcut(layout, inputs, self.channels, stride)
        self.fusion = fusion(fuse, self.channels, layout.reduction)
        last = layout.block == "preactivation"
        self.act = nn.Identity() if last else nn.ReLU(inplace=True)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return the block's map, float (M, channels, H / stride, W / stride)."""
        return self.act(self.fusion(self.branch(x_MCHW), self.shortcut(x_MCHW)))


class AFFResNet(StagedNetwork):
    """A residual network with attentional feature fusion.

    Args:
        layout: of stem and stages.
        fuse: "aff", "iaff", or "add" for the same network without attention.
        in_chans: bands of the images.
        head: ``num_classes``, ``global_pool`` and ``drop_rate``, as for :class:`StagedNetwork`.
    """

    def __init__(
        self, layout: Layout, fuse: FusionName = "aff", in_chans: int = 3, **head: Any
    ) -> None:
        stem = _stem(layout, in_chans)
        channels, reduction = layout.stem_width, 1 if layout.stem == "cifar" else 4
        stages = []
        for i, (depth, width) in enumerate(zip(layout.depths, layout.widths, strict=True)):
            chosen: FusionName = fuse if i + 1 >= layout.start else "add"
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                block = FusedBlock(layout, channels, width, stride, chosen)
                blocks[str(j)], channels = block, block.channels
                reduction *= stride
            if layout.block == "preactivation" and i + 1 == len(layout.depths):
                blocks |= {"norm": BatchNorm(channels), "act": nn.ReLU(inplace=True)}
            stages.append(Stage(nn.Sequential(blocks), channels, reduction))
        super().__init__(stem, stages, **head)
        self._initialise(layout.stem == "cifar")

    def _initialise(self, cifar: bool) -> None:
        """Draw weights as the authors do: Xavier for CIFAR, He with slope 1/4 for ImageNet.

        A branch that ends in a norm starts at zero.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fans = module.weight.shape[0] + module.weight.shape[1]
                field = module.weight[0, 0].numel()
                if cifar:
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.normal_(module.weight, std=(4 / (1 + 0.25**2) / fans / field) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, FusedBlock) and isinstance(module.branch[-1], BatchNorm):
                nn.init.zeros_(module.branch[-1].weight)


def _stem(layout: Layout, bands: int) -> nn.Sequential:
    width = layout.stem_width
    layers: OrderedDict[str, nn.Module] = OrderedDict(layout=ChannelsLast())
    if layout.block == "preactivation":
        # The input is standardised by what training saw of it, without a learned scale.
        layers |= {"norm": BatchNorm(bands, affine=False), "conv1": _conv(bands, width, 3)}
        return nn.Sequential(layers)
    if layout.stem == "cifar":
        return nn.Sequential(layers | _chain([_conv(bands, width, 3)]))
    convs = [_conv(bands, width, 7, 2)]
    if layout.stem == "deep":
        half = width // 2
        convs = [_conv(bands, half, 3, 2), _conv(half, half, 3), _conv(half, width, 3)]
    return nn.Sequential(layers | _chain(convs) | {"pool": nn.MaxPool2d(3, 2, 1)})
