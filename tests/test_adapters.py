"""One contract for all formats: what they read is the truth that was written, wherever we look."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from make_images import (
    HEIGHT,
    WIDTH,
    Pixels,
    area_means,
    shares,
    truth,
    write_deep_png,
    write_geotiff,
    write_ome_zarr,
    write_picture,
    write_tiff,
    write_tiff_pyramid,
    write_zarr,
)
from PIL import Image

from tnet.adapters import (
    Limits,
    describe,
    is_image,
    open_pyramid,
    rescale,
    select_bands,
    with_spacing,
)
from tnet.adapters.array import open_array
from tnet.adapters.segments import ByteBoundedCache, File
from tnet.background import foreground
from tnet.errors import DataError, UnsupportedImage
from tnet.geometry import Region
from tnet.pyramid import Pyramid

ROOT = Path(__file__).resolve().parents[1]
WHOLE = Region(0, 0, WIDTH, HEIGHT)

# name, dtype, bands, writer, tolerance (None: exact; JPEG is lossy)
Case = tuple[str, int, Callable[[Path, Pixels], Path], str | None]
CASES: dict[str, Case] = {
    "zarr-v3": ("uint8", 3, lambda d, p: write_zarr(d / "i.zarr", p), None),
    "zarr-v2": ("uint16", 4, lambda d, p: write_zarr(d / "i.zarr", p, version=2), None),
    "zarr-sharded": (
        "int16", 2, lambda d, p: write_zarr(d / "i.zarr", p, shards=True, planar=True), None,
    ),
    "zarr-float": ("float32", 1, lambda d, p: write_zarr(d / "i.zarr", p), None),
    "zarr-many-bands": (
        "uint16", 13, lambda d, p: write_zarr(d / "i.zarr", p, planar=True), None,
    ),
    "ome-zarr-0.5": ("uint8", 3, lambda d, p: write_ome_zarr(d / "i.zarr", p), None),
    "ome-zarr-0.4": (
        "uint8", 3, lambda d, p: write_ome_zarr(d / "i.zarr", p, version="0.4"), None,
    ),
    "ome-zarr-tczyx": (
        "uint16", 1, lambda d, p: write_ome_zarr(d / "i.zarr", p, axes="tzcyx"), None,
    ),
    "tiff-tiled": (
        "uint8", 3,
        lambda d, p: write_tiff(d / "i.tif", p, tile=(64, 64), compression="zlib"), None,
    ),
    "tiff-stripped": (
        "uint8", 3, lambda d, p: write_tiff(d / "i.tif", p, rowsperstrip=7, compression="lzw"),
        None,
    ),
    "tiff-plain": ("uint8", 1, lambda d, p: write_tiff(d / "i.tif", p), None),
    "tiff-plain-separate": (
        "uint16", 3, lambda d, p: write_tiff(d / "i.tif", p, planarconfig="separate"), None,
    ),
    "tiff-separate": (
        "int16", 3,
        lambda d, p: write_tiff(
            d / "i.tif", p, planarconfig="separate", tile=(64, 96), compression="zstd"
        ),
        None,
    ),
    "tiff-big-endian": (
        "uint16", 5, lambda d, p: write_tiff(d / "i.tif", p, byteorder=">", bigtiff=True), None,
    ),
    "tiff-predictor": (
        "float32", 2,
        lambda d, p: write_tiff(d / "i.tif", p, tile=(64, 64), compression="zlib", predictor=3),
        None,
    ),
    "tiff-jpeg": (
        "uint8", 3,
        lambda d, p: write_tiff(
            d / "i.tif", p, tile=(64, 64), compression="jpeg", subsampling=(1, 1),
            compressionargs={"level": 95},
        ),
        "lossy",
    ),
    "ome-tiff": (
        "uint8", 3, lambda d, p: write_tiff_pyramid(d / "i.ome.tif", p, ome=True), None,
    ),
    "tiff-pyramid": (
        "uint8", 3, lambda d, p: write_tiff_pyramid(d / "i.tif", p, ome=False, bigtiff=True), None,
    ),
    "geotiff": ("uint16", 4, lambda d, p: write_geotiff(d / "i.tif", p, nodata="0"), None),
    "png": ("uint8", 3, lambda d, p: write_picture(d / "i.png", p), None),
    "png-grey": ("uint8", 1, lambda d, p: write_picture(d / "i.png", p), None),
    "png-16": ("uint16", 1, lambda d, p: write_picture(d / "i.png", p), None),
    "png-16-rgb": ("uint16", 3, lambda d, p: write_deep_png(d / "i.png", p), None),
    "bmp": ("uint8", 3, lambda d, p: write_picture(d / "i.bmp", p), None),
    "webp": ("uint8", 3, lambda d, p: write_picture(d / "i.webp", p, lossless=True), None),
    "jpeg": (
        "uint8", 3, lambda d, p: write_picture(d / "i.jpg", p, quality=97, subsampling=0), "lossy",
    ),
    "openslide": (
        "uint8", 3, lambda d, p: write_tiff_pyramid(d / "i.tif", p, ome=False), None,
    ),
}  # fmt: skip


class Opened:
    """A case's file, opened, beside the truth that it was written from."""

    def __init__(self, name: str, folder: Path) -> None:
        dtype, bands, write, tolerance = CASES[name]
        self.truth = truth(dtype, bands)
        self.path = write(folder, self.truth)
        reader: Any = "openslide" if name == "openslide" else None
        self.image = open_pyramid(self.path, reader=reader)
        span = float(self.truth.max()) - float(self.truth.min())
        self.exact = tolerance is None
        self.span = span

    def check(self, got: Pixels, wanted: Pixels, share: float = 0.0) -> None:
        """Compare, allowing a share of the range (and more where the file is lossy)."""
        assert got.shape == wanted.shape
        if self.exact and share == 0:
            np.testing.assert_array_equal(got, wanted)
            return
        worst = np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()
        assert worst <= (share + (0 if self.exact else 0.15)) * self.span + 1


