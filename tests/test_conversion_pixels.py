"""What a conversion keeps: level 0 is the source, every other level the mean of the one above."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from make_images import Pixels, write_levels, write_tiff

from tnet.adapters import open_pyramid
from tnet.adapters.storage.conversion import convert
from tnet.adapters.storage.wanted import Wanted
from tnet.geometry import Region
from tnet.pyramid import Pyramid

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
BANDS = (1, 2, 3, 5)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an image of a few hundred pixels one of several shards."""
    monkeypatch.setattr("tnet.adapters.storage.layout.SHARD", 512)


def noise(dtype: str, bands: int, size: tuple[int, int], seed: int = 0) -> Pixels:
    """Return (height, width, bands) of every value that a dtype has: no mean is like another."""
    rng, shape = np.random.default_rng(seed), (size[1], size[0], bands)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.normal(0, 1000, shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, kind, endpoint=True)


def with_holes(pixels: Pixels, value: float, seed: int = 0) -> Pixels:
    """Put ``value`` into single pixels, one by one and as a large patch, in all bands."""
    holes = np.random.default_rng(seed).random(pixels.shape[:2]) < 0.4
    height, width = holes.shape
    holes[height // 3 : height // 2, : width // 2] = True
    pixels = pixels.copy()
    pixels[holes] = value
    return pixels


def levels_of(folder: Path, pixels: Pixels, nodata: float | None = None) -> list[Pixels]:
    """Convert an image and return its levels as zarr-python reads them, (height, width, bands)."""
    folder.mkdir(parents=True, exist_ok=True)
    tags = [] if nodata is None else [(42113, "s", 0, str(nodata), True)]
    source = write_tiff(folder / "image.tif", pixels, extratags=tags)
    convert(source, folder / "image.zarr", Wanted(overwrite=True))
    group: Any = zarr.open_group(folder / "image.zarr", mode="r")
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    return [np.asarray(group[d["path"]][:]).transpose(1, 2, 0) for d in datasets]


def there(pixels: Pixels, nodata: float | None) -> Any:
    """Say which values are there: no NaN, and not nodata in every band of a pixel."""
    known = ~np.isnan(pixels)
    if nodata is not None:
        known &= ~(pixels == nodata).all(axis=2, keepdims=True)
    return known


def means(pixels: Pixels, nodata: float | None) -> Any:
    """Return the mean of those of every 2 x 2 pixels that are there, masked where none is."""
    odd = [(0, side % 2) for side in pixels.shape[:2]] + [(0, 0)]
    values = np.pad(pixels.astype(np.float64), odd)
    gone = np.pad(~there(pixels, nodata), odd, constant_values=True)
    height, width, bands = values.shape
    fours = (height // 2, 2, width // 2, 2, bands)
    return np.ma.masked_array(values.reshape(fours), gone.reshape(fours)).mean(axis=(1, 3))


def check(levels: list[Pixels], pixels: Pixels, nodata: float | None = None) -> None:
    """Hold every level against the one above it."""
    np.testing.assert_array_equal(levels[0], pixels)
    assert levels[0].dtype == pixels.dtype
    assert max(levels[-1].shape[:2]) <= 256
    if len(levels) > 1:
        assert max(levels[-2].shape[:2]) > 256
    for finer, coarser in pairwise(levels):
        wanted = means(finer, nodata)
        known = there(coarser, nodata)
        np.testing.assert_array_equal(known, ~np.ma.getmaskarray(wanted))
        error = np.abs(coarser.astype(np.float64) - wanted.filled(0))[known]
        if pixels.dtype.kind == "f":
            allowed = np.full(error.shape, 4 * np.finfo(pixels.dtype).eps * 1e4)
        else:
            # A mean that would read as nodata gives way to the value beside it.
            blank = nodata is not None and (np.abs(wanted - nodata) <= 0.5).filled(False).all(2)
            allowed = np.where(np.broadcast_to(np.expand_dims(blank, -1), known.shape), 1.5, 0.5)
            allowed = allowed[known]
        assert (error <= allowed).all(), float(error.max())


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_and_number_of_bands(tmp_path: Path, dtype: str, bands: int) -> None:
    pixels = noise(dtype, bands, (523, 139))
    check(levels_of(tmp_path, pixels), pixels)


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", 0), ("uint8", 255), ("int8", -128), ("uint16", 0), ("int16", -9999),
        ("uint32", 2**32 - 1), ("int32", -(2**31)), ("float32", -9999), ("float64", 0),
    ],
)  # fmt: skip
def test_missing_pixels_take_no_part(tmp_path: Path, dtype: str, nodata: float, bands: int) -> None:
    pixels = with_holes(noise(dtype, bands, (523, 139)), nodata)
    check(levels_of(tmp_path, pixels, nodata), pixels, nodata)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_levels_that_the_file_has_are_kept_and_those_it_lacks_are_made(
    tmp_path: Path, dtype: str
) -> None:
    # Sizes are rounded down, and there is none of half the size: as in many slides.
    sizes = [(1403, 1033), (350, 258), (87, 64)]
    own = [noise(dtype, 3, size, seed) for seed, size in enumerate(sizes)]
    source = write_levels(tmp_path / "slide.tif", own)
    for levels, wanted in (
        ("own", [*sizes[:1], (702, 517), sizes[1], (175, 129), sizes[2]]),
        ("mean", [*sizes[:1], (702, 517), (351, 259), (176, 130)]),
    ):
        store = tmp_path / f"{levels}.zarr"
        convert(source, store, Wanted(levels="own" if levels == "own" else "mean"))
        group: Any = zarr.open_group(store, mode="r")
        described = group.attrs["ome"]["multiscales"][0]
        made = [np.asarray(group[d["path"]][:]).transpose(1, 2, 0) for d in described["datasets"]]
        assert [(level.shape[1], level.shape[0]) for level in made] == wanted
        kept = {0: 0, 2: 1, 4: 2} if levels == "own" else {0: 0}
        for number, level in enumerate(made):
            if number in kept:
                np.testing.assert_array_equal(level, own[kept[number]])
            else:
                mean = means(made[number - 1], None).filled(0)
                assert (np.abs(level.astype(np.float64) - mean) <= 0.5).all()
        # No level is called a mean that may be something else.
        assert described.get("type") == (None if levels == "own" else "mean")
        with open_pyramid(store) as copy, open_pyramid(source) as image:
            region = Region(0, 0, image.width, image.height)
            for stored in image.levels if levels == "own" else image.levels[:1]:
                size = (stored.width, stored.height)
                np.testing.assert_array_equal(image.read(region, size), copy.read(region, size))


