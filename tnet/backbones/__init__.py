"""Networks that look at a view: an intermediate map for the location module, a pooled feature.

One file a family. Every backbone here is a module with this call and these two numbers, and any
timm model becomes one through :class:`tnet.backbones.generic.TimmBackbone`.
"""

from typing import Protocol

from torch import Tensor


class Backbone(Protocol):
    """What TNet needs of a network.

    Attributes:
        map_channels: channels of the intermediate map.
        features: length of the pooled feature.
    """

    map_channels: int
    features: int

    def __call__(self, view_MCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map (M, map_channels, h, w) and the feature (M, features)."""
        ...