@pytest.fixture(scope="module", params=sorted(CASES))
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return Opened(request.param, tmp_path_factory.mktemp("images"))


def test_says_what_it_is(opened: Opened) -> None:
    image = opened.image
    assert (image.width, image.height, image.bands) == (WIDTH, HEIGHT, opened.truth.shape[2])
    assert image.dtype == opened.truth.dtype
    assert len(image.background) == image.bands
    assert image.name == str(opened.path)
    facts = json.loads(json.dumps(describe(image), allow_nan=False))
    assert facts["width"] == WIDTH
    assert facts["first_look_bytes"] > 0
    assert is_image(opened.path)


def test_crops_are_exact(opened: Opened) -> None:
    for x, y, width, height in [(0, 0, WIDTH, HEIGHT), (10, 20, 100, 90), (250, 150, 51, 53)]:
        got = opened.image.read(Region(x, y, width, height), (width, height))
        assert got.dtype == opened.truth.dtype
        opened.check(got, opened.truth[y : y + height, x : x + width])


def test_beyond_the_border(opened: Opened) -> None:
    image, size = opened.image, (WIDTH + 30, HEIGHT + 40)
    padded = np.empty((size[1], size[0], image.bands), image.dtype)
    padded[:] = np.asarray(image.background).astype(image.dtype)
    padded[25 : 25 + HEIGHT, 10 : 10 + WIDTH] = opened.truth
    opened.check(image.read(Region(-10, -25, *size), size), padded)
    outside = image.read(Region(WIDTH + 5, 3, 20, 10), (20, 10), border="zero")
    assert not outside.any()


@pytest.mark.parametrize("step", [1.5, 2, 3, 4, 7, 11])
def test_coarser_reads_are_means(opened: Opened, step: float) -> None:
    size = (int(200 / step), int(150 / step))
    region = Region(30, 20, size[0] * step, size[1] * step)
    got = opened.image.read(region, size)
    rows, columns = shares(20, step, size[1], HEIGHT), shares(30, step, size[0], WIDTH)
    mean = area_means(opened.truth, rows, columns)
    opened.check(got, mean, share=0.05)


def test_threads_see_the_same(opened: Opened) -> None:
    rng = np.random.default_rng(0)
    regions = [
        Region(*(float(v) for v in rng.uniform(-50, 250, 2)), *(2 * [float(rng.uniform(10, 300))]))
        for _ in range(24)
    ]
    many = opened.image.read_many(regions, (32, 24))
    assert many.shape == (24, 24, 32, opened.image.bands)
    fresh = open_pyramid(
        opened.path, reader="openslide" if opened.image.format.startswith("OpenSl") else None
    )
    with fresh:
        for region, pixels in zip(regions, many, strict=True):
            np.testing.assert_array_equal(fresh.read(region, (32, 24)), pixels)
    assert opened.image.read_many([], (32, 24)).shape == (0, 24, 32, opened.image.bands)


def test_what_is_read_may_be_written_to(opened: Opened) -> None:
    before = opened.image.read(WHOLE, (WIDTH, HEIGHT))
    kept = before.copy()
    before[:] = 0
    np.testing.assert_array_equal(opened.image.read(WHOLE, (WIDTH, HEIGHT)), kept)


# --- levels, places and sizes of pixels -------------------------------------------------------


def test_ome_zarr_metadata(tmp_path: Path) -> None:
    image = open_pyramid(write_ome_zarr(tmp_path / "i.zarr", truth()))
    assert [level.scale_x for level in image.levels] == [1, 2, 4]
    assert image.mpp == (0.5, 0.5)
    assert image.unit == "µm"
    assert image.levels[0].tile == (64, 64)


def test_a_level_is_used_as_it_is(tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "i.zarr", truth())
    stored = zarr.open_array(path / "s1", mode="r+")
    stored[...] = 77
    assert (open_pyramid(path).read(Region(20, 20, 100, 80), (50, 40)) == 77).all()


def test_ome_tiff_and_geotiff_metadata(tmp_path: Path) -> None:
    ome = open_pyramid(write_tiff_pyramid(tmp_path / "i.ome.tif", truth(), ome=True))
    assert ome.mpp == (0.25, 0.25)
    assert [level.scale_x for level in ome.levels] == [1, 2, 4]
    pixels = truth("uint16", 4)
    scene = open_pyramid(write_geotiff(tmp_path / "g.tif", pixels, nodata="0"))
    assert scene.format == "GeoTIFF"
    assert scene.crs == "EPSG:32632"
    assert list(scene.transform or ()) == [10, 0, 500000, 0, -10, 5000000]
    assert list(scene.spacing or ()) == [10, 10]
    assert scene.unit == "metre"
    assert scene.mpp is None
    assert list(scene.background) == [0, 0, 0, 0]
    assert scene.nodata == 0
    assert scene.levels[1].scale_x == WIDTH / 151


