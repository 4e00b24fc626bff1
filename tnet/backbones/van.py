"""VAN: attention by large kernels, B0 to B6.

Source: Guo et al., "Visual Attention Network", Computational Visual Media 9 (2023),
arXiv 2202.09741; where the released code differs (the shortcut around the attention), the code.

M views, C channels, H rows, W columns. H and W may be any, and M may be 1 in training too: see
:class:`tnet.backbones.features.BatchNorm`.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import DropPath, LayerNorm2d, trunc_normal_
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from tnet.backbones.features import (
    BatchNorm,
    Stage,
    StagedNetwork,
    build,
    default_cfg,
    kaiming_fan_out,
)
from tnet.backbones.large_kernel import LargeKernelAttention

# Hidden channels of the MLP for each channel of the stage, in all variants.
MLP_RATIOS = (8, 8, 4, 4)

# Channels and blocks of the four stages.
VARIANTS: dict[str, tuple[Sequence[int], Sequence[int]]] = {
    "van_b0": ((32, 64, 160, 256), (3, 3, 5, 2)),
    "van_b1": ((64, 128, 320, 512), (2, 2, 4, 2)),
    "van_b2": ((64, 128, 320, 512), (3, 3, 12, 3)),
    "van_b3": ((64, 128, 320, 512), (3, 5, 27, 3)),
    "van_b4": ((64, 128, 320, 512), (3, 6, 40, 3)),
    "van_b5": ((96, 192, 480, 768), (3, 3, 24, 3)),
    "van_b6": ((96, 192, 384, 768), (6, 6, 90, 6)),
}


class Attention(nn.Module):
    """1 x 1, GELU, large-kernel attention, 1 x 1, added to what came in.

    The paper writes of x + diag(l) (f(x) + x); in the released code this inner x is the block's
    normalised input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, channels, 1)
        self.gate = LargeKernelAttention(channels)
        self.leave = nn.Conv2d(channels, channels, 1)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return a map (M, C, H, W)."""
        return self.leave(self.gate(F.gelu(self.enter(x_MCHW)))) + x_MCHW


class Mlp(nn.Module):
    """1 x 1, depthwise 3 x 3, GELU, 1 x 1."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.spread = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.contract = nn.Conv2d(hidden, channels, 1)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return a map (M, C, H, W)."""
        return self.contract(F.gelu(self.spread(self.expand(x_MCHW))))


