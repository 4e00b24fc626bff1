"""Any timm model as a backbone: the map at a chosen stride, and the pooled feature."""

from typing import Any, Literal

import timm
import torch
from timm.layers import BatchNormAct2d, GroupNormAct
from torch import Tensor, nn

from tnet.errors import UsageError


def timm_names() -> list[str]:
    """Return the names of all timm models (architectures, without pre-trained tags)."""
    return timm.list_models()


class TimmBackbone(nn.Module):
    """A timm model that gives its last map at a stride, and its pooled feature.

    Args:
        name: a timm architecture, as ``timm.list_models()`` names it.
        bands: bands of the image; the first convolution has as many.
        stride: pixels of the view per pixel of the map, at most; the deepest map with no
            coarser stride is taken.
        drop_path: rate of stochastic depth; 0 for none.
        norm: "batch" leaves the model's own norms; "group" puts a group norm in the place of
            each batch norm (see :func:`with_group_norms`).

    Raises:
        UsageError: if timm has no such model, or the model has no map at this stride, or no
            stochastic depth.
    """

    model: Any

    def __init__(
        self,
        name: str,
        *,
        bands: int = 3,
        stride: int = 16,
        drop_path: float = 0.0,
        norm: Literal["batch", "group"] = "batch",
    ) -> None:
        super().__init__()
        # Only plain architecture names: "hf-hub:" and "local-dir:" names, which a model file
        # might hold, would reach for the network or the disk.
        if not timm.is_model(name) or ":" in name or "/" in name:
            raise UsageError(
                f"timm has no model named {name!r}; `tnet models` lists those that can be built"
            )
        model: Any = _created(name, bands, drop_path)
        if not hasattr(model, "forward_intermediates"):
            raise UsageError(
                f"the timm model {name!r} does not give its intermediate maps; "
                "choose a convolutional one such as 'resnet50' or 'efficientnet_b0'"
            )
        stages = list(model.feature_info)
        fine = [i for i, stage in enumerate(stages) if stage["reduction"] <= stride]
        if not fine:
            finest = min(stage["reduction"] for stage in stages)
            raise UsageError(
                f"{name!r} has no map at a stride of {stride} pixels; its finest is {finest}"
            )
        self.stage = fine[-1]
        self.map_channels = int(stages[self.stage]["num_chs"])
        self.features = int(getattr(model, "head_hidden_size", model.num_features))
        if norm not in ("batch", "group"):
            raise UsageError(f"norm must be 'batch' or 'group', got {norm!r}")
        self.model = with_group_norms(model) if norm == "group" else model
        self.name = name

    def forward(self, view_MCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map (M, map_channels, h, w) and the feature (M, features)."""
        try:
            final, maps = self.model.forward_intermediates(view_MCHW, indices=[self.stage])
        except AssertionError as error:  # timm's transformers check their input so
            raise UsageError(
                f"{self.name!r} cannot look at a view of {view_MCHW.shape[3]} x "
                f"{view_MCHW.shape[2]} pixels: {error}"
            ) from error
        feature = self.model.forward_head(final, pre_logits=True)
        return maps[0], torch.flatten(feature, 1)


def _created(name: str, bands: int, drop_path: float) -> nn.Module:
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, in_chans=bands, **options)
    except TypeError as error:  # of a model that does not know this option
        if "drop_path_rate" not in str(error):
            raise
        raise UsageError(f"{name!r} has no stochastic depth; leave drop_path at 0") from error


def with_group_norms(model: nn.Module) -> nn.Module:
    """Put group norms of about 8 channels in the place of all batch norms, and return the model.

    A walk's levels look nothing like each other, and a batch norm keeps one running average of
    them all, which fits none at inference; a group norm sees one view at a time, so that it is
    the same while training and afterwards, and for any batch size.
    """
    for name, child in list(model.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            groups = _groups(child.num_features)
            norm: nn.Module = nn.GroupNorm(groups, child.num_features)
            if isinstance(child, BatchNormAct2d):
                norm = GroupNormAct(child.num_features, num_groups=groups, apply_act=False)
                norm.drop, norm.act = child.drop, child.act
            setattr(model, name, norm)
        else:
            with_group_norms(child)
    return model


def _groups(channels: int) -> int:
    """Return how many groups of at least 8 channels divide the channels evenly."""
    return max((n for n in range(1, channels // 8 + 1) if channels % n == 0), default=1)
