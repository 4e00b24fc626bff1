"""Others read what we write, and we read what others write: pixel by pixel."""

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from make_images import Pixels, truth, write_geotiff, write_tiff, write_tiff_pyramid

from tnet.adapters import open_pyramid
from tnet.adapters.storage.conversion import convert
from tnet.adapters.storage.wanted import Wanted
from tnet.geometry import Region
from tnet.pyramid import Pyramid

SLIDE = (701, 389)  # of odd size, several levels

SOURCES: dict[str, Callable[[Path], Path]] = {
    "slide": lambda p: write_tiff_pyramid(
        p / "slide.ome.tif", truth("uint8", 3, SLIDE), ome=True, compression="deflate"
    ),
    "scene": lambda p: write_geotiff(
        p / "scene.tif", with_nodata(truth("uint16", 5, (539, 613))), nodata="0"
    ),
    "floats": lambda p: write_tiff(p / "floats.tif", truth("float32", 1, (300, 517))),
}


def with_nodata(pixels: Pixels) -> Pixels:
    """Set a corner to 0."""
    pixels[:200, :150] = 0
    return pixels


def jpeg_slide(folder: Path, **how: Any) -> Path:
    """Write a pyramid of JPEG tiles."""
    options: dict[str, Any] = {
        "compression": "jpeg", "compressionargs": {"level": 90}, "subsampling": (1, 1),
        "photometric": "ycbcr",
    }  # fmt: skip
    return write_tiff_pyramid(
        folder / "jpeg.tif", truth("uint8", 3, SLIDE), ome=False, **options | how
    )


def jpeg_with_tables(folder: Path) -> Path:
    """Write JPEG tiles whose tables stand once in the file, as scanners do."""
    pixels = np.pad(truth("uint8", 3, SLIDE), [(0, -SLIDE[1] % 64), (0, -SLIDE[0] % 64), (0, 0)])
    corners = [(y, x) for y in range(0, SLIDE[1], 64) for x in range(0, SLIDE[0], 64)]
    split = [without_tables(pixels[y : y + 64, x : x + 64]) for y, x in corners]
    tables = {tables for _, tables in split}
    assert len(tables) == 1
    tifffile.imwrite(
        folder / "tables.tif", iter([tile for tile, _ in split]), shape=(*SLIDE[::-1], 3),
        dtype=np.uint8, tile=(64, 64), compression="jpeg", photometric="ycbcr",
        subsampling=(2, 2), jpegtables=tables.pop(), metadata=None,
    )  # fmt: skip
    return folder / "tables.tif"


def without_tables(pixels: Pixels) -> tuple[bytes, bytes]:
    """Return a JPEG that lacks its tables (DQT and DHT), and these as a JPEG without pixels."""
    content = bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), 90))
    place, kept, tables = 2, b"", b""
    while content[place + 1] != 0xDA:  # the pixels begin
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4])
        if content[place + 1] in (0xDB, 0xC4):
            tables += content[place:end]
        else:
            kept += content[place:end]
        place = end
    return content[:2] + kept + content[place:], content[:2] + tables + content[-2:]


def grey_jpeg(folder: Path) -> Path:
    """Write grey JPEG tiles."""
    pixels = truth("uint8", 1, SLIDE)
    return write_tiff(folder / "grey.tif", pixels, tile=(64, 96), compression="jpeg")


def optional(name: str, why: str) -> Any:
    """Return a module, or skip the test and say what was not tested."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"NOT TESTED: {why} (install {name.partition('.')[0]} for it)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which are not ours
        return importlib.import_module(name)


def our_levels(path: Path) -> list[Pixels]:
    """Return all pixels of all levels by our reader, (height, width, bands)."""
    with open_pyramid(path) as image:
        return [whole_level(image, number) for number in range(len(image.levels))]


def whole_level(image: Pyramid, number: int) -> Pixels:
    """Return the pixels of a level, (height, width, bands)."""
    level = image.levels[number]
    size = (level.width, level.height)
    return image.read(Region(0, 0, size[0] * level.scale_x, size[1] * level.scale_y), size)


def compare(ours: list[Pixels], theirs: list[Any]) -> None:
    """Hold levels (bands, height, width) of another reader against ours."""
    assert len(ours) == len(theirs) > 1
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, np.asarray(other).transpose(1, 2, 0))
        assert mine.std() > 0


def zarr_levels(path: Path) -> list[Any]:
    """Return all levels as zarr-python reads them, which may warn of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group: Any = zarr.open_group(path, mode="r")
        datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
        return [group[dataset["path"]][:] for dataset in datasets]


@pytest.fixture(scope="module", params=sorted(SOURCES))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    convert(SOURCES[request.param](folder), folder / "store.zarr")
    return folder / "store.zarr"


@pytest.fixture(scope="module", params=["jpeg:85", "source", "rgb", "tables", "grey"])
def jpeg_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jpeg")
    kind, codec = request.param, "source"
    if kind == "rgb":
        source = jpeg_slide(folder, photometric="rgb", compressionargs={"outcolorspace": "rgb"})
    elif kind == "grey":
        source = grey_jpeg(folder)
    elif kind == "tables":
        source = jpeg_with_tables(folder)
    else:
        source = jpeg_slide(folder)
        codec = "jpeg:85" if kind == "jpeg:85" else codec
    convert(source, folder / "store.zarr", Wanted(codec=codec))
    return folder / "store.zarr"