def test_resolution_tags(tmp_path: Path) -> None:
    def written(per_cm: float) -> Pyramid:
        return open_pyramid(
            write_tiff(
                tmp_path / f"{per_cm}.tif", truth(), resolution=(per_cm, per_cm), resolutionunit=3
            )
        )

    mpp = written(20000).mpp
    assert mpp == (0.5, 0.5)
    assert written(28.35).mpp is None  # 72 dots per inch


@pytest.mark.parametrize("size", ["NaN ", "INF ", "0.00", "-1.0", "wide"])
def test_an_impossible_size_of_a_pixel_is_ignored(tmp_path: Path, size: str) -> None:
    path = write_tiff_pyramid(tmp_path / "i.ome.tif", truth(), ome=True)
    data = path.read_bytes().replace(b'SizeX="0.25"', f'SizeX="{size}"'.encode())
    path.write_bytes(data)
    image = open_pyramid(path)
    assert (image.spacing, image.unit, image.mpp) == (None, None, None)
    assert [note for note in image.notes if "makes no sense" in note and "give --mpp" in note]
    json.dumps(describe(image), allow_nan=False)
    told = with_spacing(image, 0.5)
    assert told.mpp == (0.5, 0.5)
    assert not told.notes
    assert not with_spacing(open_array(truth()), 0.5).notes
    with pytest.raises(ValueError, match="above 0"):
        with_spacing(image, float("inf"))


@pytest.mark.parametrize("size", [0.0, -0.5, float("nan")])
def test_an_impossible_size_in_zarr_is_ignored(tmp_path: Path, size: float) -> None:
    image = open_pyramid(write_ome_zarr(tmp_path / "i.zarr", truth(), mpp=size))
    assert image.spacing is None
    assert "give --mpp" in image.notes[-1]
    assert [level.scale_x for level in image.levels] == [1, 2, 4]


@pytest.mark.parametrize("step", [0.0, float("nan"), float("inf")])
def test_an_impossible_transform_is_ignored(tmp_path: Path, step: float) -> None:
    path = write_zarr(tmp_path / "i.zarr", truth("uint16", 2))
    zarr.open_array(path, mode="r+").attrs.update(
        {"proj:code": "EPSG:4326", "spatial:transform": [step, 0, 5, 0, -0.1, 50]}
    )
    image = open_pyramid(path)
    assert (image.transform, image.spacing) == (None, None)
    assert "transform" in image.notes[-1]
    json.dumps(describe(image), allow_nan=False)


class FakeSlide:
    """A slide of which only a part was scanned, as MRXS has it; the rest is transparent."""

    dimensions = (480, 320)
    level_dimensions = ((480, 320), (240, 160))
    level_downsamples = (1.0, 2.0)
    properties = {  # noqa: RUF012
        "openslide.bounds-x": "60",
        "openslide.bounds-y": "50",
        "openslide.bounds-width": str(WIDTH),
        "openslide.bounds-height": str(HEIGHT),
        "openslide.background-color": "102030",
        "openslide.mpp-x": "0.25",
        "openslide.mpp-y": "0.5",
    }

    def __init__(self, path: Path) -> None:
        canvas = np.zeros((320, 480, 4), np.uint8)
        canvas[50 : 50 + HEIGHT, 60 : 60 + WIDTH, :3] = truth()
        canvas[50 : 50 + HEIGHT, 60 : 60 + WIDTH, 3] = 255
        canvas[60:70, 60:70] = 0  # a hole in the scan
        self.canvas = canvas

    @staticmethod
    def detect_format(path: Path) -> str:
        return "mirax"

    def set_cache(self, cache: object) -> None:
        self.cache = cache

    def read_region(self, place: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        step = 2**level
        pixels = self.canvas[place[1] :: step, place[0] :: step][: size[1], : size[0]]
        return Image.fromarray(pixels)


def test_a_slide_is_what_was_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "i.mrxs").write_text("not empty")
    monkeypatch.setattr("openslide.OpenSlide", FakeSlide)
    image = open_pyramid(tmp_path / "i.mrxs")
    assert (image.width, image.height, image.mpp) == (WIDTH, HEIGHT, (0.25, 0.5))
    assert list(image.background) == [16, 32, 48]
    assert [(level.width, level.height) for level in image.levels] == [(301, 203), (150, 101)]
    wanted = truth()
    wanted[10:20, :10] = [16, 32, 48]
    np.testing.assert_array_equal(image.read(WHOLE, (WIDTH, HEIGHT)), wanted)
    coarse = image.read(Region(20, 20, 200, 160), (100, 80))
    np.testing.assert_array_equal(coarse, wanted[20:180:2, 20:220:2])
    assert (image.read(Region(-50, 0, 50, 50), (5, 5)) == [16, 32, 48]).all()


def test_without_openslide_the_error_is_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "i.mrxs").write_text("not empty")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(UnsupportedImage, match="pip install openslide-python"):
        open_pyramid(tmp_path / "i.mrxs")
    path = write_tiff(tmp_path / "i.tif", truth())
    assert open_pyramid(path).format == "TIFF"


