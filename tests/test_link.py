"""Links: the same pixels and facts as the image they point to, for us and for zarr-python."""

import bz2
import json
import os
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import imagecodecs
import imagecodecs.numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from make_images import (
    HEIGHT,
    WIDTH,
    Pixels,
    truth,
    write_deep_png,
    write_geotiff,
    write_ome_zarr,
    write_picture,
    write_tiff,
    write_tiff_pyramid,
)
from PIL import Image, ImageCms
from shared_data import shared_folder

from tnet.adapters import Limits, is_image, open_pyramid
from tnet.adapters.extras import extras_of
from tnet.adapters.links import about
from tnet.adapters.links.about import origin_of
from tnet.adapters.links.making import link
from tnet.adapters.links.reading import check_link, open_link
from tnet.adapters.storage.seal import SEAL, Seal, Sealed, digest_of, read_seal
from tnet.errors import DataError, UnsupportedImage, UsageError
from tnet.geometry import Region
from tnet.pyramid import LevelPyramid

TILE = (64, 64)


def write_with_tables(path: Path, pixels: Pixels) -> Path:
    """Write JPEG tiles whose tables are in a tag of their own, as scanners do."""
    tiles, tables = [], b""
    padded = np.pad(pixels, ((0, -HEIGHT % 64), (0, -WIDTH % 64), (0, 0)), mode="edge")
    for y in range(0, padded.shape[0], 64):
        for x in range(0, padded.shape[1], 64):
            tile = np.ascontiguousarray(padded[y : y + 64, x : x + 64])
            whole = bytes(imagecodecs.jpeg8_encode(tile, 90, subsampling="444"))
            short, tables = _without_tables(whole)
            tiles.append(short)
    tifffile.imwrite(
        path, iter(tiles), shape=pixels.shape, dtype=np.uint8, tile=TILE, photometric="ycbcr",
        subsampling=(1, 1), compression="jpeg", metadata=None,
        extratags=[(347, 7, len(tables), tables, True)],
    )  # fmt: skip
    return path


def _without_tables(data: bytes) -> tuple[bytes, bytes]:
    """Return a JPEG without its tables (markers DQT and DHT), and these alone."""
    kept, tables, at = data[:2], data[:2], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] in (0xDB, 0xC4):
            tables += data[at:end]
        else:
            kept += data[at:end]
        at = end
    return kept + data[at:], tables + b"\xff\xd9"


def write_sparse(path: Path, pixels: Pixels) -> Path:
    """Write a tiled GeoTIFF of which only one tile is there; the others are nodata."""
    data = bytes(imagecodecs.zlib_encode(pixels[:64, :64, 0].tobytes()))
    tiles = [data] + [b""] * (5 * 4 - 1)
    tifffile.imwrite(
        path, iter(tiles), shape=pixels.shape[:2], dtype=pixels.dtype, tile=TILE,
        compression="zlib", photometric="minisblack", metadata=None,
        extratags=[(42113, "s", 0, "7", True)],
    )  # fmt: skip
    return path


def write_band_pages(path: Path, pixels: Pixels) -> Path:
    """Write an OME-TIFF of one page a band."""
    tifffile.imwrite(
        path, pixels.transpose(2, 0, 1), ome=True, metadata={"axes": "CYX"}, tile=TILE,
        photometric="minisblack", compression="zlib",
    )  # fmt: skip
    return path


def write_palette(path: Path, pixels: Pixels) -> Path:
    colours = np.random.default_rng(3).integers(0, 2**16, (3, 256), dtype=np.uint16)
    tifffile.imwrite(
        path, pixels[..., 0], photometric="palette", colormap=colours, tile=TILE,
        compression="lzw", metadata=None,
    )  # fmt: skip
    return path


def write_alpha(path: Path, pixels: Pixels) -> Path:
    clear = np.concatenate([pixels, pixels[..., :1]], -1)
    tifffile.imwrite(
        path, clear, photometric="rgb", extrasamples=["unassalpha"], tile=TILE,
        compression="zlib", metadata=None,
    )  # fmt: skip
    return path


Writer = Callable[[Path, Pixels], Path]


def tiff(**how: Any) -> Writer:
    return lambda folder, pixels: write_tiff(folder / "i.tif", pixels, **how)


def named(name: str, write: Callable[..., Path], **how: Any) -> Writer:
    return lambda folder, pixels: write(folder / name, pixels, **how)


