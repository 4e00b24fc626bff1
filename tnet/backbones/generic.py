"""Any timm model as a backbone: the map at a chosen stride, and the pooled feature."""

from typing import Any

import timm
import torch
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
        drop_path: rate of stochastic depth, where the model has it.

    Raises:
        UsageError: if timm has no such model, or the model has no map at this stride.
    """

    model: Any

    def __init__(
        self, name: str, *, bands: int = 3, stride: int = 16, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        # Only plain architecture names: "hf-hub:" and "local-dir:" names, which a model file
        # might hold, would reach for the network or the disk.
        if not timm.is_model(name) or ":" in name or "/" in name:
            raise UsageError(
                f"timm has no model named {name!r}; `tnet models` lists those that can be built"
            )
        options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
        model: Any = timm.create_model(
            name, pretrained=False, num_classes=0, in_chans=bands, **options
        )
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
        self.model = model
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