def test_nodata_is_left_out_of_means(tmp_path: Path) -> None:
    pixels = np.full((64, 64, 2), 100, np.int16)
    pixels[:, :31] = -9999
    image = open_pyramid(write_geotiff(tmp_path / "g.tif", pixels, nodata="-9999"))
    got = image.read(Region(0, 0, 64, 64), (9, 9))
    assert set(np.unique(got)) == {-9999, 100}
    nan = pixels.astype(np.float32)
    nan[nan == -9999] = np.nan
    got = open_array(nan).read(Region(0, 0, 64, 64), (4, 4))
    # Of the second column's pixels one column is there, which is enough for a level's pixel.
    assert np.isnan(got[:, :1]).all()
    assert (got[:, 1:] == 100).all()


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", "-9999"), ("int16", "nan")])
def test_nodata_that_no_pixel_can_hold_is_none(tmp_path: Path, dtype: str, nodata: str) -> None:
    path = write_geotiff(tmp_path / "g.tif", truth(dtype, 1), nodata=nodata)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tag = tiff.pages.first.tags["TileByteCounts"]
        tag.overwrite((0, *tag.value[1:]))
    with open_pyramid(path) as image:
        assert (image.nodata, image.background) == (None, (0.0,))
        got = image.read(Region(-64, 0, 192, 64), (192, 64))[..., 0]
    assert (got[:, :128] == 0).all()
    assert (got[:, 128:] > 0).all()
    code = "import sys; from tnet.adapters import open_pyramid; open_pyramid(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert done.stderr == ""


def test_nodata_at_the_ends_of_a_type() -> None:
    pixels = np.zeros((4, 4), np.float32)
    for nodata in (-3.4028234663852886e38, -3.40282347e38, float("-inf")):
        assert open_array(pixels, nodata=nodata).nodata == nodata
    assert open_array(pixels, nodata=1e39).nodata is None
    assert open_array(pixels.astype(np.uint8), nodata=0.5).nodata is None
    white = open_array(np.zeros((4, 4, 3), np.uint8), nodata=-9999)
    assert white.background == (255, 255, 255)


def test_zarr_attributes_of_place(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "i.zarr", truth("uint16", 2))
    zarr.open_array(path, mode="r+").attrs.update(
        {"proj:code": "EPSG:4326", "spatial:transform": [0.1, 0, 5, 0, -0.1, 50], "nodata": 0}
    )
    image = open_pyramid(path)
    assert (image.crs, image.unit, image.nodata) == ("EPSG:4326", "degree", 0)
    assert image.spacing == pytest.approx((0.1, 0.1))


def test_cf_grid_mapping(tmp_path: Path) -> None:
    path = tmp_path / "i.zarr"
    group = zarr.open_group(path, mode="w")
    group.create_array("data", shape=(40, 50), dtype="f4", chunks=(40, 50))[...] = 3
    group["data"].attrs.update({"grid_mapping": "spatial_ref", "_FillValue": "AAAAAAAA+H8="})
    place = group.create_array("spatial_ref", shape=(), dtype="i8")
    place.attrs.update({"crs_wkt": 'GEOGCS["WGS 84"]', "GeoTransform": "5 0.5 0 50 0 -0.5"})
    image = open_pyramid(path)
    assert image.crs == 'GEOGCS["WGS 84"]'
    assert list(image.transform or ()) == [0.5, 0, 5, 0, -0.5, 50]
    assert image.nodata is not None
    assert np.isnan(image.nodata)
    assert json.loads(json.dumps(describe(image), allow_nan=False))["nodata"] == "nan"


def test_sparse_zarr_reads_its_fill_value_and_background(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "i.zarr", shape=(3, 500, 600), dtype="uint8", chunks=(3, 64, 64), fill_value=240
    )
    image = open_pyramid(tmp_path / "i.zarr")
    assert (image.read(Region(-100, -100, 800, 800), (80, 80)) == 240).all()
    array.attrs["tnet"] = {"background": [1, 2, 3]}
    assert open_pyramid(tmp_path / "i.zarr").background == (1, 2, 3)


def test_glass_of_a_foreign_ome_zarr_is_empty(tmp_path: Path) -> None:
    """Converters leave the fill value at 0, whatever the glass looks like."""
    glass = np.random.default_rng(0).integers(236, 250, (200, 300, 3), dtype=np.uint8)
    glass[:64, :64] = 0  # a chunk that is not written
    path = write_ome_zarr(tmp_path / "i.zarr", glass)
    image = open_pyramid(path)
    assert list(image.background) == [255, 255, 255]
    around = image.read(Region(-30, -20, 360, 240), (360, 240))
    assert (around[:20] == 255).all()
    assert not foreground(around, image).any()
    glass[150:160, 150:160] = (150, 60, 140)
    image = open_pyramid(write_ome_zarr(tmp_path / "tissue.zarr", glass))
    seen = foreground(image.read(Region(0, 0, 300, 200), (300, 200)), image)
    assert seen.sum() == 100


def test_a_plain_zarr_of_white_glass_is_empty(tmp_path: Path) -> None:
    shape = (256, 256, 3)
    array = zarr.create_array(tmp_path / "i.zarr", shape=shape, dtype="uint8", fill_value=0)
    array[:100] = 255
    image = open_pyramid(tmp_path / "i.zarr")
    view = image.read(Region(0, 0, 256, 256), (64, 64))
    assert not foreground(view, image)[:24].any()
    assert not foreground(view, image)[27:].any()