@pytest.mark.parametrize("nodata", [None, float("nan"), -9999.0])
def test_nan_is_missing_value_by_value(tmp_path: Path, nodata: float | None) -> None:
    pixels = with_holes(noise("float32", 3, (523, 259)), np.nan if nodata is None else nodata)
    pixels[np.random.default_rng(1).random(pixels.shape) < 0.2] = np.nan
    pixels[100:140, 100:140, 1] = np.nan  # one band of a whole patch
    check(levels_of(tmp_path, pixels, nodata), pixels, nodata)


SIZES = [
    (1, 1), (1, 700), (255, 255), (256, 256), (257, 256), (256, 257), (512, 511), (513, 512),
    (1025, 601),
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", None), ("uint16", 0), ("float32", -9999)])
def test_sizes_around_chunks_and_shards(
    tmp_path: Path, size: tuple[int, int], dtype: str, nodata: float | None
) -> None:
    pixels = noise(dtype, 3 if dtype == "uint8" else 1, size)
    if nodata is not None:
        pixels = with_holes(pixels, nodata)
    check(levels_of(tmp_path, pixels, nodata), pixels, nodata)


@given(
    dtype=st.sampled_from(DTYPES),
    bands=st.sampled_from(BANDS),
    width=st.integers(1, 600),
    height=st.integers(1, 300),
    nodata=st.none() | st.integers(0, 127),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=30)
def test_any_image(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    bands: int,
    width: int,
    height: int,
    nodata: int | None,
    seed: int,
) -> None:
    pixels = noise(dtype, bands, (width, height), seed)
    if nodata is not None:
        pixels = with_holes(pixels, nodata, seed)
    check(levels_of(tmp_path_factory.mktemp("any"), pixels, nodata), pixels, nodata)


@pytest.mark.parametrize("bands", [1, 3])
def test_jpeg_levels_are_means_of_what_was_kept(tmp_path: Path, bands: int) -> None:
    y, x = np.mgrid[:530, :701]
    waves = [127 + 120 * np.sin(x / (40 + 9 * band)) * np.cos(y / 31) for band in range(bands)]
    pixels = np.stack(waves, -1).astype(np.uint8)
    convert(write_tiff(tmp_path / "image.tif", pixels), tmp_path / "i.zarr", Wanted("jpeg:95"))
    with open_pyramid(tmp_path / "i.zarr") as image:
        levels = [whole_level(image, number) for number in range(len(image.levels))]
    assert [v.shape[:2] for v in levels] == [(530, 701), (265, 351), (133, 176)]
    assert 0 < np.abs(levels[0].astype(int) - pixels).max() < 12
    for finer, coarser in pairwise(levels):
        assert np.abs(coarser - means(finer, None)).max() < 12


def whole_level(image: Pyramid, number: int) -> Pixels:
    """Return the pixels of a level as our reader has them."""
    level = image.levels[number]
    size = (level.width, level.height)
    return image.read(Region(0, 0, size[0] * level.scale_x, size[1] * level.scale_y), size)


@pytest.mark.parametrize("hole", [False, True])
def test_a_mean_that_happens_to_be_nodata_is_not_missing(tmp_path: Path, hole: bool) -> None:
    pixels = np.full((300, 400, 1), 4, np.uint8)
    pixels[:, 1::2] = 6
    if hole:
        pixels[100:110, 100:110] = 5
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, pixels[..., 0], extratags=[(42113, "s", 0, "5", True)])
    convert(path, tmp_path / "scan.zarr")
    with open_pyramid(tmp_path / "scan.zarr") as image:
        half = image.levels[1]
        seen = image.read(Region(0, 0, 400, 300), (half.width, half.height))
    missing = seen[..., 0] == 5
    assert missing.sum() == (25 if hole else 0)
    assert (seen[~missing] == 6).all()


