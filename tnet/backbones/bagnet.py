"""BagNet-77: a network whose last unit sees 77 x 77 pixels, as the ImageNet TNet uses it.

No batch norm, every convolution with a bias, leaky ReLU of slope 0.2. Three convolutions have no
padding, so that maps are a few pixels smaller than the view over the stride: 7 x 7 at 77 pixels.

Source: TNet as released (ImageNet), a variant of BagNet (Brendel and Bethge, ICLR 2019).

M views, C channels, H rows, W columns.
"""

from typing import Any

from timm.layers import create_conv2d
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from tnet.backbones.features import Stage, StagedNetwork, build, default_cfg
from tnet.errors import UsageError

# Sides of the smallest view: the last unpadded convolution is left a map of 3 x 3.
SMALLEST = 27
FEATURES = 512
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

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return float (M, 4 * channels, h, w)."""
        y = F.leaky_relu(self.reduce(x_MCHW), _SLOPE)
        y = F.leaky_relu(self.spread(y), _SLOPE)
        y = self.expand(y)
        if self.margin:
            x_MCHW = x_MCHW[:, :, self.margin : -self.margin, self.margin : -self.margin]
        return F.leaky_relu(y + self.shortcut(x_MCHW), _SLOPE)


class Stem(nn.Conv2d):
    """The first convolution and its leaky ReLU, for views that are large enough."""

    def __init__(self, bands: int) -> None:
        super().__init__(bands, _PARTS[0][0], 3)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """Return float (M, 64, H - 2, W - 2).

        Raises:
            UsageError: if a side is shorter than 27 pixels.
        """
        height, width = input.shape[2:]
        if min(height, width) < SMALLEST:
            raise UsageError(
                f"BagNet-77 needs views of {SMALLEST} x {SMALLEST} pixels or more, got "
                f"{width} x {height}: its convolutions without padding leave nothing of less"
            )
        return F.leaky_relu(super().forward(input), _SLOPE)


def _parts() -> list[nn.Sequential]:
    channels_in, parts = _PARTS[0][0], []
    for channels, stride, valid, kernels in _PARTS:
        first = Bottleneck(channels_in, channels, kernels[0], stride=stride, valid=valid)
        channels_in = 4 * channels
        others = [Bottleneck(channels_in, channels, kernel) for kernel in kernels[1:]]
        parts.append(nn.Sequential(first, *others))
    return parts


def _top() -> nn.Conv2d:
    return nn.Conv2d(4 * _PARTS[-1][0], FEATURES, 1)


def _init(module: nn.Module) -> None:
    """Draw weights as the released code does: Glorot's normal ones, and no biases."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class TappedBagNet77(nn.Module):
    """The released ImageNet TNet's backbone: its map after part 4 (stride 8), a feature of 512.

    Args:
        bands: bands of the image.
        dropout: probability that a channel of the last map is dropped while training (the
            released models keep half of them).
    """

    map_channels = 4 * _PARTS[2][0]
    features = FEATURES
    feature_info = tuple({"module": f"parts.{part}"} for part in range(len(_PARTS)))  # as timm's

    def __init__(self, *, bands: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = Stem(bands)
        self.parts = nn.ModuleList(_parts())
        self.top = _top()
        self.dropout = nn.Dropout2d(dropout)
        self.apply(_init)

    def forward(self, view_MCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map (M, 1024, h, w) and the feature (M, 512)."""
        x = self.stem(view_MCHW)
        for part in self.parts[:3]:
            x = part(x)
        tapped = x
        x = F.leaky_relu(self.top(self.parts[3](x)), _SLOPE)
        return tapped, self.dropout(x).mean(dim=(2, 3))


class BagNet77(StagedNetwork):
    """BagNet-77 with a classifier: four stages, of strides 2, 4, 8 and 8.

    The last stage ends with the 1x1 convolution to 512 channels. Dropout of the pooled feature
    is the same as that of whole channels of the last map, which the released code has.

    Args:
        in_chans: bands of the image.
        head: num_classes, global_pool and drop_rate of :class:`StagedNetwork`.
    """

    def __init__(self, *, in_chans: int = 3, **head: Any) -> None:
        *parts, last = _parts()
        last.add_module("top", _top())
        last.add_module("act", nn.LeakyReLU(_SLOPE))
        channels = [4 * inside for inside, *_ in _PARTS[:-1]]
        stages = [
            Stage(part, width, 2**number)
            for number, (part, width) in enumerate(zip(parts, channels, strict=True), start=1)
        ]
        super().__init__(Stem(in_chans), [*stages, Stage(last, FEATURES, 8)], **head)
        self.apply(_init)


default_cfgs = generate_default_cfgs(
    {
        "bagnet77": default_cfg(
            "stem",
            input_size=(3, 77, 77),
            min_input_size=(3, SMALLEST, SMALLEST),
            crop_pct=1.0,
            crop_mode="squash",
            interpolation="bilinear",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        )
    }
)


@register_model
def bagnet77(pretrained: bool = False, **options: Any) -> Any:
    """BagNet-77, 20.5 M parameters."""
    if pretrained:
        raise UsageError("nobody has published weights of 'bagnet77' for PyTorch; train it")
    return build(BagNet77, "bagnet77", **options)