def test_who_says_what_the_background_of_a_zarr_is(tmp_path: Path) -> None:
    bright = write_ome_zarr(tmp_path / "bright.zarr", truth(), fill=200)
    assert open_pyramid(bright).background == (200, 200, 200)
    path = write_ome_zarr(tmp_path / "i.zarr", truth(), fill=7)
    zarr.open_group(path, mode="r+").attrs["proj:code"] = "EPSG:4326"
    assert open_pyramid(path).background == (7, 7, 7)  # a map
    assert open_pyramid(path).unwritten is None
    zarr.open_group(path, mode="r+").attrs["nodata"] = 3
    assert open_pyramid(path).background == (3, 3, 3)
    zarr.open_group(path, mode="r+").attrs["tnet"] = {"background": [1, 2, 3]}
    assert open_pyramid(path).background == (1, 2, 3)
    deep = write_ome_zarr(tmp_path / "deep.zarr", truth("uint16"), fill=9)
    assert open_pyramid(deep).background == (9, 9, 9)


def test_groups_of_arrays(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "levels.zarr", mode="w")
    for name, side in (("1", 50), ("0", 100)):
        group.create_array(name, shape=(side, side), dtype="u1", chunks=(50, 50))[...] = side
    image = open_pyramid(tmp_path / "levels.zarr")
    assert [level.scale_x for level in image.levels] == [1, 2]
    assert image.read(Region(0, 0, 100, 100), (10, 10))[0, 0, 0] == 50
    wrapped = tmp_path / "wrapped.zarr"
    zarr.open_group(wrapped, mode="w").attrs["ome"] = {"bioformats2raw.layout": 3}
    write_ome_zarr(wrapped / "0", truth())
    assert open_pyramid(wrapped).mpp == (0.5, 0.5)


def test_codecs_that_only_zarr_python_knows(tmp_path: Path) -> None:
    numcodecs = pytest.importorskip("numcodecs")
    pixels = truth("int16", 1)[..., 0]
    array = zarr.create_array(
        tmp_path / "i.zarr", shape=pixels.shape, chunks=(64, 64), dtype="i2", zarr_format=2,
        filters=[numcodecs.Delta("i2")],
    )  # fmt: skip
    array[...] = pixels
    got = open_pyramid(tmp_path / "i.zarr").read(WHOLE, (WIDTH, HEIGHT))
    np.testing.assert_array_equal(got[..., 0], pixels)


FORK = """
import multiprocessing, sys
from tnet.adapters import open_pyramid
from tnet.geometry import Region

def look(image, mean):
    regions = [Region(i, 0, 100, 100) for i in range(8)]
    mean.value = image.read_many(regions, (32, 32)).mean()

with open_pyramid(sys.argv[1]) as image:
    fork = multiprocessing.get_context("fork")
    here, there = multiprocessing.Value("d"), fork.Value("d")
    look(image, here)
    child = fork.Process(target=look, args=(image, there))
    child.start()
    child.join(60)
    print(child.exitcode, here.value == there.value)
    child.kill()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others do not fork")
@pytest.mark.parametrize("kind", ["zarr", "tif"])
def test_forked_processes_read_too(tmp_path: Path, kind: str) -> None:
    if kind == "zarr":
        path = write_ome_zarr(tmp_path / "i.zarr", truth())
    else:
        path = write_tiff(tmp_path / "i.tif", truth(), tile=(64, 64), compression="zlib")
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(path)],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "True"], done.stderr


def test_names_of_axes_win(tmp_path: Path) -> None:
    zarr.create_array(
        tmp_path / "i.zarr", shape=(4, 30, 3), dtype="u1", chunks=(4, 30, 3),
        dimension_names=["band", "y", "x"],
    )  # fmt: skip
    image = open_pyramid(tmp_path / "i.zarr")
    assert (image.width, image.height, image.bands) == (3, 30, 4)


def test_bands_in_pages_and_planes_that_are_left_out(tmp_path: Path) -> None:
    pixels = truth("uint16", 4)
    for axes in ("CYX", "ZCYX"):
        stored = pixels.transpose(2, 0, 1)
        if axes == "ZCYX":
            stored = np.stack([stored, stored * 0])
        path = tmp_path / f"{axes}.ome.tif"
        tifffile.imwrite(
            path, stored, ome=True, photometric="minisblack", metadata={"axes": axes},
            tile=(64, 64), compression="zlib",
        )  # fmt: skip
        with open_pyramid(path) as image:
            np.testing.assert_array_equal(image.read(WHOLE, (WIDTH, HEIGHT)), pixels)
            assert any("2 along Z" in note for note in image.notes) == (axes == "ZCYX")


def test_tiles_that_were_left_out_read_as_nodata(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "g.tif", truth("int16", 1), nodata="-7")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tag = tiff.pages.first.tags["TileByteCounts"]
        tag.overwrite((0, *tag.value[1:]))
    with open_pyramid(path) as image:
        got = image.read(Region(0, 0, 128, 64), (128, 64))[..., 0]
    assert (got[:, :64] == -7).all()
    assert (got[:, 64:] != -7).all()


# --- colours -----------------------------------------------------------------------------------


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((40, 50, 4), np.uint8)
    pixels[:, :20, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "i.png")
    tifffile.imwrite(tmp_path / "i.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    for name in ("i.png", "i.tif"):
        image = open_pyramid(tmp_path / name)
        assert image.bands == 3
        assert image.notes
        got = image.read(Region(0, 0, 50, 40), (50, 40))
        assert (got[:, :20] == 0).all()
        assert (got[:, 20:] == 255).all()


def test_palettes_and_bits(tmp_path: Path) -> None:
    picture = Image.fromarray(truth()).quantize(32)
    wanted = np.asarray(picture.convert("RGB"))
    picture.save(tmp_path / "i.png")
    picture.save(tmp_path / "i.tif")
    for name in ("i.png", "i.tif"):
        got = open_pyramid(tmp_path / name).read(WHOLE, (WIDTH, HEIGHT))
        np.testing.assert_array_equal(got, wanted)
    bits = truth(bands=1)[..., 0] > 128
    Image.fromarray(bits).save(tmp_path / "b.png")
    Image.fromarray(bits).save(tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "w.tif", bits, photometric="miniswhite")
    for name, wanted in (("b.png", bits), ("b.tif", bits), ("w.tif", ~bits)):
        got = open_pyramid(tmp_path / name).read(WHOLE, (WIDTH, HEIGHT))[..., 0]
        np.testing.assert_array_equal(got, wanted * np.uint8(255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    pixels = truth()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "i.png", exif=exif)
    write_tiff(tmp_path / "i.tif", pixels, extratags=[(274, "H", 1, orientation, True)])
    with Image.open(tmp_path / "i.png") as picture:
        from PIL import ImageOps

        wanted = np.asarray(ImageOps.exif_transpose(picture))
    for name in ("i.png", "i.tif"):
        image = open_pyramid(tmp_path / name)
        assert (image.height, image.width) == wanted.shape[:2]
        got = image.read(Region(0, 0, image.width, image.height), (image.width, image.height))
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("orientation", [1, 6])
def test_deep_pngs(tmp_path: Path, orientation: int) -> None:
    for bands in (2, 3, 4):
        pixels = truth("uint16", bands)
        wanted = pixels
        if bands != 3:
            pixels[..., -1] = 65535
            pixels[:50, :60, -1] = 0
            wanted = pixels[..., :-1].copy()
            wanted[:50, :60] = 65535
        if orientation == 6:
            wanted = np.rot90(wanted, -1)
        image = open_pyramid(write_deep_png(tmp_path / "i.png", pixels, orientation))
        assert (image.height, image.width, image.bands) == wanted.shape
        assert bool(image.notes) == (bands != 3)
        got = image.read(Region(0, 0, image.width, image.height), (image.width, image.height))
        np.testing.assert_array_equal(got, wanted)


PEAK = """
import sys
from pathlib import Path
from tnet.adapters import open_pyramid
from tnet.geometry import Region

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

