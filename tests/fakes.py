"""Parts and images with known answers, shared by the tests of the engine."""

from collections.abc import Sequence
from typing import Any, Unpack, cast

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tnet.adapters.array import open_array
from tnet.aggregate import FeatureWeighting, Mean
from tnet.geometry import Grid, Region
from tnet.location import to_grid
from tnet.model import Classifier, Input, TNet
from tnet.plan import Plan
from tnet.position import Position
from tnet.pyramid import How, Pyramid

CLASSES = ("dark", "grey", "bright")
FEATURES = 8


class Brightness(nn.Module):
    """A backbone whose map is the view's brightness; its feature is a thumbnail of it."""

    map_channels = 1
    features = FEATURES

    def forward(self, view_MCHW: Tensor) -> tuple[Tensor, Tensor]:
        grey = view_MCHW.mean(dim=1, keepdim=True)
        return grey, F.adaptive_avg_pool2d(grey, (2, 4)).flatten(1)


class BrightestCell(nn.Module):
    """A location module that wants the brightest cell, the more so the larger ``sharpness``."""

    def __init__(self, sharpness: float = 1.0) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, map_MChw: Tensor, context_MD: Tensor, grid: Grid) -> Tensor:
        return self.sharpness * to_grid(map_MChw, grid).flatten(1)


def fake_model(
    plan: Plan,
    *,
    bands: int = 1,
    dtype: str = "uint8",
    weighting: bool = False,
    placed: bool = True,
    sharpness: float = 1.0,
) -> TNet:
    """A whole model in evaluation mode that looks for what is bright; nothing is learned."""
    torch.manual_seed(7)
    model = TNet(
        Brightness(),
        BrightestCell(sharpness),
        Position(FEATURES, 6) if placed else None,
        FeatureWeighting(FEATURES) if weighting else Mean(),
        Classifier(FEATURES, len(CLASSES)),
        plan=plan,
        classes=CLASSES,
    )
    nn.init.normal_(model.classifier.linear.bias)
    scale = 100.0 if dtype == "uint8" else 300.0
    model.expect(Input(bands=bands, dtype=dtype, mean=(0.0,) * bands, std=(scale,) * bands))
    return model.eval()


def noise(height: int, width: int, bands: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    """An image of which no two places look alike, even from far away; nowhere white."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 180, (height // 8 + 1, width // 8 + 1, bands), dtype=np.uint8)
    pixels = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return pixels + rng.integers(0, 20, pixels.shape, dtype=np.uint8)


class Watched:
    """A pyramid around a pyramid that writes down every region it is asked for."""

    def __init__(self, pyramid: Pyramid) -> None:
        self._pyramid = pyramid
        self.regions: list[Region] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pyramid, name)

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> NDArray[Any]:
        self.regions.append(region)
        return self._pyramid.read(region, size, **how)

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> NDArray[Any]:
        self.regions.extend(regions)
        return self._pyramid.read_many(regions, size, **how)


def watched(pixels: NDArray[Any], **facts: Any) -> tuple[Pyramid, list[Region]]:
    """An image in memory, and the list that its reads are written to."""
    pyramid = Watched(open_array(pixels, **facts))
    return cast(Pyramid, pyramid), pyramid.regions


def quiet_trainer(epochs: int, **options: Any) -> lightning.Trainer:
    """A trainer on the CPU that shows and keeps nothing."""
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
