"""Real files converted, linked and verified: the same pixels, and the same walks over them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from shared_data import shared_folder

from tnet.adapters import open_pyramid, select_bands
from tnet.adapters.links.making import link
from tnet.adapters.storage.conversion import convert
from tnet.adapters.storage.verify import verify
from tnet.bundle import load
from tnet.geometry import Region
from tnet.model import TNet
from tnet.plan import Plan
from tnet.pyramid import Pyramid
from tnet.record import Walk
from tnet.traversal import walk

FILES = (
    "wsi/CMU-1-Small-Region.svs",
    "wsi/highdicom_sm_image.dcm",
    "wsi/largeimage_rgba_geotiff.tiff",
    "wsi/largeimage_test_orient6.tif",
    "wsi/largeimage_yb10kx5k.zstd.tiff",
    "geotiff/RGB.byte.tif",
    "geotiff/TCI.tif",
    "geotiff/cog_hirise_mars.tif",
    "geotiff/cogeo.tif",
    "geotiff/image_web_z5_z11.tif",
    "bccd/BloodImage_00001.jpg",
    "dsb2018_he/0121d6759c5adb290c8e828fc882f37dfaf3663ec885c663859948c154a443ed.png",
)
# Stored turned, or in a format whose tiles are not named by places in one file.
NOT_LINKED = ("wsi/highdicom_sm_image.dcm", "wsi/largeimage_test_orient6.tif")


def sample(name: str) -> Path:
    return shared_folder("data", "files", *name.split("/"))


@pytest.fixture(scope="module")
def model() -> TNet:
    torch.set_num_threads(1)
    return load("demo")


def in_colour(image: Pyramid) -> Pyramid:
    return select_bands(image, (0, 0, 0)) if image.bands == 1 else image


def walked(model: TNet, path: Path, plan: Plan) -> Walk:
    with open_pyramid(path) as image:
        return walk(model, [in_colour(image)], plan)[0]


def same(one: Walk, other: Walk) -> bool:
    """Say whether two walks went the same way and came to the same numbers."""
    return (
        [(g.region, g.probability, g.contributions) for g in one.glimpses]
        == [(g.region, g.probability, g.contributions) for g in other.glimpses]
        and np.array_equal(one.logits, other.logits, equal_nan=True)
        and (one.label, one.outcome) == (other.label, other.outcome)
    )


@pytest.mark.parametrize("name", FILES)
def test_a_lossless_copy_is_the_image(model: TNet, tmp_path: Path, name: str) -> None:
    source, store = sample(name), tmp_path / "copy.zarr"
    convert(source, store)
    assert verify(store).outcome == "whole"
    with open_pyramid(source) as image, open_pyramid(store) as copy:
        size = (image.width, image.height)
        region = Region(0, 0, *size)
        np.testing.assert_array_equal(image.read(region, size), copy.read(region, size))
        for fact in ("mpp", "spacing", "unit", "crs", "transform", "nodata", "background"):
            assert getattr(image, fact) == getattr(copy, fact), fact
    assert same(walked(model, source, model.plan), walked(model, store, model.plan))


@pytest.mark.parametrize("name", [name for name in FILES if name not in NOT_LINKED])
def test_a_link_is_the_image(model: TNet, tmp_path: Path, name: str) -> None:
    source, store = sample(name), tmp_path / "link.zarr"
    link(source, store)
    assert sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) < 1_000_000
    assert verify(store).outcome == "whole"
    assert same(walked(model, source, model.plan), walked(model, store, model.plan))