with open_pyramid(sys.argv[1]) as small, open_pyramid(sys.argv[2]) as image:
    small.read(Region(0, 0, 9, 9), (9, 9))
    before = peak()
    image.read(Region(0, 0, 9, 9), (9, 9))
    print((peak() - before) / (image.width * image.height))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_decoding_a_picture_takes_two_copies_of_it(tmp_path: Path) -> None:
    small = write_picture(tmp_path / "small.png", truth())
    picture = Image.new("RGB", (4000, 4000), (1, 2, 3))
    picture.save(tmp_path / "i.bmp")  # opening a BMP decodes nothing yet
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(small), str(tmp_path / "i.bmp")],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert float(done.stdout) < 8.5  # bytes a pixel: 4 of Pillow's and 3 of ours


# --- views -------------------------------------------------------------------------------------


def test_bands_can_be_chosen() -> None:
    pixels = truth("uint16", 5)
    view = select_bands(open_array(pixels), [4, 0])
    assert view.bands == 2
    assert view.dtype == "uint16"
    np.testing.assert_array_equal(view.read(WHOLE, (WIDTH, HEIGHT)), pixels[..., [4, 0]])
    assert view.read_many([WHOLE, WHOLE], (9, 8)).shape == (2, 8, 9, 2)
    with pytest.raises(ValueError, match="between 0 and 4"):
        select_bands(open_array(pixels), [5])


def test_values_can_be_rescaled() -> None:
    pixels = np.array([[[0.0], [50.0], [100.0], [200.0], [np.nan]]], np.float32)
    view = rescale(open_array(pixels), 0, 100)
    assert view.bands == 1
    assert view.dtype == "uint8"
    got = view.read(Region(0, 0, 5, 1), (5, 1))[0, :, 0]
    assert got.tolist() == [0, 128, 255, 255, 0]
    exact = view.read(Region(0, 0, 5, 1), (5, 1), dtype=np.float32)[0, :, 0]
    assert exact[1] == 127.5
    beyond = view.read(Region(9, 9, 1, 1), (1, 1), fill=51, dtype=np.float32)
    assert beyond == pytest.approx(51)
    with pytest.raises(ValueError, match="above low"):
        rescale(open_array(pixels), 5, 5)


def test_a_fill_for_each_band() -> None:
    pixels = np.full((40, 40, 4), 9, np.uint8)
    beyond, exact = Region(90, 90, 8, 8), np.float32
    image = open_array(pixels)
    seen = image.read(beyond, (2, 2), fill=(1.5, 2, 3, 4), dtype=exact)
    assert (seen == [1.5, 2, 3, 4]).all()
    with pytest.raises(ValueError, match="one value or 4"):
        image.read(beyond, (2, 2), fill=(1, 2, 3))
    chosen = select_bands(image, [3, 1])
    assert (chosen.read(beyond, (2, 2), fill=(5, 6.5), dtype=exact) == [5, 6.5]).all()
    assert (chosen.read(beyond, (2, 2), fill=7) == 7).all()
    with pytest.raises(ValueError, match="one value or 2"):
        chosen.read(beyond, (2, 2), fill=(1, 2, 3, 4))
    grey = select_bands(image, [2, 2, 2])  # of which a model of colours has three means
    many = grey.read_many([beyond, Region(36, 0, 8, 8)], (8, 8), fill=(5, 6.5, 5), dtype=exact)
    assert (many[0] == [5, 6.5, 5]).all()
    assert (many[1, :, 4:] == [5, 6.5, 5]).all()
    assert (many[1, :, :4] == 9).all()
    scaled = rescale(chosen, 10, 20)
    assert scaled.read(beyond, (1, 1), fill=(51, 102), dtype=exact).ravel() == pytest.approx(
        [51, 102], abs=1e-3
    )


