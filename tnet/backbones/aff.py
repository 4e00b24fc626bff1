"""AFF-ResNet and AFF-ResNeXt as the paper has them, and checkpoints of theirs.

Source: Dai et al., "Attentional Feature Fusion", WACV 2021; YimianDai/open-aff, folder ``model``
(MXNet), which the authors call the reference. ImageNet: ResNet-50 and ResNeXt-50 with a deep
stem, average-pooled shortcuts, and fusion with reduction 16 in stages 3 and 4 alone. CIFAR:
pre-activation ResNet-32 with reduction 4, and ResNeXt-38 and -47, fused in every stage.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor

from tnet.backbones.features import build, default_cfg
from tnet.backbones.fused_resnet import AFFResNet, Layout
from tnet.backbones.fusion import FusionName
from tnet.errors import DataError

RESNET50 = Layout((3, 4, 6, 3))
RESNEXT50 = replace(RESNET50, stem_width=128, groups=32)
CIFAR_RESNET32 = Layout(
    (5, 5, 5), (64, 128, 256), stem="cifar", block="preactivation", reduction=4, start=1
)
CIFAR_RESNEXT38 = Layout((4, 4, 4), (64, 128, 256), stem="cifar", groups=32, start=1)

VARIANTS: dict[str, tuple[Layout, FusionName]] = {
    f"{fuse}_{name}": (layout, fuse)
    for name, layout in {
        "resnet50": RESNET50,
        "resnext50_32x4d": RESNEXT50,
        "resnet32_cifar": CIFAR_RESNET32,
        "resnext38_32x4d_cifar": CIFAR_RESNEXT38,
        "resnext47_32x4d_cifar": replace(CIFAR_RESNEXT38, depths=(5, 5, 5)),
    }.items()
    for fuse in ("aff", "iaff")
}
_CIFAR = {
    "num_classes": 100,
    "input_size": (3, 32, 32),
    "pool_size": (8, 8),
    "crop_pct": 1.0,
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2023, 0.1994, 0.2010),
}
default_cfgs = generate_default_cfgs(
    {
        name: default_cfg("stem.conv1", **(_CIFAR if name.endswith("_cifar") else {}))
        for name in VARIANTS
    }
)

# Places in the authors' sequences; those between are ReLUs.
_CHAIN = {"0": "conv1", "1": "norm1", "3": "conv2", "4": "norm2", "6": "conv3", "7": "norm3"}
_PREACTIVATED = {"0": "norm1", "2": "conv1", "3": "norm2", "5": "conv2"}
_LOCAL = {"0": "squeeze", "1": "norm1", "3": "excite", "4": "norm2"}
_GLOBAL = {"1": "squeeze", "2": "norm1", "4": "excite", "5": "norm2"}  # 0 is the pooling


def rename_fusion(key: str) -> str:
    """Return our name of a weight of MS-CAM, AFF or iAFF, as ``local_att2.3.bias`` is one."""
    found = re.fullmatch(r"(local|global)_att(2?)\.(\d)\.(\w+)", key)
    if not found:
        return key
    scope, second, layer, value = found.groups()
    name = (_GLOBAL if scope == "global" else _LOCAL).get(layer, layer)
    return f"attention{second}.{scope}_context.{name}.{value}"


def rename_block(key: str, conv: int = 1) -> str:
    """Return our name of a weight of one residual block.

    Args:
        key: the authors', in MXNet or PyTorch.
        conv: place of the shortcut's convolution, 1 after a pooling and 0 without one.
    """
    first, _, rest = key.partition(".")
    number, _, value = rest.partition(".")
    match first:
        case "attention" | "fuse_mode":
            return f"fusion.{rename_fusion(rest)}"
        case "downsample":
            return f"shortcut.{'conv' if number == str(conv) else 'norm'}.{value}"
        case "body":
            return f"branch.{_CHAIN.get(number, number)}.{value}"
        case "resfwd":
            return f"branch.{_PREACTIVATED.get(number, number)}.{value}"
    return f"branch.{first.replace('bn', 'norm')}.{rest}"


def blocks_renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with the names of blocks, stages and classifier as ours, the stem's as given.

    Args:
        state: of a whole network, with stages ``layer1`` and on, or as a part of ``features``.
    """
    block = re.compile(r"(?:layer|features\.)(\d+)\.(\d+)\.([a-z].*)")
    matches = {key: block.fullmatch(key) for key in state}
    first = min((int(found[1]) for found in matches.values() if found), default=0)
    renamed = {}
    for key, value in state.items():
        name = re.sub(r"^(fc|output)\.", "head.fc.", key)
        if found := matches[key]:
            bare = f"{key[: found.start(3)]}downsample.0.weight" in state
            name = f"stages.{int(found[1]) - first}.{found[2]}."
            name += rename_block(found[3], conv=0 if bare else 1)
        renamed[name] = value
    return renamed


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our state of one of the authors' MXNet networks.

    Args:
        state: arrays under their structural names (``net._collect_params_with_prefix()``), with
            ``gamma`` and ``beta`` or, as PyTorch has it, ``weight`` and ``bias``.

    Raises:
        DataError: if it is of their PyTorch port, whose networks are others.
    """
    if any(".fuse_mode." in key for key in state):
        raise DataError(
            "the checkpoint is of open-aff's PyTorch port, whose networks differ from the paper's "
            "(7x7 stem, fusion in every stage, reduction 4); name the same network with '_port' "
            "behind, such as aff_resnet50_port"
        )
    state = {
        re.sub(r"\bgamma$", "weight", re.sub(r"\bbeta$", "bias", key)): value
        for key, value in state.items()
    }
    renamed = blocks_renamed(state)
    preactivated = any(".resfwd." in key for key in state)
    stages = [int(found[1]) for key in renamed if (found := re.match(r"stages\.(\d+)\.", key))]
    last = max(stages, default=0)
    result = {_rename_stem(key, preactivated, last): value for key, value in renamed.items()}
    # MXNet stores a scale of 1 and an offset of 0 for the norm of the input, which has neither.
    return {k: v for k, v in result.items() if k not in ("stem.norm.weight", "stem.norm.bias")}


def _rename_stem(key: str, preactivated: bool, last: int) -> str:
    if key.startswith("bn1."):
        return key.replace("bn1", "stem.norm3")
    found = re.fullmatch(r"(?:conv1|features)\.(\d+)\.(\w+)", key)
    if not found:
        return key
    number, value = found.groups()
    if not preactivated:
        return f"stem.{_CHAIN.get(number, number)}.{value}"
    return {"0": "stem.norm", "1": "stem.conv1"}.get(number, f"stages.{last}.norm") + f".{value}"


def _aff(name: str, pretrained: bool, options: dict[str, Any]) -> Any:
    layout, fuse = VARIANTS[name]
    network = partial(AFFResNet, layout, fuse)
    return build(network, name, pretrained=pretrained, stages=len(layout.depths), **options)


@register_model
def aff_resnet50(pretrained: bool = False, **options: Any) -> Any:
    """AFF-ResNet-50, 30.4 M parameters."""
    return _aff("aff_resnet50", pretrained, options)


@register_model
def iaff_resnet50(pretrained: bool = False, **options: Any) -> Any:
    """iAFF-ResNet-50, 35.2 M parameters."""
    return _aff("iaff_resnet50", pretrained, options)


@register_model
def aff_resnext50_32x4d(pretrained: bool = False, **options: Any) -> Any:
    """AFF-ResNeXt-50 32x4d, 30.0 M parameters."""
    return _aff("aff_resnext50_32x4d", pretrained, options)


@register_model
def iaff_resnext50_32x4d(pretrained: bool = False, **options: Any) -> Any:
    """iAFF-ResNeXt-50 32x4d, 34.8 M parameters."""
    return _aff("iaff_resnext50_32x4d", pretrained, options)


@register_model
def aff_resnet32_cifar(pretrained: bool = False, **options: Any) -> Any:
    """AFF-ResNet-32 for images of 32 pixels, 7.9 M parameters."""
    return _aff("aff_resnet32_cifar", pretrained, options)


@register_model
def iaff_resnet32_cifar(pretrained: bool = False, **options: Any) -> Any:
    """iAFF-ResNet-32 for images of 32 pixels."""
    return _aff("iaff_resnet32_cifar", pretrained, options)


@register_model
def aff_resnext38_32x4d_cifar(pretrained: bool = False, **options: Any) -> Any:
    """AFF-ResNeXt-38 32x4d for images of 32 pixels, 7.8 M parameters."""
    return _aff("aff_resnext38_32x4d_cifar", pretrained, options)


@register_model
def iaff_resnext38_32x4d_cifar(pretrained: bool = False, **options: Any) -> Any:
    """iAFF-ResNeXt-38 32x4d for images of 32 pixels."""
    return _aff("iaff_resnext38_32x4d_cifar", pretrained, options)


@register_model
def aff_resnext47_32x4d_cifar(pretrained: bool = False, **options: Any) -> Any:
    """AFF-ResNeXt-47 32x4d for images of 32 pixels, 9.6 M parameters."""
    return _aff("aff_resnext47_32x4d_cifar", pretrained, options)


@register_model
def iaff_resnext47_32x4d_cifar(pretrained: bool = False, **options: Any) -> Any:
    """iAFF-ResNeXt-47 32x4d for images of 32 pixels."""
    return _aff("iaff_resnext47_32x4d_cifar", pretrained, options)
