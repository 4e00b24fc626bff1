"""Mean and deviation of each band, from what images show."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import picture, write_png
from numpy.typing import NDArray

from tnet.adapters.array import open_array
from tnet.datasets import statistics
from tnet.datasets.entries import Entry
from tnet.datasets.statistics import band_statistics, entry_statistics
from tnet.pyramid import Pyramid


def test_small_images_give_their_exact_statistics() -> None:
    chance = np.random.default_rng(0)
    images = [chance.integers(10, 200, (40, 30 + i, 2), dtype=np.uint8) for i in range(3)]
    mean, std = band_statistics([open_array(image) for image in images])
    pixels = np.concatenate([image.reshape(-1, 2) for image in images]).astype(float)
    np.testing.assert_allclose(mean, pixels.mean(axis=0))
    np.testing.assert_allclose(std, pixels.std(axis=0))


def test_background_and_missing_pixels_are_left_out() -> None:
    slide = np.full((60, 60, 3), 252, np.uint8)
    slide[20:40, 20:40] = (150, 80, 120)
    slide[20:40, 20:30] = (170, 100, 140)
    mean, std = band_statistics([open_array(slide)])
    np.testing.assert_allclose(mean, (160, 90, 130))
    np.testing.assert_allclose(std, (10, 10, 10))
    land = np.full((20, 20, 1), -9999, np.int16)
    land[5:, :, 0] = np.arange(20)
    mean, std = band_statistics([open_array(land, nodata=-9999)])
    assert mean == (9.5,)
    assert std == pytest.approx((np.arange(20).std(),))
    holes = np.full((20, 20, 2), np.nan, np.float32)
    holes[:, 10:, 0], holes[:, 15:, 1] = 4.0, 6.0
    assert band_statistics([open_array(holes)]) == ((4.0, 6.0), (1.0, 1.0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_a_deviation_is_never_zero(dtype: str) -> None:
    images = [open_array(np.full((9, 9, 2), value, dtype)) for value in (200, 200)]
    assert band_statistics(images) == ((200.0, 200.0), (1.0, 1.0))


@pytest.mark.parametrize("value", [0, 255])
def test_images_of_background_alone_have_statistics(value: int) -> None:
    image = open_array(np.full((9, 9, 3), value, np.uint8))
    assert band_statistics([image]) == ((float(value),) * 3, (1.0,) * 3)
    nothing = open_array(np.full((9, 9, 1), np.nan, np.float32))
    assert band_statistics([nothing]) == ((0.0,), (1.0,))


def test_small_deviations_of_large_values_survive() -> None:
    chance = np.random.default_rng(1)
    images = [chance.normal(1e7, 50, (100, 100, 1)) for _ in range(4)]
    _, std = band_statistics([open_array(image) for image in images])
    assert std[0] == pytest.approx(50, rel=0.02)  # what is read is float32, in steps of 1


def test_no_more_images_are_opened_than_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def made(path: Path, **options: Any) -> Pyramid:
        opened.append(path.name)
        return open_array(np.full((4, 4, 1), int(path.name) % 250, np.uint8))

    monkeypatch.setattr(statistics, "open_pyramid", made)
    entries = [Entry(row, Path(str(row)), ("a",)) for row in range(1000)]
    first = entry_statistics(entries, most=8, seed=1)
    assert len(set(opened)) == len(opened) == 8
    assert entry_statistics(entries, most=8, seed=1) == first
    assert entry_statistics(entries, most=8, seed=2) != first


def test_large_images_are_read_coarsely(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    image = open_array(np.zeros((300, 3000, 1), np.uint8))
    read = image.read

    def watched(region: Any, size: tuple[int, int]) -> NDArray[Any]:
        sizes.append(size)
        return read(region, size)

    monkeypatch.setattr(image, "read", watched)
    band_statistics([image])
    assert sizes == [(256, 26)]


def test_entries_are_opened_one_by_one(tmp_path: Path) -> None:
    images = [picture(40, 30, seed=seed) for seed in range(3)]
    entries = [
        Entry(i + 2, write_png(tmp_path / f"{i}.png", image), ("a",))
        for i, image in enumerate(images)
    ]
    assert entry_statistics(entries) == band_statistics([open_array(image) for image in images])
    with pytest.raises(ValueError, match="at least one image"):
        entry_statistics([])
    with pytest.raises(ValueError, match="at least one image"):
        band_statistics([])