def test_the_size_of_a_pixel_can_be_told(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "i.png", truth())
    assert open_pyramid(path).mpp is None
    assert open_pyramid(path, mpp=0.25).mpp == (0.25, 0.25)
    assert with_spacing(open_pyramid(path), (0.5, 0.25)).mpp == (0.5, 0.25)
    with pytest.raises(ValueError, match="above 0"):
        open_pyramid(path, mpp=0)


def test_arrays_and_pyramids_can_be_opened() -> None:
    image = open_pyramid(truth(bands=1)[..., 0])
    assert image.bands == 1
    assert open_pyramid(image) is image


# --- what goes wrong ---------------------------------------------------------------------------


def _nothing(folder: Path) -> Path:
    return folder / "missing.svs"


def _zero_bytes(folder: Path) -> Path:
    (folder / "empty.tif").touch()
    return folder / "empty.tif"


def _text(folder: Path) -> Path:
    (folder / "text.svs").write_text("this is no slide 😐" * 30, encoding="utf-8")
    return folder / "text.svs"


def _folder(folder: Path) -> Path:
    (folder / "folder").mkdir()
    return folder / "folder"


def _cut(name: str, **how: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        if name.endswith(".tif"):
            path = write_tiff(folder / name, truth(), **how)
        else:
            path = write_picture(folder / name, truth())
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        return path

    return make


def _half_index(folder: Path) -> Path:
    path = write_tiff_pyramid(folder / "i.tif", truth(), ome=False)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].offset
    path.write_bytes(path.read_bytes()[: place + 20])
    return path