def test_is_valid_ome_zarr(store: Path) -> None:
    from ome_zarr_models.v05.image import Image

    image = Image.from_zarr(zarr.open_group(store, mode="r"))
    multiscale = image.ome_attributes.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == ["c", "y", "x"]
    assert len(multiscale.datasets) == len(our_levels(store))


def test_jpeg_is_valid_ome_zarr(jpeg_store: Path) -> None:
    from ome_zarr_models.v05.image import ImageAttrs

    attributes: Any = dict(zarr.open_group(jpeg_store, mode="r").attrs)
    assert ImageAttrs.model_validate(attributes["ome"]).multiscales[0].datasets


def test_zarr_python_reads_it(store: Path) -> None:
    compare(our_levels(store), zarr_levels(store))


def test_zarr_python_lists_it(store: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group: Any = zarr.open_group(store, mode="r")
        members = dict(group.members(max_depth=None))
    arrays = {name for name, node in members.items() if isinstance(node, zarr.Array)}
    assert arrays >= {str(number) for number in range(len(our_levels(store)))}


def test_tensorstore_reads_it(store: Path) -> None:
    import tensorstore

    ours = our_levels(store)
    theirs = []
    for number in range(len(ours)):
        kvstore = {"driver": "file", "path": str(store / str(number))}
        array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result()
        assert array.domain.labels == ("c", "y", "x")
        theirs.append(array.read().result())
    compare(ours, theirs)


def test_ome_zarr_py_reads_it(store: Path) -> None:
    optional("ome_zarr", "stores read by ome-zarr-py")
    io: Any = optional("ome_zarr.io", "stores read by ome-zarr-py")
    reader: Any = optional("ome_zarr.reader", "stores read by ome-zarr-py")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = next(iter(reader.Reader(io.parse_url(store))()))
        compare(our_levels(store), [np.asarray(level) for level in image.data])
    assert [axis["name"] for axis in image.metadata["axes"]] == ["c", "y", "x"]


def test_ngff_zarr_reads_it(store: Path) -> None:
    ngff: Any = optional("ngff_zarr", "stores read by ngff-zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = ngff.from_ngff_zarr(str(store)).images
        compare(our_levels(store), [np.asarray(image.data) for image in images])
    with open_pyramid(store) as image:
        if image.spacing is not None:
            assert (images[0].scale["x"], images[0].scale["y"]) == image.spacing


def test_zarr_python_reads_jpeg_with_the_codecs_of_imagecodecs(jpeg_store: Path) -> None:
    if not entry_points(group="zarr.codecs", name="imagecodecs_jpeg"):
        pytest.skip("NOT TESTED: JPEG stores read by zarr-python (install imagecodecs-zarr for it)")
    compare(our_levels(jpeg_store), zarr_levels(jpeg_store))


def by_ome_zarr_py(path: Path, pixels: Pixels) -> None:
    """Write (c, y, x) as OME-Zarr 0.4."""
    writer: Any = optional("ome_zarr.writer", "stores written by ome-zarr-py")
    form: Any = optional("ome_zarr.format", "stores written by ome-zarr-py")
    group = zarr.open_group(path, mode="w", zarr_format=2)
    writer.write_image(
        pixels, group, fmt=form.FormatV04(), axes="cyx", scale_factors=(2, 4),
        scale={"c": 1.0, "y": 0.25, "x": 0.25}, axes_units={"y": "micrometer", "x": "micrometer"},
    )  # fmt: skip


def by_ngff_zarr(path: Path, pixels: Pixels) -> None:
    """Write (c, y, x) as OME-Zarr 0.4."""
    ngff: Any = optional("ngff_zarr", "stores written by ngff-zarr")
    units = {"y": "micrometer", "x": "micrometer"}
    image = ngff.to_ngff_image(
        pixels, dims=["c", "y", "x"], scale={"c": 1.0, "y": 0.25, "x": 0.25}, axes_units=units
    )
    levels = ngff.to_multiscales(image, scale_factors=[{"x": 2, "y": 2}], chunks=128)
    ngff.to_ngff_zarr(str(path), levels, version="0.4")


@pytest.mark.parametrize("write", [by_ome_zarr_py, by_ngff_zarr])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_we_read_what_they_write(
    tmp_path: Path, write: Callable[[Path, Pixels], None], dtype: str
) -> None:
    pixels, path = truth(dtype, 3, (400, 300)), tmp_path / "theirs.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(path, pixels.transpose(2, 0, 1))
    assert (path / ".zattrs").is_file()
    with open_pyramid(path) as image:
        assert (image.width, image.height, image.mpp) == (400, 300, (0.25, 0.25))
        np.testing.assert_array_equal(whole_level(image, 0), pixels)
        group: Any = zarr.open_group(path, mode="r")
        stored = group[group.attrs["multiscales"][0]["datasets"][1]["path"]][:]
        assert (image.levels[1].width, image.levels[1].height) == stored.shape[:0:-1]
        np.testing.assert_array_equal(whole_level(image, 1), stored.transpose(1, 2, 0))
