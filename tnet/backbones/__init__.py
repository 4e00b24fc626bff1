"""Networks that look at a view: an intermediate map for the location module, a pooled feature.

One file a family. A backbone is a module with ``map_channels`` and ``features``; called with
views, float (M, C, H, W), it returns the map (M, map_channels, h, w) and the pooled feature
(M, features). Any timm model becomes one through
:class:`tnet.backbones.generic.TimmBackbone`; importing this package registers ours with timm.
"""

from tnet.backbones import aff, aff_port, bagnet, das, rfaconv, van

__all__ = ["aff", "aff_port", "bagnet", "das", "rfaconv", "van"]
