"""The location module: an intermediate feature map -> logits over the grid of candidates.

M views, C channels, (h, w) the map, (R, K) rows and columns of the grid, N = R * K cells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tnet.geometry import Grid


@dataclass(frozen=True, slots=True)
class Tap:
    """Rows and columns start, start + step, ... before stop, of the map: one for each cell.

    The released models read their maps so ("lg3x3" is Tap(2, None, 4)); it fits only where the
    map has just the right size, and elsewhere the map is resampled to the grid.
    """

    start: int
    stop: int | None
    step: int


def to_grid(map_MChw: Tensor, grid: Grid, tap: Tap | None = None) -> Tensor:
    """Bring a feature map to the grid: one vector a candidate cell, float (M, C, R, K).

    With a ``tap`` that yields exactly the grid's rows and columns, those positions are picked.
    Otherwise each cell takes a tent-weighted mean around its centre, as wide as the cell, and
    never narrower than the map's own pixels: a coarse map is interpolated for a fine grid and
    averaged for a coarse one.
    """
    if tap is not None:
        picked = map_MChw[:, :, tap.start : tap.stop : tap.step, tap.start : tap.stop : tap.step]
        if picked.shape[2:] == (grid.rows, grid.columns):
            return picked
    rows, columns = grid.centres()
    down_Rh = _tent(rows, grid.patch, map_MChw.shape[2]).to(map_MChw)
    across_Kw = _tent(columns, grid.patch, map_MChw.shape[3]).to(map_MChw)
    return torch.einsum("mchw,rh,kw->mcrk", map_MChw, down_Rh, across_Kw)


def _tent(centres: list[float], patch: float, pixels: int) -> Tensor:
    """Return (cells, pixels) weights that sum to 1 over the pixels of each cell."""
    centre = torch.tensor(centres, dtype=torch.float64)[:, None] * pixels - 0.5
    # Beyond the outermost pixel centres there is nothing to interpolate towards.
    centre = centre.clamp(0, pixels - 1)
    half = max(patch * pixels / 2, 1.0)
    weight = (1 - (torch.arange(pixels, dtype=torch.float64) - centre).abs() / half).clamp_min(0)
    return weight / weight.sum(dim=1, keepdim=True)


def l2_normalised(logits_MN: Tensor) -> Tensor:
    """Divide each row of logits by its length, as the released code does.

    A row of zeros stays zeros (a uniform distribution), where the released code gives NaN.
    With it no probability is more than e^sqrt(2) = 4.11 times another.
    """
    length = torch.linalg.vector_norm(logits_MN, dim=1, keepdim=True)
    return logits_MN / torch.where(length > 0, length, 1.0)


class Coordinates(nn.Module):
    """Appends two channels, learned affine functions of the row and of the column in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.height_scale = nn.Parameter(torch.ones(1))
        self.height_shift = nn.Parameter(torch.zeros(1))
        self.width_scale = nn.Parameter(torch.ones(1))
        self.width_shift = nn.Parameter(torch.zeros(1))

    def forward(self, x_MCRK: Tensor) -> Tensor:
        """Return float (M, C + 2, R, K)."""
        views, _, rows, columns = x_MCRK.shape
        row_R = torch.linspace(-1, 1, rows, device=x_MCRK.device)
        column_K = torch.linspace(-1, 1, columns, device=x_MCRK.device)
        row_R = (self.height_scale * row_R + self.height_shift).to(x_MCRK.dtype)
        column_K = (self.width_scale * column_K + self.width_shift).to(x_MCRK.dtype)
        return torch.cat(
            [
                x_MCRK,
                row_R[None, None, :, None].expand(views, 1, rows, columns),
                column_K[None, None, None, :].expand(views, 1, rows, columns),
            ],
            dim=1,
        )


