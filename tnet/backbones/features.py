"""What the families have in common: stem, stages and head, in the way that timm expects them.

M views, C channels, H rows, W columns.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from timm.layers import BatchNormAct2d, ClassifierHead
from timm.models import build_model_with_cfg
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn import functional as F

from tnet.errors import UsageError


class Stage(NamedTuple):
    """Layers that end in a map: how many channels it has, how many input pixels per map pixel."""

    layers: nn.Module
    channels: int
    reduction: int


class StagedNetwork(nn.Module):
    """A stem, stages one after the other, and a head of pooling, dropout and one linear layer.

    It offers what timm's own convolutional networks do, so that ``timm.create_model`` with
    ``features_only=True`` and :class:`tnet.backbones.generic.TimmBackbone` take it as one.

    Args:
        stem: what comes before the first stage; ``nn.Identity()`` if nothing does.
        stages: from the finest map to the coarsest.
        num_classes: classes of the head; 0 for none, so that the pooled feature comes out.
        global_pool: "avg", "max" or another name of timm's; "" leaves the map as it is.
        drop_rate: rate of the dropout before the linear layer.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Stage],
        *,
        num_classes: int = 1000,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*(stage.layers for stage in stages))
        self.feature_info = [
            {"num_chs": stage.channels, "reduction": stage.reduction, "module": f"stages.{i}"}
            for i, stage in enumerate(stages)
        ]
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = stages[-1].channels
        self.head: Any = ClassifierHead(
            self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate
        )

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return logits (M, num_classes), or features (M, num_features) without classes."""
        return self.forward_head(self.forward_features(x_MCHW))

    def forward_features(self, x_MCHW: Tensor) -> Tensor:
        """Return the last stage's map (M, num_features, h, w)."""
        return self.stages(self.stem(x_MCHW))

    def forward_head(self, x_MCHW: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits, or the pooled feature (M, num_features) if ``pre_logits``."""
        return self.head(x_MCHW, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the last map and the maps after the chosen stages, the finest first.

        Args:
            x: float (M, C, H, W).
            indices: numbers of stages from 0; a number n for the last n; None for all.
            norm: of no effect; no family has a norm that stands outside its stages.
            stop_early: leave out the stages after the last chosen one.
            output_fmt: "NCHW"; timm passes it.
            intermediates_only: return the chosen maps alone.

        Raises:
            UsageError: if another layout than NCHW is asked for.
        """
        if output_fmt != "NCHW":
            raise UsageError(f"maps come as NCHW, not {output_fmt!r}")
        chosen, last = feature_take_indices(len(self.stages), indices)
        end = last + 1 if stop_early else len(self.stages)
        x = self.stem(x)
        maps = []
        for number, stage in enumerate(self.stages[:end]):
            x = stage(x)
            if number in chosen:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def get_classifier(self) -> nn.Module:
        """Return the linear layer (an identity without classes)."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new linear layer, and another pooling if named, in the place of the old."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)


class BatchNorm(nn.BatchNorm2d):
    """A batch norm that also trains on one view whose map has shrunk to one pixel.

    One value has no variance, and torch refuses it; there the running statistics are used, and
    left as they are. With two values per channel or more it is torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """Return the normalised map, float (M, C, H, W)."""
        if self.training and input.numel() == self.num_features:
            return _by_running_statistics(self, input)
        return super().forward(input)


class BatchNormAct(BatchNormAct2d):
    """timm's batch norm with an activation behind it; for one value as :class:`BatchNorm`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated map, float (M, C, H, W)."""
        if self.training and x.numel() == self.num_features:
            return self.act(self.drop(_by_running_statistics(self, x)))
        return BatchNormAct2d.forward(self, x)


def _by_running_statistics(norm: nn.BatchNorm2d, x_MCHW: Tensor) -> Tensor:
    mean, variance = norm.running_mean, norm.running_var
    return F.batch_norm(x_MCHW, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)


def with_norms_for_one_value(model: nn.Module) -> nn.Module:
    """Put :class:`BatchNorm` in the place of a timm model's batch norms, and return the model.

    Names and values of their weights stay.
    """
    for name, child in list(model.named_children()):
        if not isinstance(child, nn.BatchNorm2d):
            with_norms_for_one_value(child)
            continue
        norm: nn.BatchNorm2d = BatchNorm(child.num_features, child.eps)
        if isinstance(child, BatchNormAct2d):
            norm = BatchNormAct(child.num_features, child.eps)
            norm.drop, norm.act = child.drop, child.act
        norm.momentum = child.momentum
        norm.load_state_dict(child.state_dict())
        setattr(model, name, norm)
    return model


class ChannelsLast(nn.Module):
    """Lets all that follows infer with a pixel's channels side by side in memory.

    Norms and poolings on a CPU are quicker so, but not their backward pass: while training the
    map lies as it came.
    """

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return the same map (M, C, H, W), at inference laid out otherwise."""
        return x_MCHW if self.training else x_MCHW.contiguous(memory_format=torch.channels_last)


def default_cfg(first_conv: str, **changes: Any) -> dict[str, Any]:
    """Return timm's description of a network's input and of the names of its first and last layer.

    Args:
        first_conv: name of the convolution that sees the image's bands.
        changes: whatever differs from 224 x 224, ImageNet's mean and deviation, bicubic.
    """
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": first_conv,
        "classifier": "head.fc",
        **changes,
    }


def build(
    network: Callable[..., nn.Module],
    name: str,
    *,
    pretrained: bool = False,
    stages: int = 4,
    **options: Any,
) -> Any:
    """Build a network as a function registered with ``timm.models.register_model`` has to.

    Args:
        network: takes ``options`` (num_classes, in_chans, drop_rate, ...).
        name: of the registered function.
        pretrained: there are none; an official checkpoint can be converted.
        stages: how many maps the network has.
        options: what the caller of ``timm.create_model`` gave, and what the variant adds.

    Raises:
        UsageError: if pre-trained weights are asked for.
    """
    if pretrained:
        raise UsageError(
            f"{name!r} has no weights that timm could download; convert an official checkpoint "
            f"with `tnet models import CHECKPOINT --arch {name} -o model.safetensors`"
        )
    taps = {"out_indices": tuple(range(stages)), "flatten_sequential": True}
    return build_model_with_cfg(network, name, pretrained=False, feature_cfg=taps, **options)


def kaiming_fan_out(conv: nn.Conv2d) -> None:
    """Fill a convolution with N(0, 2 / (k k out / groups)), its bias with 0 (He et al., 2015).

    torch's own does not divide by the groups, and gives depthwise ones far too small weights.
    """
    rows, columns = conv.kernel_size
    fan_out = rows * columns * conv.out_channels / conv.groups
    torch.nn.init.normal_(conv.weight, std=(2.0 / fan_out) ** 0.5)
    if conv.bias is not None:
        torch.nn.init.zeros_(conv.bias)