@st.composite
def looks(draw: st.DrawFn) -> tuple[float, float, float, float, int, int]:
    """A region, as shares of an image's sides, and the size of the view."""
    x, y = draw(st.floats(-0.2, 0.9)), draw(st.floats(-0.2, 0.9))
    width, height = draw(st.floats(0.02, 1.3)), draw(st.floats(0.02, 1.3))
    return x, y, width, height, draw(st.integers(1, 60)), draw(st.integers(1, 60))


@pytest.mark.parametrize("nodata", [None, 7.0])
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_an_image_without_levels_shows_what_its_copy_shows(
    tmp_path: Path, dtype: str, bands: int, nodata: float | None
) -> None:
    pixels = noise(dtype, bands, (611, 538))
    if nodata is not None:
        pixels = with_holes(pixels, nodata)
    tags = [] if nodata is None else [(42113, "s", 0, str(nodata), True)]
    source = write_tiff(tmp_path / "image.tif", pixels, extratags=tags)
    convert(source, tmp_path / "image.zarr")
    with open_pyramid(source) as image, open_pyramid(tmp_path / "image.zarr") as copy:
        assert (len(image.levels), len(copy.levels)) == (1, 3)

        @settings(max_examples=25, deadline=None)
        @given(looks())
        def check_look(look: tuple[float, float, float, float, int, int]) -> None:
            x, y, width, height, *size = look
            region = Region(x * 611, y * 538, width * 611, height * 538)
            np.testing.assert_array_equal(
                image.read(region, (size[0], size[1])), copy.read(region, (size[0], size[1]))
            )

        check_look()
