"""Runs the command line in this process, and makes the small files that its tests name."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from PIL import Image

from tnet.bundle import save
from tnet.plan import Step
from tnet.recipes import build
from tnet.scripts import main as door


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


class CommandLine:
    """Calls ``tnet`` as a shell would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.delenv("TNET_DEBUG", raising=False)
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["tnet", *map(str, arguments)])
        self._capsys.readouterr()
        code = door.run()
        return Done(code, *self._capsys.readouterr())


def picture(width: int = 120, height: int = 90, bands: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Return coarse coloured noise, darker than slide glass: (height, width, bands)."""
    coarse = np.random.default_rng(seed).integers(10, 180, (9, 12, bands), dtype=np.uint8)
    rows, columns = np.arange(height) * 9 // height, np.arange(width) * 12 // width
    return coarse[rows][:, columns]


def write_png(path: Path, pixels: NDArray[Any]) -> Path:
    """Write an image file of (height, width) or (height, width, 3)."""
    Image.fromarray(pixels.squeeze()).save(path, "PNG")
    return path


def write_zarr(path: Path, pixels: NDArray[Any]) -> Path:
    """Write a plain zarr array as an image."""
    array = zarr.create_array(path, shape=pixels.shape, chunks=pixels.shape, dtype=pixels.dtype)
    array[:] = pixels
    return path


def write_model(path: Path, bands: int = 3, dtype: str = "uint8", mpp: float | None = None) -> Path:
    """Write an untrained model of three classes that walks 3 + 3 glimpses of 64 pixels."""
    torch.manual_seed(5)
    model = build(
        "default",
        classes=["grass", "=1+1", "water"],
        bands=bands,
        backbone="test_convnext3",
        stride=8,
    )
    steps = (Step(4, 4, 0.375, 3), Step(3, 3, 0.5, 1))
    model.plan = replace(model.plan, view=(64, 64), steps=steps)
    model.expect(replace(model.expects, dtype=dtype, mpp=mpp))
    return save(model, path, training={"made": "for tests"})
