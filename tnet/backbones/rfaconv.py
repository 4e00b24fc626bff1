"""ResNets with receptive-field attention: RFAConv, RFCBAMConv and RFCAConv in each block.

Source: Zhang et al., "RFAConv: Innovating Spatial Attention and Standard Convolutional
Operation", arXiv:2304.03198, and the code released with it.

In each block of ResNet-18 and 34 the first 3x3 convolution, which carries the stride, is
replaced. The released code leaves the bottlenecks of ResNet-50 as they are, so that its
RFAresnet50 is a plain ResNet-50; here their 3x3 convolution is replaced. Everything else is
timm's ResNet, which has the released networks' layers and names. M views, C channels.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from tnet.backbones.features import BatchNorm, default_cfg
from tnet.backbones.receptive import ReceptiveConv, RFAConv, RFCAConv, RFCBAMConv
from tnet.errors import DataError, UsageError

CONVOLUTIONS: dict[str, type[ReceptiveConv]] = {
    "rfaconv": RFAConv,
    "rfcbamconv": RFCBAMConv,
    "rfcaconv": RFCAConv,
}


class ReceptiveBasicBlock(BasicBlock):
    """timm's basic block, its first 3x3 convolution replaced.

    Args:
        args: as of timm's block.
        convolution: makes the replacement from channels in and out, kernel size and stride.
        options: as of timm's block.
    """

    def __init__(self, *args: Any, convolution: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conv1 = replaced(self.conv1, convolution)


class ReceptiveBottleneck(Bottleneck):
    """timm's bottleneck, its 3x3 convolution replaced; arguments as of the basic block."""

    def __init__(self, *args: Any, convolution: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conv2 = replaced(self.conv2, convolution)


def replaced(conv: nn.Conv2d, convolution: Any) -> Any:
    """Return the convolution that takes the place of a plain one.

    Raises:
        UsageError: if the plain one is dilated or has groups, which these convolutions lack.
    """
    if conv.dilation != (1, 1) or conv.groups != 1:
        raise UsageError(
            "a receptive-field attention convolution has neither dilation nor groups; "
            "leave output_stride at 32, cardinality at 1"
        )
    return convolution(
        conv.in_channels, conv.out_channels, conv.kernel_size[0], stride=conv.stride[0]
    )


# Where a weight of a convolution stands in the released code, and where it does here.
_PLACES = {
    "conv.0": "gather",
    "conv": "gather",
    "generate_feature.0": "generate",
    "generate_feature.1": "norm",
    "get_weight.1": "weigh",
    "get_weights.0": "weigh",
    "get_weights.1": "weigh_norm",
    "generate.0": "generate",
    "generate.1": "norm",
    "get_weight.0": "spatial",
    "se.fc.0": "channel.0",
    "se.fc.2": "channel.2",
    "conv1": "squeeze",
    "bn1": "squeeze_norm",
    "conv_h": "rows",
    "conv_w": "columns",
}
_IN_BLOCK = re.compile(r"(layer\d+\.\d+\.conv1\.)(.+)")


def rename_part(key: str) -> str:
    """Return our name of a weight of a single convolution of the released code."""
    place, _, kind = key.rpartition(".")
    return f"{_PLACES[place]}.{kind}" if place in _PLACES else key


def rename(key: str) -> str:
    """Return our name of a weight of a whole network of the released code.

    ``module.layer1.0.conv1.se.fc.0.weight`` is ``layer1.0.conv1.channel.0.weight`` here.
    """
    key = key.removeprefix("module.")
    if found := _IN_BLOCK.fullmatch(key):
        return found[1] + rename_part(found[2])
    return key


def from_official(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return our state of a network from a checkpoint of the released code.

    Args:
        checkpoint: a state, or a dict that holds it as ``model_state_dict``, as the released
            files do; the names may begin with ``module.``.

    Raises:
        DataError: if it holds no receptive-field attention at all.
    """
    state: Mapping[str, Tensor] = checkpoint.get("model_state_dict", checkpoint)
    ours = {rename(key): value for key, value in state.items()}
    if not any(key.endswith(".gather.weight") for key in ours):
        raise DataError(
            "the checkpoint has no receptive-field attention (the released RFAresnet50 is a plain "
            "ResNet-50): load it as timm's resnet50, or give one of an RFA, RFCBAM or RFCA network"
        )
    return ours


# The released code validates on images resized to 224, not on the middle of larger ones.
_CFG = default_cfg("conv1", classifier="fc", crop_pct=1.0, interpolation="bilinear")
default_cfgs = generate_default_cfgs(
    {f"{kind}_resnet{depth}": _CFG for kind in CONVOLUTIONS for depth in (18, 34, 50)}
)


def _resnet(
    name: str, block: type[nn.Module], layers: list[int], pretrained: bool, options: dict[str, Any]
) -> Any:
    """Build a network; ``literal=True`` among the options computes as the paper draws it."""
    if pretrained:
        raise UsageError(
            f"{name!r} has no weights that timm could download; convert an official checkpoint "
            f"with `tnet models import CHECKPOINT --arch {name} -o model.safetensors`"
        )
    convolution = CONVOLUTIONS[name.partition("_")[0]]
    literal = options.pop("literal", False)
    # As released: the last batch norm of a block starts at 1, where timm's default is 0.
    options = {"norm_layer": BatchNorm, "zero_init_last": False, **options}
    return build_model_with_cfg(
        ResNet,
        name,
        pretrained=False,
        block=block,
        layers=layers,
        block_args={"convolution": partial(convolution, literal=literal)},
        **options,
    )


_resnet18 = partial(_resnet, block=ReceptiveBasicBlock, layers=[2, 2, 2, 2])
_resnet34 = partial(_resnet, block=ReceptiveBasicBlock, layers=[3, 4, 6, 3])
_resnet50 = partial(_resnet, block=ReceptiveBottleneck, layers=[3, 4, 6, 3])


@register_model
def rfaconv_resnet18(pretrained: bool = False, **options: Any) -> Any:
    """ResNet-18 with RFAConv, 11.9 M parameters."""
    return _resnet18("rfaconv_resnet18", pretrained=pretrained, options=options)


@register_model
def rfaconv_resnet34(pretrained: bool = False, **options: Any) -> Any:
    """ResNet-34 with RFAConv, 22.2 M parameters."""
    return _resnet34("rfaconv_resnet34", pretrained=pretrained, options=options)


@register_model
def rfaconv_resnet50(pretrained: bool = False, **options: Any) -> Any:
    """ResNet-50 with RFAConv, 26.0 M parameters."""
    return _resnet50("rfaconv_resnet50", pretrained=pretrained, options=options)


@register_model
def rfcbamconv_resnet18(pretrained: bool = False, **options: Any) -> Any:
    """ResNet-18 with RFCBAMConv, 11.9 M parameters."""
    return _resnet18("rfcbamconv_resnet18", pretrained=pretrained, options=options)


@register_model
def rfcbamconv_resnet34(pretrained: bool = False, **options: Any) -> Any:
    """ResNet-34 with RFCBAMConv, 22.2 M parameters."""
    return _resnet34("rfcbamconv_resnet34", pretrained=pretrained, options=options)


@register_model
def rfcbamconv_resnet50(pretrained: bool = False, **options: Any) -> Any:
    """ResNet-50 with RFCBAMConv, 26.1 M parameters."""
    return _resnet50("rfcbamconv_resnet50", pretrained=pretrained, options=options)


@register_model
def rfcaconv_resnet18(pretrained: bool = False, **options: Any) -> Any:
    """ResNet-18 with RFCAConv, 11.9 M parameters."""
    return _resnet18("rfcaconv_resnet18", pretrained=pretrained, options=options)


@register_model
def rfcaconv_resnet34(pretrained: bool = False, **options: Any) -> Any:
    """ResNet-34 with RFCAConv, 22.2 M parameters."""
    return _resnet34("rfcaconv_resnet34", pretrained=pretrained, options=options)


@register_model
def rfcaconv_resnet50(pretrained: bool = False, **options: Any) -> Any:
    """ResNet-50 with RFCAConv, 26.1 M parameters."""
    return _resnet50("rfcaconv_resnet50", pretrained=pretrained, options=options)