class Block(nn.Module):
    """Attention and MLP, each after a batch norm, scaled per channel and added.

    Args:
        channels: C.
        ratio: hidden channels of the MLP for each of the C.
        drop_path: probability that a branch is left out for a view while training.
    """

    def __init__(self, channels: int, ratio: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = BatchNorm(channels)
        self.attention = Attention(channels)
        self.scale1 = nn.Parameter(torch.full((channels,), 1e-2))
        self.norm2 = BatchNorm(channels)
        self.mlp = Mlp(channels, channels * ratio)
        self.scale2 = nn.Parameter(torch.full((channels,), 1e-2))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return a map (M, C, H, W)."""
        x = _add_scaled(x_MCHW, self.drop_path(self.attention(self.norm1(x_MCHW))), self.scale1)
        return _add_scaled(x, self.drop_path(self.mlp(self.norm2(x))), self.scale2)


def _add_scaled(x_MCHW: Tensor, branch_MCHW: Tensor, scale_C: Tensor) -> Tensor:
    """Return x + scale * branch in one pass over memory."""
    return torch.addcmul(x_MCHW, branch_MCHW, scale_C[:, None, None])


class PatchEmbed(nn.Module):
    """A strided convolution of overlapping patches, and a batch norm."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride=stride, padding=kernel // 2)
        self.norm = BatchNorm(channels)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return a map (M, channels, H / stride, W / stride), sizes rounded up."""
        return self.norm(self.conv(x_MCHW))


class VanStage(nn.Module):
    """A patch embedding, blocks, and a layer norm over the channels of each pixel."""

    def __init__(self, embed: PatchEmbed, blocks: Sequence[Block], channels: int) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.Sequential(*blocks)
        self.norm = LayerNorm2d(channels, eps=1e-6)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return a map (M, channels, h, w)."""
        # A pixel's channels side by side: the layer norm copies nothing, and on a CPU the
        # depthwise convolutions take up to a seventh of the time.
        x_MCHW = x_MCHW.contiguous(memory_format=torch.channels_last)
        return self.norm(self.blocks(self.embed(x_MCHW)))


class VAN(StagedNetwork):
    """A network of four stages, of strides 4, 8, 16 and 32.

    Args:
        channels: of each stage.
        depths: blocks of each stage.
        in_chans: bands of the image.
        drop_path_rate: rate of stochastic depth of the last block; it grows from 0 at the first.
        head: num_classes, global_pool and drop_rate of :class:`StagedNetwork`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        depths: Sequence[int],
        *,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
        **head: Any,
    ) -> None:
        last = max(1, sum(depths) - 1)
        rates = iter([drop_path_rate * number / last for number in range(sum(depths))])
        stages, channels_in = [], in_chans
        for i, (width, depth, ratio) in enumerate(zip(channels, depths, MLP_RATIOS, strict=True)):
            kernel, stride = (7, 4) if i == 0 else (3, 2)
            embed = PatchEmbed(channels_in, width, kernel, stride)
            blocks = [Block(width, ratio, drop_path=next(rates)) for _ in range(depth)]
            stages.append(Stage(VanStage(embed, blocks, width), width, 4 * 2**i))
            channels_in = width
        super().__init__(nn.Identity(), stages, **head)
        self.apply(_init)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        kaiming_fan_out(module)
    elif isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


# Our name, and what the released code and mmpretrain call it.
_PARTS = {
    "conv": ("proj", "projection"),
    "attention": ("attn",),
    "enter": ("proj_1",),
    "leave": ("proj_2",),
    "gate": ("spatial_gating_unit",),
    "local": ("conv0", "DW_conv"),
    "distant": ("conv_spatial", "DW_D_conv"),
    "mix": ("conv1",),
    "expand": ("fc1",),
    "spread": ("dwconv",),
    "contract": ("fc2",),
    "scale1": ("layer_scale_1",),
    "scale2": ("layer_scale_2",),
}
_OURS = {theirs: ours for ours, names in _PARTS.items() for theirs in names}
_STAGE = re.compile(r"(patch_embed|blocks?|norm)([1-4])")
_OF_STAGE = {"patch_embed": "embed", "block": "blocks", "blocks": "blocks", "norm": "norm"}


def rename(key: str) -> str:
    """Return our name of a weight of a whole network of the released code, or of mmpretrain's.

    ``block1.0.mlp.fc1.bias`` is ``stages.0.blocks.0.mlp.expand.bias``; foreign keys stay.
    """
    key = key.removeprefix("module.").removeprefix("backbone.").replace("dwconv.dwconv", "dwconv")
    first, *rest = key.split(".")
    if first == "head":
        return f"head.fc.{rest[-1]}"
    if not (of_stage := _STAGE.fullmatch(first)):
        return key
    first = f"stages.{int(of_stage[2]) - 1}.{_OF_STAGE[of_stage[1]]}"
    return ".".join([first, *(_OURS.get(part, part) for part in rest)])


def from_official(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return our state of a VAN from a checkpoint of the released code or of mmpretrain.

    Args:
        checkpoint: a state, or a dict with a ``state_dict``, as in the files ``van_*.pth.tar``.
    """
    state: Mapping[str, Tensor] = checkpoint.get("state_dict", checkpoint)
    return {rename(key): value for key, value in state.items()}


# Networks trained on ImageNet-1K alone see images scaled to -1..1; those that began on 22K see
# ImageNet's mean and deviation.
_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop_pct": 0.9}
_384 = {"input_size": (3, 384, 384), "pool_size": (12, 12), "crop_pct": 1.0, "crop_mode": "squash"}
_TAGS: dict[str, tuple[range, dict[str, Any]]] = {
    "in1k": (range(5), _HALF),
    "in22k_ft_in1k": (range(4, 7), {}),
    "in22k_ft_in1k_384": (range(4, 7), _384),
}
default_cfgs = generate_default_cfgs(
    {
        f"van_b{number}.{tag}": default_cfg("stages.0.embed.conv", **changes)
        for tag, (numbers, changes) in _TAGS.items()
        for number in numbers
    }
)


@register_model
def van_b0(pretrained: bool = False, **options: Any) -> Any:
    """VAN-B0, 4.1 M parameters."""
    return build(partial(VAN, *VARIANTS["van_b0"]), "van_b0", pretrained=pretrained, **options)


@register_model
def van_b1(pretrained: bool = False, **options: Any) -> Any:
    """VAN-B1, 13.9 M parameters."""
    return build(partial(VAN, *VARIANTS["van_b1"]), "van_b1", pretrained=pretrained, **options)


@register_model
def van_b2(pretrained: bool = False, **options: Any) -> Any:
    """VAN-B2, 26.6 M parameters."""
    return build(partial(VAN, *VARIANTS["van_b2"]), "van_b2", pretrained=pretrained, **options)


@register_model
def van_b3(pretrained: bool = False, **options: Any) -> Any:
    """VAN-B3, 44.8 M parameters."""
    return build(partial(VAN, *VARIANTS["van_b3"]), "van_b3", pretrained=pretrained, **options)


@register_model
def van_b4(pretrained: bool = False, **options: Any) -> Any:
    """VAN-B4, 60.3 M parameters."""
    return build(partial(VAN, *VARIANTS["van_b4"]), "van_b4", pretrained=pretrained, **options)


@register_model
def van_b5(pretrained: bool = False, **options: Any) -> Any:
    """VAN-B5, 90.0 M parameters."""
    return build(partial(VAN, *VARIANTS["van_b5"]), "van_b5", pretrained=pretrained, **options)


@register_model
def van_b6(pretrained: bool = False, **options: Any) -> Any:
    """VAN-B6, 199.8 M parameters."""
    return build(partial(VAN, *VARIANTS["van_b6"]), "van_b6", pretrained=pretrained, **options)