class SqueezeLocation(nn.Module):
    """The location module of the EfficientNet models: squeeze and excite over the grid.

    conv1x1 + swish, squeeze-and-excite with the mean over the grid's cells, two coordinate
    channels, conv1x1 + swish, conv1x1 to one logit. Source: TNet as released (fMoW, CUB).

    Args:
        channels: channels of the feature map.
        tap: which positions of the map are the cells; None resamples the map to the grid.
        normalise: divide the logits by their length, as released; without it the
            distribution can become peaked.
        detach: stop gradients into the backbone, as released.
        width: channels inside; None keeps those of the map, as released.
    """

    def __init__(
        self,
        channels: int,
        *,
        tap: Tap | None = None,
        normalise: bool = False,
        detach: bool = True,
        width: int | None = None,
    ) -> None:
        super().__init__()
        width = width or channels
        self.tap = tap
        self.normalise = normalise
        self.detach = detach
        self.first = nn.Conv2d(channels, width, 1)
        self.squeeze = nn.Conv2d(width, width // 2, 1)
        self.excite = nn.Conv2d(width // 2, width, 1)
        self.coordinates = Coordinates()
        self.fuse = nn.Conv2d(width + 2, width, 1)
        self.last = nn.Conv2d(width, 1, 1)
        for conv in (self.first, self.squeeze, self.excite, self.fuse, self.last):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")
            _zero_bias(conv)

    def forward(self, map_MChw: Tensor, context_MD: Tensor, grid: Grid) -> Tensor:
        """Return logits, float (M, N), the cells row by row.

        Args:
            map_MChw: float (M, C, h, w), the backbone's intermediate map.
            context_MD: float (M, D), the pooled feature; not used by this form.
            grid: the candidates that the logits are for.
        """
        if self.detach:
            map_MChw = map_MChw.detach()
        # A 1x1 convolution commutes with picking positions, so the map may be looked at whole
        # before it is brought to the grid; an average over a cell then sees activations.
        if self.tap is not None:
            x_MCRK = F.silu(self.first(to_grid(map_MChw, grid, self.tap)))
        else:
            x_MCRK = to_grid(F.silu(self.first(map_MChw)), grid)
        gate = self.excite(F.silu(self.squeeze(x_MCRK.mean(dim=(2, 3), keepdim=True))))
        x_MCRK = self.coordinates(x_MCRK * gate.sigmoid())
        logits_MN = self.last(F.silu(self.fuse(x_MCRK))).flatten(1)
        return l2_normalised(logits_MN) if self.normalise else logits_MN


class ContextLocation(nn.Module):
    """The location module of the ImageNet model: every cell also sees the whole view's feature.

    [map ; pooled feature ; two coordinates] -> conv1x1 + leaky ReLU (0.2) -> conv1x1.
    Source: TNet as released (ImageNet). Arguments as of :class:`SqueezeLocation`, and:

    Args:
        context: length of the pooled feature, taken before the position module.
    """

    def __init__(
        self,
        channels: int,
        context: int,
        *,
        width: int = 512,
        tap: Tap | None = None,
        normalise: bool = False,
        detach: bool = True,
    ) -> None:
        super().__init__()
        self.tap = tap
        self.normalise = normalise
        self.detach = detach
        self.coordinates = Coordinates()
        self.fuse = nn.Conv2d(channels + context + 2, width, 1)
        self.last = nn.Conv2d(width, 1, 1)
        for conv in (self.fuse, self.last):
            nn.init.xavier_normal_(conv.weight)
            _zero_bias(conv)

    def forward(self, map_MChw: Tensor, context_MD: Tensor, grid: Grid) -> Tensor:
        """Return logits, float (M, N); arguments as of :meth:`SqueezeLocation.forward`."""
        if self.detach:
            map_MChw, context_MD = map_MChw.detach(), context_MD.detach()
        x_MCRK = to_grid(map_MChw, grid, self.tap)
        context = context_MD[:, :, None, None].expand(-1, -1, grid.rows, grid.columns)
        x_MCRK = self.coordinates(torch.cat([x_MCRK, context], dim=1))
        logits_MN = self.last(F.leaky_relu(self.fuse(x_MCRK), 0.2)).flatten(1)
        return l2_normalised(logits_MN) if self.normalise else logits_MN


def _zero_bias(conv: nn.Conv2d) -> None:
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
