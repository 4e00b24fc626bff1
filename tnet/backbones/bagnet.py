"""BagNet-77: the ImageNet TNet's backbone, whose last unit sees 77 x 77 pixels.

No batch norm, every convolution with a bias, leaky ReLU of slope 0.2.
Source: TNet as released (ImageNet), a variant of BagNet (Brendel and Bethge, ICLR 2019).
"""

from timm.layers import create_conv2d
from torch import Tensor, nn
from torch.nn import functional as F

_SLOPE = 0.2

# (channels inside, stride of the first block, is the first block unpadded, kernels)
_PARTS = (
    (64, 2, False, (3, 3, 1)),
    (128, 2, False, (3, 3, 1, 1)),
    (256, 2, True, (3, 3, 1, 1, 1, 1)),
    (512, 1, True, (3, 3, 1)),
)


class Bottleneck(nn.Module):
    """1x1, k x k, 1x1 with four times the channels, added to what came in.

    Without padding the sum is taken over the part of the input that the k x k convolution's
    output is centred on.
    """

    def __init__(
        self, channels_in: int, channels: int, kernel: int, *, stride: int = 1, valid: bool = False
    ) -> None:
        super().__init__()
        padding = "valid" if valid else "same"
        self.margin = (kernel - 1) // 2 if valid else 0
        self.reduce = nn.Conv2d(channels_in, channels, 1)
        # TensorFlow's SAME padding is uneven where the stride does not divide the side.
        self.spread = create_conv2d(
            channels, channels, kernel, stride=stride, padding=padding, bias=True
        )
        self.expand = nn.Conv2d(channels, 4 * channels, 1)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels_in != 4 * channels:
            self.shortcut = nn.Conv2d(channels_in, 4 * channels, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return float (M, 4 * channels, h', w')."""
        y = F.leaky_relu(self.reduce(x), _SLOPE)
        y = F.leaky_relu(self.spread(y), _SLOPE)
        y = self.expand(y)
        if self.margin:
            x = x[:, :, self.margin : -self.margin, self.margin : -self.margin]
        return F.leaky_relu(y + self.shortcut(x), _SLOPE)


class BagNet77(nn.Module):
    """BagNet-77 with its map taken after part 4 (stride 8) and a mean-pooled feature of 512.

    Args:
        bands: bands of the image.
        dropout: probability that a channel of the last map is dropped while training (the
            released models keep half of them).
    """

    map_channels = 1024
    features = 512

    def __init__(self, *, bands: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(bands, 64, 3)
        channels_in, parts = 64, []
        for channels, stride, valid, kernels in _PARTS:
            blocks = []
            for number, kernel in enumerate(kernels):
                first = number == 0
                blocks.append(
                    Bottleneck(
                        channels_in,
                        channels,
                        kernel,
                        stride=stride if first else 1,
                        valid=valid and first,
                    )
                )
                channels_in = 4 * channels
            parts.append(nn.Sequential(*blocks))
        self.parts = nn.ModuleList(parts)
        self.top = nn.Conv2d(channels_in, self.features, 1)
        self.dropout = nn.Dropout2d(dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, view_MCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map (M, 1024, h, w) and the feature (M, 512)."""
        x = F.leaky_relu(self.stem(view_MCHW), _SLOPE)
        for part in self.parts[:3]:
            x = part(x)
        tapped = x
        x = F.leaky_relu(self.top(self.parts[3](x)), _SLOPE)
        return tapped, self.dropout(x).mean(dim=(2, 3))