JPEG = {"tile": TILE, "compression": "jpeg"}
# kind: dtype, bands, writer
PLAIN: dict[str, tuple[str, int, Writer]] = {
    "plain-tiles": ("uint8", 3, tiff(tile=TILE)),
    "plain-strip": ("uint8", 3, tiff()),
    "plain-strips": ("uint16", 2, tiff(rowsperstrip=16)),
    "plain-big-endian": ("uint16", 4, tiff(byteorder=">")),
    "plain-planes": ("int16", 3, tiff(planarconfig="separate")),
    "deflate": ("uint8", 3, tiff(tile=TILE, compression="zlib")),
    "deflate-predictor": ("uint8", 3, tiff(tile=TILE, compression="zlib", predictor=True)),
    "deflate-strips": ("uint8", 1, tiff(rowsperstrip=29, compression="zlib")),
    "lzw-predictor": ("uint16", 3, tiff(tile=TILE, compression="lzw", predictor=True)),
    "lzw-predictor-big-endian": (
        "uint16", 1, tiff(tile=TILE, compression="lzw", predictor=True, byteorder=">"),
    ),
    "zstd-predictor": ("int32", 2, tiff(tile=TILE, compression="zstd", predictor=True)),
    "floats": ("float32", 1, tiff(tile=TILE, compression="zlib", predictor=True)),
    "floats-big-endian": (
        "float32", 2, tiff(tile=TILE, compression="zstd", predictor=True, byteorder=">"),
    ),
    "doubles": ("float64", 1, tiff(tile=TILE, compression="zstd")),
    "planes": ("uint16", 3, tiff(tile=TILE, compression="zlib", planarconfig="separate")),
    "packbits": ("uint8", 1, tiff(tile=TILE, compression="packbits")),
    "lzma": ("uint8", 3, tiff(tile=TILE, compression="lzma")),
    "jpeg-rgb": ("uint8", 3, tiff(**JPEG)),
    "jpeg-ycbcr": ("uint8", 3, tiff(**JPEG, photometric="ycbcr")),
    "jpeg-grey": ("uint8", 1, tiff(**JPEG)),
    "jpeg-planes": ("uint8", 3, tiff(**JPEG, planarconfig="separate")),
    "jpeg-tables": ("uint8", 3, named("i.tif", write_with_tables)),
    "jpeg2000": ("uint8", 3, tiff(tile=TILE, compression="jpeg2000")),
    "jpeg2000-16": ("uint16", 1, tiff(tile=TILE, compression="jpeg2000")),
    "jpeg-xl": ("uint8", 3, tiff(tile=TILE, compression="jpegxl")),
    "png-tiles": ("uint8", 3, tiff(tile=TILE, compression="png")),
    "webp-tiles": ("uint8", 3, tiff(tile=TILE, compression="webp")),
    "pyramid": ("uint8", 3, named("i.tif", write_tiff_pyramid, ome=False, bigtiff=True)),
    "ome-tiff": ("uint8", 3, named("i.ome.tif", write_tiff_pyramid, ome=True)),
    "ome-tiff-pages": ("uint16", 3, named("i.ome.tif", write_band_pages)),
    "geotiff": ("int16", 4, named("i.tif", write_geotiff, nodata="-5")),
    "geotiff-floats": ("float32", 1, named("i.tif", write_geotiff, nodata="nan")),
    "sparse": ("uint16", 1, named("i.tif", write_sparse)),
    "jpeg": ("uint8", 3, named("i.jpg", write_picture, quality=80)),
    "png": ("uint8", 3, named("i.png", write_picture)),
    "png-grey": ("uint8", 1, named("i.png", write_picture)),
    "png-16": ("uint16", 3, named("i.png", write_deep_png)),
    "webp": ("uint8", 3, named("i.webp", write_picture, lossless=True)),
    "bmp": ("uint8", 3, named("i.bmp", write_picture)),
}  # fmt: skip
# Shown otherwise than stored: zarr-python sees what is stored.
PAINTED: dict[str, tuple[str, int, Writer]] = {
    "palette": ("uint8", 1, named("i.tif", write_palette)),
    "alpha": ("uint8", 3, named("i.tif", write_alpha)),
    "white-is-zero": ("uint8", 1, tiff(tile=TILE, photometric="miniswhite")),
}