def _tile_count(folder: Path) -> Path:
    """Claim a width that needs more tiles than are listed."""
    path = write_tiff(folder / "i.tif", truth(), tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags["ImageWidth"].overwrite(4000)
    return path


def _garbled_tile(folder: Path) -> Path:
    path = write_tiff(folder / "i.tif", truth(), tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[place : place + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    return path


def _huge_tile(folder: Path) -> Path:
    path = write_tiff(folder / "i.tif", truth(), tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for tag in ("TileWidth", "TileLength"):
            tiff.pages.first.tags[tag].overwrite(60000)
    return path


def _uncommon_colours(folder: Path) -> Path:
    return write_tiff(folder / "i.tif", truth(), photometric="cielab")


def _stack_in_one_page(folder: Path) -> Path:
    path = folder / "i.tif"
    stack = truth("uint16", 4).transpose(2, 0, 1)
    tifffile.imwrite(path, stack, photometric="minisblack", truncate=True)
    return path


def _volume(folder: Path) -> Path:
    path = folder / "i.zarr"
    zarr.create_array(path, shape=(2, 3, 40, 50), dtype="u1", chunks=(1, 1, 40, 50))
    return path


def _unknown_codec(folder: Path) -> Path:
    path = write_zarr(folder / "i.zarr", truth())
    meta = json.loads((path / "zarr.json").read_text())
    meta["codecs"].append({"name": "no-such-codec", "configuration": {}})
    (path / "zarr.json").write_text(json.dumps(meta))
    return path


def _bad_json(folder: Path) -> Path:
    (folder / "i.zarr").mkdir()
    (folder / "i.zarr" / "zarr.json").write_text("{")
    return folder / "i.zarr"


def _outside(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_zarr(folder / "secret.zarr", truth(bands=3))
        path = write_ome_zarr(folder / "i.zarr", truth())
        (path / "link").symlink_to(folder / "secret.zarr")
        meta = json.loads((path / "zarr.json").read_text())
        meta["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = name
        (path / "zarr.json").write_text(json.dumps(meta))
        return path

    return make


def _twins(folder: Path) -> Path:
    group = zarr.open_group(folder / "i.zarr", mode="w")
    for name in ("red", "green"):
        group.create_array(name, shape=(40, 40), dtype="u1", chunks=(40, 40))
    return folder / "i.zarr"


def _plate(folder: Path) -> Path:
    zarr.open_group(folder / "i.zarr", mode="w").attrs["ome"] = {"plate": {}}
    return folder / "i.zarr"


def _complex_numbers(folder: Path) -> Path:
    zarr.create_array(folder / "i.zarr", shape=(40, 50), dtype="complex64", chunks=(40, 50))
    return folder / "i.zarr"


def _damaged_chunk(folder: Path) -> Path:
    path = write_zarr(folder / "i.zarr", truth())
    (path / "c" / "0" / "0" / "0").write_bytes(b"no pixels")
    return path


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (_nothing, "does not exist"),
    "empty": (_zero_bytes, "is empty"),
    "text": (_text, "no image that is read"),
    "folder": (_folder, "without zarr metadata"),
    "cut-strips": (_cut("i.tif"), r"is truncated: it needs \d+ bytes and has \d+"),
    "cut-tiles": (_cut("i.tif", tile=(64, 64)), "truncated"),
    "cut-png": (_cut("i.png"), "damaged"),
    "cut-jpeg": (_cut("i.jpg"), "damaged"),
    "cut-index": (_half_index, "truncated"),
    "tile-count": (_tile_count, "damaged"),
    "garbled-tile": (_garbled_tile, "cannot be decoded"),
    "huge-tile": (_huge_tile, "tiles of 60000 x 60000 pixels, .* --max-memory"),
    "colours": (_uncommon_colours, "CIELAB"),
    "stack": (_stack_in_one_page, "in 1 pages"),
    "volume": (_volume, "4 axes without names"),
    "codec": (_unknown_codec, "no-such-codec"),
    "json": (_bad_json, "cannot be opened as zarr"),
    "parent": (_outside("../secret.zarr"), "outside of itself"),
    "absolute": (_outside("/tmp/secret.zarr"), "outside of itself"),
    "link": (_outside("link"), "outside of itself"),
    "twins": (_twins, "several arrays of one size"),
    "plate": (_plate, "plate"),
    "complex": (_complex_numbers, "complex64"),
    "chunk": (_damaged_chunk, "damaged or unreadable chunk"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(tmp_path: Path, name: str) -> None:
    make, reason = BROKEN[name]
    path = make(tmp_path)
    with pytest.raises(DataError, match=reason) as caught:
        _open_and_look(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text


def _open_and_look(path: Path) -> None:
    image = open_pyramid(path)
    image.read(Region(0, 0, image.width, image.height), (16, 16))


def test_a_picture_may_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_picture(tmp_path / "i.png", truth())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for limits, flag in ((Limits(pixels=1000), "max-pixels"), (Limits(memory=1000), "max-memory")):
        with pytest.raises(UnsupportedImage, match=f"limit.*--{flag}"):
            open_pyramid(path, limits=limits)


@pytest.mark.parametrize("reader", ["tiff", "openslide"])
def test_closed_files_say_so(tmp_path: Path, reader: Any) -> None:
    path = write_tiff(tmp_path / "i.tif", truth(), tile=(64, 64))
    image = open_pyramid(path, reader=reader)
    image.read(WHOLE, (10, 10))
    image.close()
    image.close()
    with pytest.raises(DataError, match="is closed"):
        image.read(WHOLE, (10, 10))


def test_a_tile_that_cannot_be_made_leaves_nothing_behind() -> None:
    cache = ByteBoundedCache(100)

    def fail() -> Pixels:
        raise DataError("damaged")

    for _ in range(2):
        with pytest.raises(DataError, match="damaged"):
            cache.get("tile", fail)
    assert not cache._gates
    assert cache.get("tile", lambda: np.ones(3)).sum() == 3
    assert not cache._gates


def test_a_picture_that_is_gone_is_not_called_damaged(tmp_path: Path) -> None:
    Image.fromarray(truth()).save(tmp_path / "i.png")
    image = open_pyramid(tmp_path / "i.png")
    (tmp_path / "i.png").unlink()
    with pytest.raises(DataError, match=r"i.png cannot be read \(No such file"):
        image.read(WHOLE, (10, 10))


def test_small_arrays_do_not_fill_the_cache_without_end() -> None:
    cache = ByteBoundedCache(2**16)
    made = []

    def make() -> Pixels:
        made.append(1)
        return np.zeros(0)

    for _ in range(2):
        for key in range(1000):
            cache.get(key, make)
    assert len(made) == 2000
    assert cache.size <= 2**16


HELD = """
import os, sys, threading
from pathlib import Path
import numpy as np
from tnet.adapters.segments import CACHE

begun, done = threading.Event(), threading.Event()

def slow():
    begun.set()
    done.wait()
    return np.zeros(1)

thread = threading.Thread(target=CACHE.get, args=("tile", slow))
thread.start()
begun.wait()
with CACHE._lock:
    child = os.fork()
if child == 0:
    threading.Timer(20, os._exit, [1]).start()
    CACHE.get("tile", lambda: np.ones(1))
    os._exit(0)
done.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others do not fork")
def test_a_fork_in_the_middle_of_a_read_blocks_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HELD],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["0"], done.stderr


@pytest.mark.skipif(not hasattr(os, "pread"), reason="elsewhere files are read in another way")
def test_a_file_closed_while_it_is_read_is_still_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"right")
    (tmp_path / "b").write_bytes(b"wrong")
    pread, file, others = os.pread, File(tmp_path / "a"), []

    def late(descriptor: int, count: int, offset: int) -> bytes:
        file.close()
        others.append(File(tmp_path / "b"))
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", late)
    assert file.read(0, 5) == b"right"
    with pytest.raises(DataError, match="is closed"):
        file.read(0, 5)


def test_hidden_and_foreign_files_are_no_images(tmp_path: Path) -> None:
    for name in (".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
        assert not is_image(tmp_path / name)
    assert not is_image(tmp_path)
    assert is_image(write_zarr(tmp_path / "plain", truth()))


def test_unknown_readers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reader must be"):
        open_pyramid(tmp_path, reader="magic")  # type: ignore[arg-type]


def test_importing_is_cheap() -> None:
    heavy = "zarr tensorstore tifffile openslide imagecodecs torch"
    code = f"import sys, tnet.adapters; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_the_folder_does_not_answer_for_another_package() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import adapters"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert "tnet.adapters" in done.stderr
