"""Where a glimpse was taken, burned into its feature.

B glimpses, C channels of the code, D features.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoidal_code(position_B3: Tensor, channels: int, max_period: float = 100.0) -> Tensor:
    """Encode (y, x, scale) as sines and cosines of each, at periods from 1 to ``max_period``.

    Args:
        position_B3: float (B, 3): y, x, scale of each glimpse.
        channels: the code's length; what is left over after six equal blocks stays zero.
        max_period: the inverse of the lowest angular frequency. TNet uses 100.

    Returns:
        float (B, channels): [sin y, cos y, sin x, cos x, sin s, cos s, 0 ...], in blocks.

    Raises:
        ValueError: if there are fewer than six channels.

    Source: TNet (NeurIPS 2021), positional encoding, as released.
    """
    count = channels // 6
    if count < 1:
        raise ValueError(f"a positional code needs at least 6 channels, got {channels}")
    # The exponents are formed in float32, as the released code does.
    step = -math.log(max_period) / max(count - 1, 1)
    index = torch.arange(count, dtype=torch.float32, device=position_B3.device)
    angles_B3m = position_B3[:, :, None].float() * torch.exp(index * step)
    code = torch.stack([angles_B3m.sin(), angles_B3m.cos()], dim=2).flatten(1)
    return F.pad(code, (0, channels - 6 * count))


class Position(nn.Module):
    """Adds the code of a glimpse's place to its feature.

    ``add`` is the EfficientNet form: swish(f + code W + b). ``concat`` is the ImageNet form:
    [f ; code] W + b, without an activation. Source: TNet as released.
    """

    def __init__(
        self,
        features: int,
        channels: int,
        *,
        form: Literal["add", "concat"] = "add",
        max_period: float = 100.0,
    ) -> None:
        super().__init__()
        if form not in ("add", "concat"):
            raise ValueError(f"the position module's form is 'add' or 'concat', got {form!r}")
        self.form = form
        self.channels = channels
        self.max_period = max_period
        self.linear = nn.Linear(channels + (features if form == "concat" else 0), features)
        _initialise(self.linear, form)

    def forward(self, feature_BD: Tensor, position_B3: Tensor) -> Tensor:
        """Return the feature that knows its place, float (B, D).

        Args:
            feature_BD: float (B, D), the pooled feature of each glimpse.
            position_B3: float (B, 3): y, x, scale.
        """
        code_BC = sinusoidal_code(position_B3, self.channels, self.max_period)
        code_BC = code_BC.to(feature_BD.dtype)
        if self.form == "concat":
            return self.linear(torch.cat([feature_BD, code_BC], dim=1))
        return F.silu(feature_BD + self.linear(code_BC))


def _initialise(linear: nn.Linear, form: str) -> None:
    """Start as the released code does: uniform fan-out, or Glorot for the ImageNet form."""
    if form == "concat":
        nn.init.xavier_normal_(linear.weight)
    else:
        bound = 1 / math.sqrt(linear.out_features)
        nn.init.uniform_(linear.weight, -bound, bound)
    nn.init.zeros_(linear.bias)
