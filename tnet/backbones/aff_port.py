"""The AFF networks of open-aff's PyTorch port, and checkpoints of theirs.

Source: YimianDai/open-aff, folder ``aff_pytorch``. The authors call it untested; it is here for
the sake of weights trained with it. It differs from the paper's networks
(:mod:`tnet.backbones.aff`): a plain ResNet's stem and shortcuts, and fusion with reduction 4 in
every block, which makes an AFF-ResNet-50 of 45.8 M parameters instead of 30.4 M.

Its iAFF never calls the second global context and uses the first one twice. Here the second
context is alive, and :func:`from_official` gives it the first one's weights: the very function
that the port computes.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor

from tnet.backbones.aff import blocks_renamed
from tnet.backbones.features import build, default_cfg
from tnet.backbones.fused_resnet import AFFResNet, Layout
from tnet.backbones.fusion import FusionName
from tnet.errors import DataError

RESNET18 = Layout(
    (2, 2, 2, 2), stem="plain", block="basic", reduction=4, start=1, pooled_shortcut=False
)
RESNET50 = replace(RESNET18, depths=(3, 4, 6, 3), block="bottleneck")

VARIANTS: dict[str, tuple[Layout, FusionName]] = {
    f"{fuse}_{name}_port": (layout, fuse)
    for name, layout in {
        "resnet18": RESNET18,
        "resnet34": replace(RESNET18, depths=(3, 4, 6, 3)),
        "resnet50": RESNET50,
        "resnext50_32x4d": replace(RESNET50, groups=32),
    }.items()
    for fuse in ("aff", "iaff")
}
default_cfgs = generate_default_cfgs({name: default_cfg("stem.conv1") for name in VARIANTS})


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our state of one of the port's networks.

    Raises:
        DataError: if it is of the MXNet networks, which are others.
    """
    if any(".attention.local_att." in key for key in state):
        raise DataError(
            "the checkpoint is of open-aff's MXNet networks, which its PyTorch port's are not; "
            "name the network without '_port', such as aff_resnet50"
        )
    renamed = blocks_renamed(revived(state))
    return {re.sub(r"^(conv|bn)1\.", _stem_name, key): value for key, value in renamed.items()}


def revived(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the second global context, where it's dead, the weights of the first.

    It's alive where its batch norms have counted batches: the checkpoint is then of a mended
    port, and keeps its own weights.

    Args:
        state: of any part of the port, under the port's names.
    """
    result = dict(state)
    for key in state:
        owner, mark, rest = key.rpartition("global_att2.")
        count = state.get(f"{owner}{mark}2.num_batches_tracked")
        if mark and (count is None or not count.any()):
            result[key] = state.get(f"{owner}global_att.{rest}", state[key])
    return result


def _stem_name(found: re.Match[str]) -> str:
    return "stem.conv1." if found[1] == "conv" else "stem.norm1."


def _port(name: str, pretrained: bool, options: dict[str, Any]) -> Any:
    layout, fuse = VARIANTS[name]
    network = partial(AFFResNet, layout, fuse)
    return build(network, name, pretrained=pretrained, **options)


@register_model
def aff_resnet18_port(pretrained: bool = False, **options: Any) -> Any:
    """The port's AFF-ResNet-18, 12.4 M parameters."""
    return _port("aff_resnet18_port", pretrained, options)


@register_model
def iaff_resnet18_port(pretrained: bool = False, **options: Any) -> Any:
    """The port's iAFF-ResNet-18, 13.1 M parameters."""
    return _port("iaff_resnet18_port", pretrained, options)


@register_model
def aff_resnet34_port(pretrained: bool = False, **options: Any) -> Any:
    """The port's AFF-ResNet-34, 23.1 M parameters."""
    return _port("aff_resnet34_port", pretrained, options)


@register_model
def iaff_resnet34_port(pretrained: bool = False, **options: Any) -> Any:
    """The port's iAFF-ResNet-34, 24.4 M parameters."""
    return _port("iaff_resnet34_port", pretrained, options)


@register_model
def aff_resnet50_port(pretrained: bool = False, **options: Any) -> Any:
    """The port's AFF-ResNet-50, 45.8 M parameters."""
    return _port("aff_resnet50_port", pretrained, options)


@register_model
def iaff_resnet50_port(pretrained: bool = False, **options: Any) -> Any:
    """The port's iAFF-ResNet-50, 66.0 M parameters."""
    return _port("iaff_resnet50_port", pretrained, options)


@register_model
def aff_resnext50_32x4d_port(pretrained: bool = False, **options: Any) -> Any:
    """The port's AFF-ResNeXt-50 32x4d, 45.3 M parameters."""
    return _port("aff_resnext50_32x4d_port", pretrained, options)


@register_model
def iaff_resnext50_32x4d_port(pretrained: bool = False, **options: Any) -> Any:
    """The port's iAFF-ResNeXt-50 32x4d, 65.5 M parameters."""
    return _port("iaff_resnext50_32x4d_port", pretrained, options)
