"""DAS: gates at the ends of a network's stages that let salient pixels through.

A gate squeezes its map to h = int(alpha C) channels, samples it with a deformable convolution and
multiplies the map with the result. M views, C channels, (H, W) the map.

Source: "DAS: A Deformable Attention to Capture Salient Information in CNNs", arXiv 2311.12091,
eqs. 1 to 4. No code of its authors is known. What the text leaves open and we chose: the layer
norm is over channels; offsets start at 0 and masks, 2 sigmoid(.), at 1, so that the deformable
convolution starts as a plain one; the instance norm has no weights.

The published counts leave the deformable convolution's kernel out, which their counting tool did
not see (nor the layer norms of MobileNetV2, 1,424); torch's counter sees it once this file is
imported. Parameters without and with that kernel, and MACs at 224 pixels with it:

===================  =============  ===========  ==========  ==========
variant              without        published    with it     MACs
===================  =============  ===========  ==========  ==========
das_resnet18         11,815,598     11.82 M      12,438,830  1.94 G
das_resnet50         26,897,326     26.90 M      36,903,598  5.81 G
das_resnet101        45,889,454     45.89 M      55,895,726  9.53 G
das_mobilenetv2_100  3,575,441      3.57 M       3,832,193   0.35 G
===================  =============  ===========  ==========  ==========

A gate has no batch norm. Those of the networks registered here train on one view at a time as well,
whatever its size; see :class:`tnet.backbones.features.BatchNorm`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import timm
import torch
from timm.layers import LayerNorm2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import conv_flop_count, flop_registry, register_flop_formula
from torchvision.ops import DeformConv2d, deform_conv2d

from tnet.backbones.features import ChannelsLast, default_cfg, with_norms_for_one_value
from tnet.errors import UsageError

_TAPS = 9  # of a 3x3 kernel
_Model = TypeVar("_Model", bound=nn.Module)


class DeformableGate(nn.Module):
    """The gate of DAS: X * sigmoid(LN(deform(GELU(IN(pointwise(depthwise(X))))))).

    Offsets and masks of the modulated deformable convolution come from its own input. Every view
    is seen alone, so that training and inference are the same. On a map of one pixel, or a
    constant one, the instance norm gives zeros, and the gate is then the same for any input.

    Args:
        channels: C of the map.
        alpha: hidden channels per channel; the paper's is 0.2.

    Raises:
        UsageError: if no hidden channel is left, or more than ``channels``.
    """

    def __init__(self, channels: int, alpha: float = 0.2) -> None:
        super().__init__()
        if not 1 <= alpha * channels <= channels:
            raise UsageError(
                f"alpha must be from 1 / channels to 1, got {alpha} for {channels} channels"
            )
        hidden = int(alpha * channels)
        self.channels = channels
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, hidden, 1, bias=False)
        # Two offsets (down, right) and one mask for each tap.
        self.sampling = nn.Conv2d(hidden, 3 * _TAPS, 3, padding=1)
        self.deform = DeformConv2d(hidden, channels, 3, padding=1, bias=False)
        self.layer_norm = LayerNorm2d(channels)
        nn.init.zeros_(self.sampling.weight)
        if self.sampling.bias is not None:
            nn.init.zeros_(self.sampling.bias)

    def gate(self, x_MCHW: Tensor) -> Tensor:
        """Return the gate, float (M, C, H, W) between 0 and 1."""
        hidden = F.gelu(_instance_norm(self.pointwise(self.depthwise(x_MCHW))))
        offset, mask = self.sampling(hidden).split([2 * _TAPS, _TAPS], dim=1)
        salient = self._deformed(hidden, offset, 2 * mask.sigmoid())
        return self.layer_norm(salient).sigmoid().to(x_MCHW.dtype)

    def soft_attention(self, x_MCHW: Tensor) -> Tensor:
        """Return the mean of the gate over the channels, (M, H, W), between 0 and 1."""
        return self.gate(x_MCHW).mean(dim=1)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return the map times its gate, float (M, C, H, W)."""
        if x_MCHW.ndim != 4 or x_MCHW.shape[1] != self.channels:
            raise UsageError(
                f"a DAS gate of {self.channels} channels needs a map (views, {self.channels}, "
                f"rows, columns), got {tuple(x_MCHW.shape)}"
            )
        return x_MCHW * self.gate(x_MCHW)

    def _deformed(self, hidden: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        # torchvision samples in no narrower type than float32 on every device.
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        weight = self.deform.weight.to(dtype)
        deformed = deform_conv2d(
            hidden.to(dtype), offset.to(dtype), weight, padding=1, mask=mask.to(dtype)
        )
        return deformed.to(hidden.dtype)


def _instance_norm(x_MCHW: Tensor, eps: float = 1e-5) -> Tensor:
    """Return each channel of each view with mean 0 and variance 1; torch's refuses one pixel."""
    wide = x_MCHW.to(torch.promote_types(x_MCHW.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=(2, 3), correction=0, keepdim=True)
    return ((wide - mean) * torch.rsqrt(variance + eps)).to(x_MCHW.dtype)


def add_das(model: _Model, stages: int | Sequence[int | str] = 4, alpha: float = 0.2) -> _Model:
    """Put a gate behind the last block of stages of a timm backbone, and return the model.

    For weights that others trained, add the gates to ``timm.create_model(..., pretrained=True)``.

    Args:
        model: any timm backbone whose stages end in maps (M, C, H, W).
        stages: a number n for the last n feature stages (4 as in the paper); or which: places in
            ``model.feature_info``, or names of modules, such as "layer3".
        alpha: of each gate.

    Raises:
        UsageError: if there is no such stage, it has a gate already, or it gives no such map.
    """
    if getattr(model, "output_fmt", "NCHW") != "NCHW":
        raise UsageError(
            f"{type(model).__name__} keeps its channels last or gives tokens; DAS needs a "
            "convolutional backbone such as 'resnet50' or 'convnext_tiny'"
        )
    weight = next(model.parameters())
    for name, channels in _stages(model, stages).items():
        stage = model.get_submodule(name)
        gate = DeformableGate(channels, alpha).to(weight.device, weight.dtype)
        gate.train(model.training)
        if type(stage).forward is nn.Sequential.forward:
            stage.add_module("das", gate)
        else:
            # Some stages call whatever their children are, so that the gate can be none of them.
            if not hasattr(model, "das"):
                model.add_module("das", nn.ModuleDict())
            model.get_submodule("das").add_module(_key(name), gate)
            stage.register_forward_hook(partial(_let_through, gate))
    return model


def _let_through(gate: DeformableGate, _stage: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return gate(output)


def _key(name: str) -> str:
    return name.replace(".", "_")


def _stages(model: nn.Module, stages: int | Sequence[int | str]) -> dict[str, int]:
    """Return the stages' names and channels."""
    info: Any = getattr(model, "feature_info", ())
    known = {stage["module"]: int(stage["num_chs"]) for stage in info}
    names = list(known)
    if isinstance(stages, str):
        stages = [stages]
    if isinstance(stages, int):
        stages = range(len(names) - stages, len(names)) if stages > 0 else ()
    modules = dict(model.named_modules())
    chosen = {}
    for stage in stages:
        within = isinstance(stage, str) or 0 <= stage < len(names)
        name = names[stage] if isinstance(stage, int) and within else str(stage)
        if not within or name not in modules:
            raise UsageError(
                f"{type(model).__name__} has no stage {stage!r} for a DAS gate; it has "
                f"{', '.join(names) or 'no feature stages'}"
            )
        if f"{name}.das" in modules or f"das.{_key(name)}" in modules:
            raise UsageError(f"the stage {name!r} has a DAS gate already")
        chosen[name] = known.get(name) or _channels(modules[name], name)
    if not chosen:
        raise UsageError("DAS needs at least one stage")
    return chosen


def _channels(stage: nn.Module, name: str) -> int:
    """Return the channels of a stage that is no feature stage: those of its last convolution."""
    convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise UsageError(f"{name!r} has no convolution that would tell its channels")
    return convolutions[-1].out_channels


_Shape = Sequence[int]


def deform_conv2d_flops(
    x_shape: _Shape, weight_shape: _Shape, *_: Any, out_shape: _Shape, **__: Any
) -> int:
    """Return two operations for each weight and output pixel, as for a plain convolution.

    The four products of the bilinear sampling are left out, as additions and norms are.
    """
    return conv_flop_count(list(x_shape), list(weight_shape), list(out_shape))


def deform_conv2d_backward_flops(
    grad_shape: _Shape, x_shape: _Shape, weight_shape: _Shape, *_: Any, **__: Any
) -> int:
    """Return those of the gradients of the input and of the weights, each as the way there."""
    return 2 * conv_flop_count(list(x_shape), list(weight_shape), list(grad_shape))


def _register_flops() -> None:
    """Tell torch's counter, which else counts nothing; another library may have told it before.

    A formula for an overload (``.default``) rather than the packet would be ignored.
    """
    ops = torch.ops.torchvision
    for packet, formula in (
        (ops.deform_conv2d, deform_conv2d_flops),
        (ops._deform_conv2d_backward, deform_conv2d_backward_flops),
    ):
        if packet not in flop_registry:
            register_flop_formula(packet)(formula)


_register_flops()


def _gated(base: str, stages: int | Sequence[str], alpha: float = 0.2, **options: Any) -> nn.Module:
    network: Any = with_norms_for_one_value(timm.create_model(base, **options))
    first = network.get_submodule(network.pretrained_cfg["first_conv"])
    first.register_forward_pre_hook(_laid_out)
    return add_das(network, stages, alpha)


def _laid_out(conv: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    return ChannelsLast().train(conv.training)(inputs[0])


def _das(
    name: str, stages: int | Sequence[str] = 4, pretrained: bool = False, **options: Any
) -> Any:
    """Build ``das_BASE``; ``options`` are those of ``timm.create_model``, and ``alpha``."""
    if pretrained:
        raise UsageError(
            f"nobody has published weights of {name!r}; start from those of the plain network: "
            f"add_das(timm.create_model({name.removeprefix('das_')!r}, pretrained=True))"
        )
    network = partial(_gated, name.removeprefix("das_"), stages)
    # The gates stand inside the stages, where only the network's own way through finds them.
    taps = {"feature_cls": "getter"}
    return build_model_with_cfg(network, name, pretrained=False, feature_cfg=taps, **options)


default_cfgs = generate_default_cfgs(
    {
        "das_resnet18": default_cfg("conv1", classifier="fc", interpolation="bilinear"),
        "das_resnet50": default_cfg("conv1", classifier="fc", interpolation="bilinear"),
        "das_resnet101": default_cfg("conv1", classifier="fc", interpolation="bilinear"),
        "das_mobilenetv2_100": default_cfg(
            "conv_stem", classifier="classifier", interpolation="bilinear"
        ),
    }
)


@register_model
def das_resnet18(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-18 with a gate at the end of each of its four stages."""
    return _das("das_resnet18", pretrained=pretrained, **options)


@register_model
def das_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-50 with a gate at the end of each of its four stages."""
    return _das("das_resnet50", pretrained=pretrained, **options)


@register_model
def das_resnet101(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-101 with a gate at the end of each of its four stages."""
    return _das("das_resnet101", pretrained=pretrained, **options)


@register_model
def das_mobilenetv2_100(pretrained: bool = False, **options: Any) -> nn.Module:
    """MobileNetV2 with a gate behind each of its seven stages.

    The text does not say how many; seven fit the published 0.35 G MACs and 3.57 M parameters.
    """
    stages = [f"blocks.{i}" for i in range(7)]
    return _das("das_mobilenetv2_100", stages, pretrained=pretrained, **options)
