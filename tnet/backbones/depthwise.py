"""A dilated depthwise convolution that is quick on a CPU as well."""

from torch import Tensor, nn
from torch.nn import functional as F


class DilatedDepthwise(nn.Conv2d):
    """A depthwise convolution of an odd kernel and some dilation, padded to keep the map's size.

    oneDNN has no fast kernel for dilated depthwise convolutions. A pixel depends only on pixels
    whose rows and columns are whole dilations away, so the map falls apart into dilation**2
    independent ones, and a plain depthwise convolution takes these as so many views: the same
    sums in a third to a twentieth of the time (7 x 7, dilation 3, one thread). Elsewhere than on
    a CPU it is a plain ``nn.Conv2d``.

    N = M * dilation**2 views, M views of the whole map, C channels, H rows, W columns.
    """

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        padding = kernel // 2 * dilation
        super().__init__(
            channels, channels, kernel, padding=padding, dilation=dilation, groups=channels
        )
        self.spacing = dilation

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """Return a map (M, C, H, W)."""
        if input.device.type != "cpu":
            return super().forward(input)
        d = self.spacing
        views, channels, height, width = input.shape
        x_MCHW = F.pad(input, (0, -width % d, 0, -height % d))
        rows, columns = x_MCHW.shape[2] // d, x_MCHW.shape[3] // d
        x = x_MCHW.permute(0, 2, 3, 1).reshape(views, rows, d, columns, d, channels)
        x_NHWC = x.permute(0, 2, 4, 1, 3, 5).reshape(views * d * d, rows, columns, channels)
        padding = self.kernel_size[0] // 2
        x_NHWC = F.conv2d(
            x_NHWC.permute(0, 3, 1, 2), self.weight, self.bias, padding=padding, groups=self.groups
        ).permute(0, 2, 3, 1)
        x = x_NHWC.reshape(views, d, d, rows, columns, channels).permute(0, 3, 1, 4, 2, 5)
        x = x.reshape(views, rows * d, columns * d, channels)
        return x[:, :height, :width].permute(0, 3, 1, 2)
