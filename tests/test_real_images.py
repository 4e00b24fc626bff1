"""Real files: what they say of themselves, and how they look beside an independent decoder."""

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from make_images import Pixels
from PIL import Image
from shared_data import shared_folder

from tnet.adapters import describe, open_pyramid
from tnet.geometry import Region

# file: size, levels, micrometres per pixel, coordinate reference system
FACTS: dict[str, tuple[tuple[int, int], int, float | None, str | None]] = {
    "wsi/CMU-1-Small-Region.svs": ((2220, 2967), 1, 0.499, None),
    "wsi/highdicom_sm_image.dcm": ((50, 50), 1, 0.499, None),
    "wsi/largeimage_rgba_geotiff.tiff": ((600, 600), 2, None, "EPSG:3857"),
    "wsi/largeimage_test_orient6.tif": ((180, 120), 1, None, None),
    "wsi/largeimage_yb10kx5k.zstd.tiff": ((10000, 5000), 5, None, None),
    "geotiff/RGB.byte.tif": ((791, 718), 1, None, "EPSG:32618"),
    "geotiff/TCI.tif": ((1098, 1098), 6, None, "EPSG:32634"),
    "geotiff/cog_hirise_mars.tif": ((1118, 1683), 3, None, None),
    "geotiff/cogeo.tif": ((1024, 1024), 7, None, "EPSG:3857"),
    "geotiff/image_web_z5_z11.tif": ((8448, 8448), 6, None, "EPSG:3857"),
    "bccd/BloodImage_00001.jpg": ((640, 480), 1, None, None),
    "dsb2018_he/0121d6759c5adb290c8e828fc882f37dfaf3663ec885c663859948c154a443ed.png": (
        (320, 256), 1, None, None,
    ),
}  # fmt: skip


def sample(name: str) -> Path:
    return shared_folder("data", "files", *name.split("/"))


@pytest.mark.parametrize("name", FACTS)
def test_facts(name: str) -> None:
    size, levels, mpp, crs = FACTS[name]
    with open_pyramid(sample(name)) as image:
        assert (image.width, image.height) == size
        assert len(image.levels) == levels
        assert image.mpp == (None if mpp is None else (mpp, mpp))
        assert image.crs == crs
        assert describe(image)["megapixels"] == size[0] * size[1] / 1e6


def decoded(name: str) -> Pixels:
    """Return the whole file by another way: (height, width, bands) uint8."""
    path = sample(name)
    if path.suffix in (".svs", ".dcm"):
        with openslide.OpenSlide(path) as slide:
            return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    if path.suffix in (".jpg", ".png"):
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    pixels = tifffile.imread(path, series=0, level=0)
    if pixels.ndim == 2:  # stored turned: its first row is the right side
        return pixels.T[:, ::-1, None]
    if pixels.shape[2] == 4:
        clear = Image.fromarray(pixels)
        white = Image.new("RGBA", clear.size, "white")
        return np.asarray(Image.alpha_composite(white, clear).convert("RGB"))
    return pixels


@pytest.mark.parametrize("name", FACTS)
def test_whole_image_as_another_decoder_sees_it(name: str) -> None:
    with open_pyramid(sample(name)) as image:
        whole = Region(0, 0, image.width, image.height)
        size = (224, round(224 * image.height / image.width))
        got = image.read(whole, size)
        full = decoded(name)
        assert full.shape == (image.height, image.width, image.bands)
        crop = image.read(Region(7, 9, 41, 37), (41, 37))
        np.testing.assert_array_equal(crop, full[9:46, 7:48])
        bands = [
            Image.fromarray(np.ascontiguousarray(full[..., band])).resize(
                size, Image.Resampling.BOX if size[0] < image.width else Image.Resampling.BILINEAR
            )
            for band in range(image.bands)
        ]
    wanted = np.stack([np.asarray(band) for band in bands], -1).astype(int)
    # Levels are other people's averages, some of them merely nearest neighbours.
    assert np.abs(got - wanted).mean() < 12
    if wanted.std() > 1:  # the web map is black
        assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.96


def test_slide_labels_stay_out() -> None:
    """Label and overview pictures may name the patient."""
    with open_pyramid(sample("wsi/CMU-1-Small-Region.svs")) as image:
        assert [(level.width, level.height) for level in image.levels] == [(2220, 2967)]
    with open_pyramid(sample("wsi/CMU-1-Small-Region.svs"), reader="tiff") as image:
        assert [(level.width, level.height) for level in image.levels] == [(2220, 2967)]


def test_readers_agree_on_a_slide() -> None:
    path = sample("wsi/CMU-1-Small-Region.svs")
    region = Region(300, 500, 448, 448)
    with open_pyramid(path) as slide, open_pyramid(path, reader="tiff") as tiff:
        one, other = slide.read(region, (448, 448)), tiff.read(region, (448, 448))
    assert np.abs(one.astype(int) - other).mean() < 1


def test_a_nodata_border_stays_a_border() -> None:
    with open_pyramid(sample("geotiff/RGB.byte.tif")) as image:
        assert image.nodata == 0
        seen = image.read(Region(0, 0, 791, 718), (80, 72))
        full = decoded("geotiff/RGB.byte.tif")
    corner = (full[:200, :80] == 0).all(axis=2).mean()
    assert corner > 0.5
    edge = seen[(seen > 0).all(axis=2)]
    assert edge.min() >= 1
