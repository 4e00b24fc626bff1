"""Large-kernel attention, VAN's.

M views, C channels, H rows, W columns.
"""

from torch import Tensor, nn

from tnet.backbones.depthwise import DilatedDepthwise


class LargeKernelAttention(nn.Module):
    """Attention as the output of a 21 x 21 kernel, taken apart into three convolutions (eq. 3).

    A depthwise 5 x 5, a depthwise 7 x 7 of dilation 3, a 1 x 1: what they make of a map is
    multiplied with it, without sigmoid or softmax.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.distant = DilatedDepthwise(channels, 7, dilation=3)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """Return the weighted map (M, C, H, W)."""
        return x_MCHW * self.attention(x_MCHW)

    def attention(self, x_MCHW: Tensor) -> Tensor:
        """Return what the map is multiplied with, (M, C, H, W), of either sign."""
        return self.mix(self.distant(self.local(x_MCHW)))

    def soft_attention(self, x_MCHW: Tensor) -> Tensor:
        """Return the mean size of the attention over the channels, (M, H, W), from 0 on."""
        return self.attention(x_MCHW).abs().mean(dim=1)
