"""The taps of a receptive field: cut out, weighted, gathered; for :mod:`receptive`'s convolutions.

M views, C channels in, O channels out, K = CT; T = k² taps in row order, h x w places of the
output, p = h w.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnet.errors import UsageError

# Features generated at once on a processor: more of them leave its caches, and fresh memory for
# them takes longer than the arithmetic. Measured with 1 MiB of L2 cache, 32 MiB of L3.
AT_ONCE = 2**20
# Places of a map so small that a processor rather gathers all views by one multiplication.
SMALL = 256


def check_sizes(kernel_size: int, stride: int) -> None:
    """Raise UsageError unless the kernel is odd and the stride positive."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise UsageError(
            f"kernel_size must be odd and positive, got {kernel_size}: an even receptive field "
            "has no middle; choose 3, 5 or 7"
        )
    if stride < 1:
        raise UsageError(f"stride must be 1 or more, got {stride}")


def windows(x_MCyx: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Return the pixels of each receptive field, (M, C, T, h, w), zeros beyond the border."""
    height, width = ((side - 1) // stride + 1 for side in x_MCyx.shape[2:])
    # One transposition of the map, if its channels lie last, is cheaper than one of each tap.
    padded = F.pad(x_MCyx.contiguous(), [kernel_size // 2] * 4)
    rows, columns = (height - 1) * stride + 1, (width - 1) * stride + 1
    # Faster than unfolding, forward and backward.
    taps = [
        padded[:, :, y : y + rows : stride, x : x + columns : stride]
        for y in range(kernel_size)
        for x in range(kernel_size)
    ]
    return torch.stack(taps, 2)


def gather_taps(weighted_MCThw: Tensor, gather: nn.Conv2d) -> Tensor:
    """Return (M, O, h, w): what ``gather``, k x k of stride k, makes of the k times larger map."""
    kernel_OK, (views, _, _, height, width) = gather.weight.flatten(1), weighted_MCThw.shape
    weighted_MKhw = weighted_MCThw.flatten(1, 2)
    if not eager_on_cpu(weighted_MKhw) or gather.bias is None or height * width > SMALL:
        return F.conv2d(weighted_MKhw, kernel_OK[:, :, None, None], gather.bias)
    # A convolution would multiply view by view, with few columns each.
    columns_Kp = weighted_MKhw.flatten(2).transpose(0, 1).flatten(1)
    out_Op = torch.addmm(gather.bias[:, None], kernel_OK, columns_Kp)
    return out_Op.unflatten(1, (views, height, width)).transpose(0, 1).contiguous()


def eager_on_cpu(x: Tensor) -> bool:
    """Return whether what is fastest there is worth its branches; a compiler finds its own."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def weighted(features: Tensor, *weights: Tensor) -> Tensor:
    """Return the product, in the features' own memory where no gradient needs them."""
    for weight in weights:
        features = features * weight if torch.is_grad_enabled() else features.mul_(weight)
    return features


def in_parts(compute: Callable[[Tensor], Tensor], x_M: Tensor, values: int) -> Tensor:
    """Return ``compute(x_M)`` of views that know nothing of each other, a few at a time.

    Args:
        compute: takes views and returns as many.
        x_M: views, along the first axis.
        values: how many numbers the taps of one view are.
    """
    parts = x_M.split(max(1, AT_ONCE // max(1, values)))
    return torch.cat([compute(part) for part in parts]) if len(parts) > 1 else compute(x_M)