class Made:
    """A file of a kind, and the link to it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        dtype, bands, write = (PLAIN | PAINTED)[kind]
        self.path = write(folder, truth(dtype, bands))
        self.place = folder / "links" / "i.zarr"
        self.linked = link(self.path, self.place)
        self.source, self.link = open_pyramid(self.path), open_pyramid(self.place)


@pytest.fixture(scope="module", params=sorted(PLAIN | PAINTED))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(request.param, tmp_path_factory.mktemp("links"))


def test_says_the_same_of_itself(made: Made) -> None:
    assert isinstance(made.source, LevelPyramid)
    assert isinstance(made.link, LevelPyramid)
    for field in fields(made.source.facts):
        said, found = (getattr(p.facts, field.name) for p in (made.source, made.link))
        if field.name not in ("name", "format"):
            assert repr(found) == repr(said)
    assert made.link.format == f"link to {made.source.format}"
    assert made.link.notes == made.source.notes
    assert made.link.name == str(made.place)


def test_shows_the_same(made: Made) -> None:
    regions = [
        Region(0, 0, WIDTH, HEIGHT),
        Region(-20.5, 31.25, 150, 111),
        Region(200, 150, 101, 53),
    ]
    for region in regions:
        for size in [(60, 50), (int(region.width), int(region.height))]:
            seen = made.source.read(region, size)
            np.testing.assert_array_equal(made.link.read(region, size), seen)
    many = made.source.read_many(regions, (32, 24))
    np.testing.assert_array_equal(made.link.read_many(regions, (32, 24)), many)


def test_is_whole(made: Made) -> None:
    assert check_link(made.place, deep=True) == []
    assert sorted(p.name for p in made.place.parent.iterdir()) == ["i.zarr"]
    files = {str(p.relative_to(made.place)): p for p in made.place.rglob("*") if p.is_file()}
    # Whoever does not know references shall find no arrays, rather than empty ones.
    assert set(files) == {".zattrs", ".zgroup", "references.json.bz2", "seal/zarr.json"}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    assert made.linked.size == sum(sizes.values()) - sizes["seal/zarr.json"]


def opened_elsewhere(place: Path, **more: Any) -> zarr.Group:
    """Open a link as the documentation says."""
    imagecodecs.numcodecs.register_codecs(verbose=False)
    files = fsspec.filesystem(
        "reference",
        fo=str(place / "references.json.bz2"),
        target_options={"compression": "bz2"},
        remote_protocol="file",
        asynchronous=True,
        **more,
    )
    store = zarr.storage.FsspecStore(files, read_only=True)
    return zarr.open_group(store, mode="r", zarr_format=2)


def test_zarr_python_reads_what_is_stored(made: Made) -> None:
    group = opened_elsewhere(made.place)
    attributes: dict[str, Any] = dict(group.attrs)
    image = attributes["multiscales"][0]
    axes = [axis["name"] for axis in image["axes"]]
    for dataset, level in zip(image["datasets"], made.source.levels, strict=True):
        array = group[dataset["path"]]
        assert isinstance(array, zarr.Array)
        shown = np.asarray(array[...])
        if "c" not in axes:
            shown = shown[..., None]
        elif axes[0] == "c":
            shown = shown.transpose(1, 2, 0)
        if made.kind in PAINTED:
            np.testing.assert_array_equal(shown.squeeze(), tifffile.imread(made.path))
            continue
        region = Region(0, 0, level.width * level.scale_x, level.height * level.scale_y)
        seen = made.source.read(region, (level.width, level.height))
        np.testing.assert_array_equal(shown, seen)


def test_zarr_python_is_told_of_another_place(tmp_path: Path) -> None:
    made = Made("deflate", tmp_path)
    moved = made.path.rename(tmp_path / "moved.tif")
    array = opened_elsewhere(made.place, template_overrides={"u": str(moved)})["0"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(np.asarray(array[...]), truth())


def test_speaks_of_itself_as_ome_zarr(tmp_path: Path) -> None:
    made = Made("ome-tiff", tmp_path)
    listed = references(made.place)["refs"]
    attributes = json.loads(listed[".zattrs"])
    (image,) = attributes["multiscales"]
    assert image["version"] == "0.4"
    assert image["axes"] == [
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
        {"name": "c", "type": "channel"},
    ]
    scales = [d["coordinateTransformations"][0]["scale"] for d in image["datasets"]]
    assert scales == [[0.25, 0.25, 1.0], [0.5, 0.5, 1.0], [1.0, 1.0, 1.0]]
    assert [c["color"] for c in attributes["omero"]["channels"]] == ["FF0000", "00FF00", "0000FF"]
    inside = json.loads((made.place / ".zattrs").read_text())
    assert {name: inside[name] for name in attributes} == attributes


def test_jpeg_tables_are_kept(tmp_path: Path) -> None:
    made = Made("jpeg-tables", tmp_path)
    assert "tables" in references(made.place)["refs"]["0/.zarray"]


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("wsi/CMU-1-Small-Region.svs", 1),
        ("wsi/largeimage_rgba_geotiff.tiff", 2),
        ("wsi/largeimage_yb10kx5k.zstd.tiff", 5),
        ("geotiff/TCI.tif", 6),
        ("geotiff/cog_hirise_mars.tif", 3),
    ],
)
def test_real_files(name: str, levels: int, tmp_path: Path) -> None:
    path = shared_folder("data", "files", *name.split("/"))
    assert link(path, tmp_path / "i.zarr").levels == levels
    with open_pyramid(path) as source, open_pyramid(tmp_path / "i.zarr") as image:
        assert (image.mpp, image.crs, image.transform) == (
            source.mpp, source.crs, source.transform,
        )  # fmt: skip
        whole = Region(0, 0, source.width, source.height)
        for region in (whole, Region(50.5, 77, 300, 280)):
            seen = source.read(region, (224, 200))
            np.testing.assert_array_equal(image.read(region, (224, 200)), seen)


# What cannot be linked, and a word of why.


def refused(path: Path, tmp_path: Path) -> str:
    with pytest.raises(UnsupportedImage) as caught:
        link(path, tmp_path / "links" / "i.zarr")
    assert not (tmp_path / "links").exists()
    assert str(path) in str(caught.value)
    assert "`tnet convert`" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "how", "why"),
    [
        ("uint8", {"rowsperstrip": 16, "compression": "zlib"}, "last strip"),
        ("uint8", {"extratags": [(274, 3, 1, 6, True)]}, "turned"),
        ("uint8", {"compression": "ccittrle"}, "bits"),
    ],
)
def test_refused_tiffs(dtype: str, how: dict[str, Any], why: str, tmp_path: Path) -> None:
    pixels = truth(dtype, 1)
    if why == "bits":
        tifffile.imwrite(tmp_path / "i.tif", pixels[..., 0] > 100, metadata=None)
    else:
        write_tiff(tmp_path / "i.tif", pixels, **how)
    assert why in refused(tmp_path / "i.tif", tmp_path)


def test_a_picture_that_zarr_would_show_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(truth()).save(path, exif=exif)
    assert "look different" in refused(path, tmp_path) or "not of the kind" in refused(
        path, tmp_path
    )


def test_zarr_is_not_linked(tmp_path: Path) -> None:
    assert "folder" in refused(write_ome_zarr(tmp_path / "i.zarr", truth()), tmp_path)


def test_slides_of_several_files_are_not_linked(tmp_path: Path) -> None:
    path = shared_folder("data", "files", "wsi", "highdicom_sm_image.dcm")
    assert "only OpenSlide knows" in refused(path, tmp_path)


# The source moves or changes.


@pytest.fixture
def deflate(tmp_path: Path) -> Made:
    (tmp_path / "all").mkdir()
    return Made("deflate", tmp_path / "all")


def test_link_and_source_move_together(deflate: Made, tmp_path: Path) -> None:
    seen = deflate.source.read(Region(0, 0, 50, 50), (50, 50))
    shutil.move(tmp_path / "all", tmp_path / "elsewhere")
    with open_pyramid(tmp_path / "elsewhere" / "links" / "i.zarr") as image:
        np.testing.assert_array_equal(image.read(Region(0, 0, 50, 50), (50, 50)), seen)


def test_a_link_moves_alone(deflate: Made, tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    shutil.move(deflate.place, tmp_path / "far" / "away")
    assert check_link(tmp_path / "far" / "away" / "i.zarr", deep=False) == []


def test_the_source_is_gone(deflate: Made) -> None:
    deflate.path.unlink()
    with pytest.raises(DataError) as caught:
        open_pyramid(deflate.place)
    assert str(caught.value) == (
        f"{deflate.place} points to {deflate.path}, which is not there (moved?); link it again "
        "with `tnet link`"
    )
    assert check_link(deflate.place, deep=False) == [str(caught.value)]


@pytest.mark.parametrize("change", ["size", "written to", "first bytes"])
def test_the_source_has_changed(deflate: Made, change: str) -> None:
    times = deflate.path.stat()
    data = bytearray(deflate.path.read_bytes())
    if change == "size":
        deflate.path.write_bytes(data + b"x")
    elif change == "first bytes":
        data[1000] ^= 1
        deflate.path.write_bytes(data)
        os.utime(deflate.path, ns=(times.st_atime_ns, times.st_mtime_ns))
    else:
        os.utime(deflate.path, ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000))
    with pytest.raises(DataError, match=rf"{change}.*link it again with `tnet link --overwrite`"):
        open_pyramid(deflate.place)


def test_a_source_that_may_not_be_read(deflate: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(about, "head_of", refused)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied: .*i\.tif") as caught:
        open_link(deflate.place)
    assert "damaged" not in str(caught.value)


def test_a_tile_of_the_source_is_damaged(deflate: Made) -> None:
    times = deflate.path.stat()
    refs = references(deflate.place)["refs"]
    _, offset, count = refs["0/3.1.0"]
    assert offset > 2**16
    with deflate.path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    os.utime(deflate.path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert check_link(deflate.place, deep=False) == []
    (fault,) = check_link(deflate.place, deep=True)
    assert fault.startswith(f"{deflate.place}: level 0, x 64 to 127, y 192 to 202 cannot be")
    assert str(deflate.path) in fault
    with open_pyramid(deflate.place) as image, pytest.raises(DataError, match="damaged"):
        image.read(Region(64, 192, 10, 10), (10, 10))


# Damaged and hostile links.


def references(place: Path) -> dict[str, Any]:
    return dict(json.loads(bz2.decompress((place / "references.json.bz2").read_bytes())))


def sealed_anew(place: Path, content: bytes | None = None, **about: Any) -> None:
    """Change a link's list or what it says of itself, and seal it as if it were whole."""
    if content is not None:
        (place / "references.json.bz2").write_bytes(content)
    attributes = json.loads((place / ".zattrs").read_text())
    attributes["tnet"] |= about
    (place / ".zattrs").write_text(json.dumps(attributes))
    seal = read_seal(place)
    assert seal is not None
    files = {name: (place / name).read_bytes() for name in seal.files}
    sealed = {name: Sealed(len(data), digest_of(data)) for name, data in files.items()}
    (place / SEAL).write_bytes(Seal(sealed, seal.source, seal.settings).to_bytes())


