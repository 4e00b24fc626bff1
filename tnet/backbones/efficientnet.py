"""EfficientNet as the released TNet uses it, with the map tapped after any block.

The topology is timm's ``tf_efficientnet`` (TensorFlow's SAME padding, batch norm epsilon 1e-3).
Differences: channels scale down to narrow test networks (the head too), the map may be taken
after any block rather than at the end of a stride, and stochastic depth counts from one.
Source: TNet as released (fMoW, CUB, NABirds).
"""

from functools import partial
from typing import Any

from timm.layers import DropPath, SelectAdaptivePool2d
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from tnet.errors import UsageError

# width, depth
SCALING: dict[str, tuple[float, float]] = {
    "b0": (1.0, 1.0),
    "b1": (1.0, 1.1),
    "b2": (1.1, 1.2),
    "b3": (1.2, 1.4),
    "b4": (1.4, 1.8),
    "b5": (1.6, 2.2),
    "b6": (1.8, 2.6),
    "b7": (2.0, 3.1),
}

_PARTS = [
    ["ds_r1_k3_s1_e1_c16_se0.25"],
    ["ir_r2_k3_s2_e6_c24_se0.25"],
    ["ir_r2_k5_s2_e6_c40_se0.25"],
    ["ir_r3_k3_s2_e6_c80_se0.25"],
    ["ir_r3_k5_s1_e6_c112_se0.25"],
    ["ir_r4_k5_s2_e6_c192_se0.25"],
    ["ir_r1_k3_s1_e6_c320_se0.25"],
]


class TappedEfficientNet(nn.Module):
    """EfficientNet that gives the map after one block, and the pooled feature.

    Args:
        tap: (part, block), both from 0, after which the map is taken.
        width, depth: multipliers of channels and of repeats.
        bands: bands of the image.
        drop_path: rate of stochastic depth of the last block; it grows from the first one.

    Raises:
        UsageError: if there is no such block.
    """

    feature_info = ({"module": "head"},)  # as timm names a network's maps; here the last alone

    def __init__(
        self,
        tap: tuple[int, int],
        *,
        width: float = 1.0,
        depth: float = 1.0,
        bands: int = 3,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        channels = partial(round_channels, multiplier=width)
        network: Any = EfficientNet(
            decode_arch_def(_PARTS, depth),
            num_classes=0,
            num_features=channels(1280),
            in_chans=bands,
            pad_type="same",
            act_layer=nn.SiLU,
            # Keras' momentum 0.99 is 0.01 in PyTorch's counting.
            norm_layer=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01),
            round_chs_fn=channels,
        )
        part, block = tap
        if part >= len(network.blocks) or block >= len(network.blocks[part]):
            raise UsageError(
                f"this EfficientNet (depth {depth}) has no block {block} in part {part} "
                "for the location module"
            )
        self.tap = tap
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.blocks: Any = network.blocks
        self.head = nn.Sequential(network.conv_head, network.bn2)
        self.pool = SelectAdaptivePool2d(pool_type="avg", flatten=True)
        self.features = int(channels(1280))
        tapped = network.blocks[part][block]
        # The first block has no expansion, and its last convolution another name.
        last = tapped.conv_pwl if hasattr(tapped, "conv_pwl") else tapped.conv_pw
        self.map_channels = int(last.out_channels)
        self._set_stochastic_depth(drop_path)

    def _set_stochastic_depth(self, rate: float) -> None:
        if rate == 0:
            return
        blocks = [block for part in self.blocks for block in part]
        for number, block in enumerate(blocks, start=1):
            # Blocks without a residual connection never call it.
            block.drop_path = DropPath(rate * number / len(blocks))

    def forward(self, view_MCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map (M, map_channels, h, w) and the feature (M, features)."""
        x = self.stem(view_MCHW)
        tapped = x
        for i, part in enumerate(self.blocks):
            for j, block in enumerate(part):
                x = block(x)
                if (i, j) == self.tap:
                    tapped = x
        return tapped, self.pool(self.head(x))
