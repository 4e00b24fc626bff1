"""What a read means, whatever the format: crops, borders, means, the official view, memory."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from make_images import Pixels, area_means, shares, truth
from PIL import Image
from shared_data import shared_folder

from tnet.adapters import describe
from tnet.adapters.array import ArrayPyramid, open_array
from tnet.errors import UnsupportedImage
from tnet.geometry import Region
from tnet.pyramid import Facts, Level, LevelPyramid, Resampling, level_scales

ROOT = Path(__file__).resolve().parents[1]
IMAGE = truth(size=(97, 61))


class Counting(ArrayPyramid):
    """A pyramid in memory that keeps a list of what was fetched from it."""

    def __init__(self, pixels: Pixels, **facts: Any) -> None:
        height, width, bands = pixels.shape
        given = {
            "name": "counting",
            "format": "array",
            "levels": (Level(width, height, 1.0, 1.0, None),),
            "bands": bands,
            "dtype": pixels.dtype,
            "background": (0.0,) * bands,
        }
        super().__init__(pixels, Facts(**(given | facts)))
        self.fetched: list[tuple[int, int, int, int]] = []

    def _fetch(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        assert x >= 0
        assert y >= 0
        assert x + width <= self.levels[level].width
        assert y + height <= self.levels[level].height
        self.fetched.append((level, x, y, width * height))
        return super()._fetch(level, x, y, width, height)


# --- crops and borders -------------------------------------------------------------------------

whole_numbers = st.integers(-150, 150)
sides = st.integers(1, 120)


@given(
    whole_numbers, whole_numbers, sides, sides, st.sampled_from(["background", "mirror", "zero"])
)
@example(-97 * 5, 61 * 5, 300, 250, "mirror")
def test_crops_equal_a_padded_array(x: int, y: int, width: int, height: int, border: Any) -> None:
    got = open_array(IMAGE).read(Region(x, y, width, height), (width, height), border=border)
    far = 800
    around = ((far, far), (far, far), (0, 0))
    if border == "mirror":
        padded = np.pad(IMAGE, around, mode="symmetric")
    else:
        value = 255 if border == "background" else 0
        padded = np.pad(IMAGE, around, constant_values=value)
    wanted = padded[y + far : y + far + height, x + far : x + far + width]
    np.testing.assert_array_equal(got, wanted)


@given(
    st.floats(-60, 110), st.floats(-60, 80), st.floats(1, 6), st.floats(1, 6),
    st.integers(1, 30), st.integers(1, 30),
)  # fmt: skip
def test_reads_are_close_to_area_means(
    x: float, y: float, step_x: float, step_y: float, width: int, height: int
) -> None:
    """The truth is smooth, so any honest average lies close to the mean of the area."""
    smooth = np.asarray(
        [[[10 * np.sin(i / 20), 10 * np.cos(j / 15)] for i in range(97)] for j in range(61)],
        np.float32,
    )
    image = open_array(smooth, background=(0.0, 0.0))
    got = image.read(Region(x, y, width * step_x, height * step_y), (width, height))
    rows, columns = shares(y, step_y, height, 61), shares(x, step_x, width, 97)
    np.testing.assert_allclose(got, area_means(smooth, rows, columns), atol=1.5)


@given(st.integers(2, 9), st.floats(0, 20), st.floats(0, 10))
def test_neighbours_have_no_seam(step: int, x: float, y: float) -> None:
    image = open_array(IMAGE)
    both = image.read(Region(x, y, 8 * step, 4 * step), (8, 4), dtype=np.float32)
    right = image.read(Region(x + 4 * step, y, 4 * step, 4 * step), (4, 4), dtype=np.float32)
    np.testing.assert_allclose(both[:, 4:], right, atol=0.05)


def test_a_whole_image_has_no_frame_of_background() -> None:
    image = open_array(np.full((500, 700, 3), 100, np.uint8))
    for size in [(7, 5), (64, 64), (224, 160), (699, 499)]:
        assert (image.read(Region(0, 0, 700, 500), size) == 100).all()


def test_pixels_across_the_border_mix_both() -> None:
    image = open_array(np.full((8, 8), 100, np.uint8), background=(200.0,))
    got = image.read(Region(-3, 0, 8, 8), (4, 4))[0, :, 0]
    assert got.tolist() == [200, 150, 100, 100]


@pytest.mark.parametrize("step", [130, 1000, 1e5, 1e9])
def test_from_very_far_away(step: float) -> None:
    """One output pixel holds all of the image, and little memory is needed to see that."""
    image = open_array(np.full((61, 97), 200, np.uint8), background=(100.0,))
    region = Region(-2 * step, -2 * step, 5 * step, 5 * step)
    got = image.read(region, (5, 5), dtype=np.float32)[..., 0]
    assert got[2, 2] == pytest.approx(100 + 100 * 97 * 61 / step**2, abs=0.01)
    got[2, 2] = 100
    assert (got == 100).all()
    assert image.read(Region(0, 0, 97, 61), (1, 1)) == 200


def test_means_of_large_cells_are_exact() -> None:
    pixels = np.tile(np.array([[0, 255], [255, 255]], np.uint8), (900, 900))
    got = open_array(pixels).read(Region(0, 0, 1800, 1800), (3, 3))
    assert (np.abs(got.astype(int) - 191) <= 1).all()


def test_valid_and_fill() -> None:
    image = open_array(IMAGE)
    how: dict[str, Any] = {"valid": Region(10, 5, 20, 15), "fill": 127.5, "dtype": np.float32}
    got = image.read(Region(0, 0, 40, 40), (40, 40), **how)
    wanted = np.full((40, 40, 3), 127.5, np.float32)
    wanted[5:20, 10:30] = IMAGE[5:20, 10:30]
    np.testing.assert_array_equal(got, wanted)
    official = image.read(Region(0, 0, 40, 40), (40, 40), resampling="official", **how)
    np.testing.assert_array_equal(official, wanted)
    nowhere: dict[str, Any] = {"valid": Region(500, 0, 4, 4), "border": "mirror"}
    views: tuple[Resampling, ...] = ("antialias", "official")
    for view in views:
        seen = image.read(Region(0, 0, 4, 4), (2, 2), resampling=view, **nowhere)
        assert (seen == 0).all()
    half = image.read(Region(0, 5, 20, 2), (10, 1), **how)
    assert (half[:, :5] == 127.5).all()
    assert (half[:, 5:] != 127.5).all()


def test_valid_hides_pixels_from_the_filter() -> None:
    pixels = np.zeros((64, 64), np.float32)
    pixels[:, :30] = 1000
    image = open_array(pixels)
    for step in (2, 4, 8):
        got = image.read(
            Region(32, 0, 32, 32), (32 // step, 32 // step), valid=Region(30, 0, 34, 64)
        )
        assert (got == 0).all()


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "f2", "f4", "f8"]
)
def test_dtypes_are_kept(dtype: str) -> None:
    kind = np.dtype(dtype)
    top = np.iinfo(kind).max if kind.kind in "ui" else 1000
    pixels = np.full((40, 40, 2), top, kind)
    image = open_array(pixels)
    for size in [(40, 40), (30, 30), (9, 7), (1, 1), (80, 80)]:
        got = image.read(Region(0, 0, 40, 40), size)
        assert got.dtype == kind
        np.testing.assert_array_equal(got, top)
    exact = image.read(Region(0, 0, 40, 40), (9, 9), dtype=np.float64)
    assert exact.dtype == np.float64


def test_floats_are_not_rounded() -> None:
    pixels = np.tile(np.array([[0, 1], [1, 1]], np.uint8), (8, 8))
    got = open_array(pixels).read(Region(4, 4, 8, 8), (4, 4), dtype=np.float32)
    np.testing.assert_allclose(got, 0.75, atol=0.13)
    assert (got % 1 != 0).all()


def test_four_bands_are_no_transparency() -> None:
    pixels = np.full((40, 40, 4), 200, np.uint8)
    pixels[..., 3] = 0
    got = open_array(pixels).read(Region(0, 0, 40, 40), (17, 17))
    assert (got == [200, 200, 200, 0]).all()


def test_missing_pixels() -> None:
    pixels = np.full((60, 60, 2), 50, np.float32)
    pixels[:30] = np.nan
    pixels[30:, :30] = -1e6
    image = open_array(pixels, nodata=-1e6)
    for size in [(4, 4), (6, 6), (20, 20), (12, 30), (60, 60)]:
        got = image.read(Region(0, 0, 60, 60), size)
        values = np.rint(got[np.isfinite(got)])
        assert set(np.unique(values)) <= {-1e6, 50}
        low = got[size[1] * 3 // 4, size[0] * 3 // 4]
        np.testing.assert_allclose(low, 50, rtol=1e-5)
        assert (got[0] != 50).all()


def test_one_band_at_nodata_is_not_missing() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[..., 0] = 90
    got = open_array(pixels, nodata=0).read(Region(0, 0, 40, 40), (10, 10))
    assert (got == [90, 0, 0]).all()


def test_values_that_are_not_read() -> None:
    for dtype in ("int64", "complex64", "bool"):
        with pytest.raises(UnsupportedImage, match=dtype):
            open_array(np.zeros((4, 4), dtype))
    with pytest.raises(UnsupportedImage, match="shape"):
        open_array(np.zeros((4, 4, 4, 4), np.uint8))
    assert open_array(np.zeros((4, 4), np.uint8), nodata=-9999).nodata is None


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"border": "wrap"}, "border"),
        ({"resampling": "cubic"}, "resampling"),
        ({"dtype": np.int32}, "float type"),
    ],
)
def test_wrong_options(how: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        open_array(IMAGE).read(Region(0, 0, 4, 4), (4, 4), **how)


def test_unknown_options_are_not_swallowed() -> None:
    with pytest.raises(TypeError, match="'boarder'"):
        open_array(IMAGE).read(Region(0, 0, 4, 4), (4, 4), boarder="zero")  # type: ignore[call-arg]


def test_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        open_array(IMAGE).read(Region(0, 0, 4, 4), (4, 0))


# --- the official view -------------------------------------------------------------------------

OFFICIAL = [
    ((37, 53), (24, 24)),
    ((157, 157), (224, 224)),
    ((448, 448), (224, 224)),
    ((896, 896), (224, 224)),
    ((331, 500), (224, 224)),
    ((77, 77), (77, 77)),
    ((2500, 1700), (31, 17)),
    ((5, 9), (1, 1)),
]


@pytest.mark.parametrize(("crop", "size"), OFFICIAL)
def test_official_view_is_torch_interpolation(crop: tuple[int, int], size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (crop[0] + 20, crop[1] + 30, 3), dtype=np.uint8)
    part = torch.from_numpy(pixels[20:, 30:].astype(np.float32)).permute(2, 0, 1)[None]
    wanted = F.interpolate(part, size, mode="bilinear", align_corners=False)[0]
    region = Region(30, 20, crop[1], crop[0])
    got = open_array(pixels).read(region, size[::-1], resampling="official", dtype=np.float32)
    np.testing.assert_allclose(got, wanted.permute(1, 2, 0), atol=255e-5)
    rounded = open_array(pixels).read(region, size[::-1], resampling="official")
    assert rounded.dtype == np.uint8
    assert np.abs(rounded - got).max() <= 0.501


def test_official_view_repeats_the_released_code() -> None:
    golden = np.load(shared_folder("golden", "tnet") / "b_resize.npz")
    names = [name.removesuffix("_in_uint8") for name in golden if name.endswith("_in_uint8")]
    assert names
    for name in names:
        pixels, wanted = golden[f"{name}_in_uint8"], golden[f"{name}_out"]
        image = open_array(pixels)
        got = image.read(
            Region(0, 0, image.width, image.height),
            wanted.shape[::-1],
            resampling="official",
            dtype=np.float32,
        )
        np.testing.assert_allclose(got[..., 0] / 127.5 - 1, wanted, atol=2e-5)


def test_official_view_beyond_the_border() -> None:
    padded = np.pad(IMAGE, ((30, 50), (20, 40), (0, 0)))
    region = Region(-20, -30, padded.shape[1], padded.shape[0])
    got = open_array(IMAGE).read(
        region, (40, 30), resampling="official", border="zero", dtype=np.float32
    )
    wanted = open_array(padded).read(
        Region(0, 0, region.width, region.height), (40, 30), resampling="official", dtype=np.float32
    )
    np.testing.assert_allclose(got, wanted, atol=1e-3)
    mirrored = open_array(IMAGE).read(
        Region(-97, 0, 97, 61), (97, 61), resampling="official", border="mirror"
    )
    np.testing.assert_array_equal(mirrored, IMAGE[:, ::-1])


def test_official_view_reads_little_of_a_large_image() -> None:
    image = Sparse((100_000, 100_000))
    got = image.read(Region(0, 0, 100_000, 100_000), (8, 8), resampling="official")
    assert got.shape == (8, 8, 1)
    assert image.largest <= 2 * 2048 * 2048


class Sparse(LevelPyramid):
    """An image larger than memory: each pixel holds the number of its tile."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.largest = 0
        super().__init__(
            Facts(
                name="sparse",
                format="test",
                levels=(Level(*size, 1.0, 1.0, (256, 256)),),
                bands=1,
                dtype=np.dtype(np.uint8),
                background=(0.0,),
            )
        )

    def _fetch(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        self.largest = max(self.largest, width * height)
        columns = (np.arange(x, x + width) * 200 // self.width).astype(np.uint8)
        return np.broadcast_to(columns[None, :, None], (height, width, 1))


# --- levels ------------------------------------------------------------------------------------


def test_the_coarsest_level_that_is_fine_enough_serves() -> None:
    levels = tuple(Level(640 // s, 480 // s, float(s), float(s), None) for s in (1, 2, 4, 16))
    image = Counting(np.zeros((480, 640, 1), np.uint8), levels=levels)
    for step, level in [(0.5, 0), (1, 0), (1.99, 0), (2, 1), (3.9, 1), (4, 2), (15, 2), (16, 3)]:
        image.fetched.clear()
        image.read(Region(0, 0, 10 * step, 10 * step), (10, 10))
        assert {fetch[0] for fetch in image.fetched} == {level}
    image.fetched.clear()
    image.read(Region(0, 0, 160, 20), (10, 10))  # 16 by 2
    assert {fetch[0] for fetch in image.fetched} == {1}


def test_the_cost_of_the_first_look_is_that_of_the_level_it_reads() -> None:
    levels = tuple(Level(4480 // s, 448 // s, float(s), float(s), None) for s in (1, 2, 8))
    image = Counting(np.zeros((448, 4480, 1), np.uint8), levels=levels)
    image.read(Region(0, 0, 4480, 448), (448, 448))
    assert {fetch[0] for fetch in image.fetched} == {0}
    assert describe(image)["first_look_bytes"] == sum(fetch[3] for fetch in image.fetched)


def test_level_scales() -> None:
    assert level_scales((10000, 5000), (625, 312)) == (16, 16)
    assert level_scales((301, 203), (151, 102)) == (2, 2)
    assert level_scales((301, 203), (150, 101)) == (2, 2)
    assert level_scales((1098, 1098), (300, 300)) == (3.66, 3.66)
    assert level_scales((46000, 32914), (46000, 32914)) == (1, 1)


def test_a_level_rounded_down_has_no_border_of_its_own() -> None:
    levels = (Level(101, 101, 1.0, 1.0, None), Level(50, 50, 2.0, 2.0, None))
    image = Counting(np.full((101, 101, 1), 9, np.uint8), levels=levels, background=(255.0,))
    assert (image.read(Region(0, 0, 101, 101), (10, 10)) == 9).all()
    assert (image.read(Region(81, 81, 20, 20), (10, 10)) == 9).all()


def test_overviews_are_made_once_and_fit() -> None:
    rng = np.random.default_rng(1)
    pixels = np.kron(rng.integers(0, 256, (157, 141, 3)), np.ones((32, 32, 1))).astype(np.uint8)
    pixels = pixels[:5003, :4501]
    image = Counting(pixels)
    assert "converted to a zarr pyramid" in image.notes[-1]
    whole = Region(0, 0, 4501, 5003)
    barrier = threading.Barrier(4)

    def look(_: int) -> Pixels:
        barrier.wait()
        return image.read(whole, (141, 157))

    with ThreadPoolExecutor(4) as pool:
        first, *others = list(pool.map(look, range(4)))
    for other in others:
        np.testing.assert_array_equal(first, other)
    assert sum(fetch[3] for fetch in image.fetched) == 4501 * 5003
    assert max(fetch[3] for fetch in image.fetched) * 3 <= 2**22
    reference = np.asarray(Image.fromarray(pixels).resize((141, 157), Image.Resampling.BILINEAR))
    assert np.abs(first.astype(int) - reference).mean() < 6
    image.fetched.clear()
    image.read(Region(1000, 1000, 2000, 2000), (224, 224))
    assert not image.fetched
    part = image.read(Region(0, 0, 4500, 5000), (450, 500)).astype(int)
    reference = np.asarray(
        Image.fromarray(pixels[:5000, :4500]).resize((450, 500), Image.Resampling.BILINEAR)
    )
    assert np.abs(part - reference).mean() < 4


def test_fine_reads_make_no_overviews() -> None:
    image = Counting(np.zeros((3000, 3000, 1), np.uint8))
    image.read(Region(100, 100, 300, 300), (224, 224))
    assert sum(fetch[3] for fetch in image.fetched) < 400 * 400


def test_a_window_that_fails_fails_its_batch() -> None:
    class Failing(Counting):
        def _fetch(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
            if x == 30:
                raise IndexError("no such tile")
            return super()._fetch(level, x, y, width, height)

    regions = [Region(x, 0, 10, 10) for x in range(0, 60, 10)]
    with pytest.raises(IndexError, match="no such tile"):
        Failing(IMAGE).read_many(regions, (10, 10))
    np.testing.assert_array_equal(
        Counting(IMAGE).read_many(regions, (10, 10))[3], IMAGE[:10, 30:40]
    )


def test_overviews_of_nodata_and_floats() -> None:
    pixels = np.full((4100, 2100, 1), 7, np.float32)
    pixels[:, :1050] = -1
    image = Counting(pixels, nodata=-1, background=(-1.0,))
    got = image.read(Region(0, 0, 2100, 4100), (21, 41))
    assert set(np.unique(got)) == {-1, 7}


MEMORY = """
import resource, sys, zarr
import numpy as np
from tnet.adapters import open_pyramid
from tnet.geometry import Region
side = 40_000
array = zarr.create_array(
    sys.argv[1], shape=(3, side, side), chunks=(3, 512, 512), dtype="u1", fill_value=200
)
array[:, :600, :600] = 10
with open_pyramid(sys.argv[1]) as image:
    image.read(Region(0, 0, 10, 10), (10, 10))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = image.read(Region(0, 0, side, side), (224, 224))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert seen[0, 0, 0] == 10 and seen[-1, -1, 0] == 200
print((after - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_a_huge_image_without_levels_needs_little_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "i.zarr")],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 180  # MB; the picture has 4800