def changed(place: Path, key: str, value: object) -> None:
    """Change one entry of a link's list; a dict changes an array's metadata."""
    listed = references(place)
    if isinstance(value, dict):
        value = json.dumps(json.loads(listed["refs"][key]) | value)
    listed["refs"][key] = value
    text = json.dumps(listed, separators=(",", ":")).replace('"{{u}}",', '"{{u}}", ')
    sealed_anew(place, bz2.compress(text.encode()))


def trusted_anew(made: Made) -> None:
    """Make a link say that its file was always as it is now."""
    sealed_anew(made.place, source=asdict(origin_of(made.path, made.place)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made("deflate", tmp_path_factory.mktemp("whole"))


@given(st.data())
def test_every_flipped_bit_is_found(whole: Made, data: st.DataObject) -> None:
    names = [".zattrs", ".zgroup", "references.json.bz2", SEAL]
    path = whole.place / data.draw(st.sampled_from(names))
    content = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    hurt = bytearray(content)
    hurt[bit // 8] ^= 1 << bit % 8
    try:
        path.write_bytes(hurt)
        assert check_link(whole.place, deep=False) != []
        with pytest.raises(DataError):
            open_link(whole.place)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", [".zattrs", ".zgroup", SEAL])
def test_every_missing_file_is_missed(deflate: Made, name: str) -> None:
    (deflate.place / name).unlink()
    (fault,) = check_link(deflate.place, deep=False)
    assert name in fault


class Trap:
    """Tells when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_codecs_that_run_code_are_not_called(deflate: Made, tmp_path: Path) -> None:
    with deflate.path.open("ab") as file:
        offset = file.tell()
        file.write(pickle.dumps(Trap(tmp_path / "trapped")))
    trusted_anew(deflate)
    end = deflate.path.stat().st_size
    changed(deflate.place, "0/0.0.0", ["{{u}}", offset, end - offset])
    changed(deflate.place, "0/.zarray", {"compressor": {"id": "pickle"}})
    with pytest.raises(DataError, match="pickle"):
        open_link(deflate.place)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("0/0.0.0", ["/etc/passwd", 0, 10]),
        ("0/0.0.0", ["{{u}}"]),
        ("0/0.0.0", ["{{u}}", 10**9, 10]),
        ("0/0.0.0", ["{{u}}", 2**63 - 5, 10]),
        ("0/0.0.0", ["{{u}}", 2**64, 2**64]),
        ("0/0.0.0", ["{{u}}", 5, 0]),
        ("0/0.0.0", ["{{u}}", -5, 10]),
        ("0/0.0.0", ["{{u}}", 5, -10]),
        ("0/0.0.0", ["{{u}}", "5", 10]),
        ("0/0.0.0", "base64:AAAA"),
        ("0/9.9.0", ["{{u}}", 0, 10]),
        ("0/00.0.0", ["{{u}}", 0, 10]),
        ("7/0.0.0", ["{{u}}", 0, 10]),
        ("1/.zarray", "{}"),
        ("0/.zarray", {"shape": [203, 300, 3]}),
        ("0/.zarray", {"shape": [203, 301, 1]}),
        ("0/.zarray", {"shape": [203, 301]}),
        ("0/.zarray", {"chunks": [64, 0, 3]}),
        ("0/.zarray", {"chunks": [64, -64, 3]}),
        ("0/.zarray", {"dtype": "|O"}),
        ("0/.zarray", {"dtype": "<u2"}),
        ("0/.zarray", {"order": "F"}),
        ("0/.zarray", {"compressor": "zlib"}),
        ("0/.zarray", {"filters": [{"id": "imagecodecs_delta", "axis": "x"}]}),
        ("0/.zarray", {"fill_value": None}),
        ("0/.zattrs", {"_ARRAY_DIMENSIONS": ["y", "x", "z"]}),
        (".zgroup", None),
    ],
)
def test_nonsense_is_refused(deflate: Made, key: str, value: object) -> None:
    changed(deflate.place, key, value)
    if key == ".zgroup":
        sealed_anew(deflate.place, b"BZh9")
    with pytest.raises(DataError, match=r"damaged link|cannot be decoded"):
        open_link(deflate.place).read(Region(0, 0, 64, 64), (64, 64))


@pytest.mark.parametrize(
    "about",
    [
        {"source": None},
        {"source": {"absolute": "/etc/passwd"}},
        {"facts": {}},
        {"facts": {"levels": []}},
        {"paint": {"photometric": 3}},
        {
            "paint": {
                "photometric": 3,
                "bitspersample": 8,
                "extrasamples": [],
                "colormap": [1, 2],
            }
        },
        {"schema": "tnet.link/99"},
    ],
)
def test_nonsense_about_itself_is_refused(deflate: Made, about: dict[str, Any]) -> None:
    sealed_anew(deflate.place, **about)
    with pytest.raises(DataError, match="link it again"):
        open_link(deflate.place)


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        ({"shape": [10**7, 10**7, 3]}, "--max-pixels"),
        ({"chunks": [10**6, 10**6, 3]}, "--max-memory"),
        ({"shape": [10**5, 10**5, 3], "chunks": [1, 1, 3]}, "--max-memory"),
    ],
)
def test_absurd_sizes_meet_a_limit(deflate: Made, value: dict[str, Any], flag: str) -> None:
    changed(deflate.place, "0/.zarray", value)
    with pytest.raises(UnsupportedImage, match=flag):
        open_link(deflate.place)


def test_a_bomb_meets_a_limit(deflate: Made) -> None:
    sealed_anew(deflate.place, bz2.compress(b" " * 2**22))
    with pytest.raises(UnsupportedImage, match="--max-memory"):
        open_link(deflate.place, Limits(memory=2**24))
    sealed_anew(deflate.place, bz2.compress(b" " * 2**10) + b"more")
    with pytest.raises(DataError, match="does not end"):
        open_link(deflate.place)


@pytest.mark.parametrize("kind", ["deflate", "jpeg-rgb", "jpeg2000", "jpeg-xl", "png-tiles"])
def test_a_chunk_gets_no_more_memory_than_its_place(kind: str, tmp_path: Path) -> None:
    """A chunk may claim to be anything; it is decoded into memory of the declared size."""
    made = Made(kind, tmp_path)
    large = np.zeros((1024, 1024, 3), np.uint8)
    encoders: dict[str, Callable[[Pixels], Any]] = {
        "deflate": lambda pixels: imagecodecs.zlib_encode(pixels.tobytes()),
        "jpeg-rgb": imagecodecs.jpeg8_encode,
        "jpeg2000": imagecodecs.jpeg2k_encode,
        "jpeg-xl": imagecodecs.jpegxl_encode,
        "png-tiles": imagecodecs.png_encode,
    }
    bomb = bytes(encoders[kind](large))
    why = "cannot be decoded" if kind == "deflate" else "says that it holds 1024 x 1024 pixels"
    with made.path.open("ab") as file:
        offset = file.tell()
        file.write(bomb)
    trusted_anew(made)
    changed(made.place, "0/0.0.0", ["{{u}}", offset, len(bomb)])
    with open_link(made.place) as image:
        tracemalloc.start()
        with pytest.raises(DataError, match=why):
            image.read(Region(0, 0, 10, 10), (10, 10))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**21


# What stands at the destination.


def test_linking_again_changes_nothing(deflate: Made) -> None:
    before = {p: p.stat().st_mtime_ns for p in deflate.place.rglob("*")}
    again = link(deflate.path, deflate.place)
    assert again.outcome == "already linked"
    assert (again.levels, again.chunks, again.size) == (
        deflate.linked.levels, deflate.linked.chunks, deflate.linked.size,
    )  # fmt: skip
    assert {p: p.stat().st_mtime_ns for p in deflate.place.rglob("*")} == before


def test_a_link_to_something_else_is_left_alone(deflate: Made, tmp_path: Path) -> None:
    other = write_tiff(tmp_path / "other.tif", truth(), tile=TILE)
    with pytest.raises(UsageError, match=r"exists already.*--overwrite"):
        link(other, deflate.place)
    assert check_link(deflate.place, deep=False) == []
    assert link(other, deflate.place, overwrite=True).outcome == "linked"
    with open_pyramid(deflate.place) as image, open_pyramid(other) as source:
        region = Region(0, 0, WIDTH, HEIGHT)
        np.testing.assert_array_equal(image.read(region, (99, 88)), source.read(region, (99, 88)))


def test_a_changed_source_is_linked_anew(deflate: Made) -> None:
    os.utime(deflate.path)
    with pytest.raises(UsageError, match="--overwrite"):
        link(deflate.path, deflate.place)
    assert link(deflate.path, deflate.place, overwrite=True).outcome == "linked"
    assert check_link(deflate.place, deep=True) == []


def test_only_zarr_is_ever_replaced(deflate: Made, tmp_path: Path) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.txt").write_text("all of it")
    for place in (folder, folder / "thesis.txt"):
        with pytest.raises(UsageError, match=r"no zarr store|holds the image"):
            link(deflate.path, place, overwrite=True)
    assert (folder / "thesis.txt").read_text() == "all of it"
    inside = deflate.place / "i.tif"
    shutil.copy2(deflate.path, inside)
    with pytest.raises(UsageError, match=r"no zarr store|holds the image"):
        link(inside, deflate.place, overwrite=True)
    assert inside.exists()


def test_a_failed_link_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiff(tmp_path / "i.tif", truth(), tile=TILE)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tnet.adapters.storage.staging.Stage.seal", full)
    with pytest.raises(OSError, match="No space"):
        link(path, tmp_path / "i.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["i.tif"]


def test_a_link_is_an_image(deflate: Made) -> None:
    assert is_image(deflate.place)


def test_what_its_file_carries_beside_pixels_is_found_through_a_link(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = tmp_path / "i.png"
    Image.new("RGB", (40, 30)).save(source, icc_profile=profile)
    link(source, tmp_path / "link.zarr")
    assert extras_of(tmp_path / "link.zarr") == extras_of(source)
    assert extras_of(source).icc == profile
