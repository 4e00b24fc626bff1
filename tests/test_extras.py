"""Names, colours and profiles of channels, and the pictures beside a slide, from every format."""

import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_images import (
    truth,
    write_geotiff,
    write_ome_zarr,
    write_picture,
    write_tiff,
    write_tiff_pyramid,
    write_zarr,
)
from PIL import Image, ImageCms
from shared_data import shared_folder

from tnet.adapters import open_pyramid
from tnet.adapters.associated import associated_of
from tnet.adapters.extras import Channel, Extras, extras_of
from tnet.errors import DataError, UnsupportedImage
from tnet.geometry import Region

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOURS = (Channel("R", "FF0000"), Channel("G", "00FF00"), Channel("B", "0000FF"))
NOTHING = Extras((), None)

OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
    '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="301" SizeY="203" '
    'SizeC="{count}" SizeZ="1" SizeT="1">{channels}<TiffData/></Pixels></Image></OME>'
)


ENTITY = (
    '<!DOCTYPE x [<!ENTITY a "B02">]><GDALMetadata>'
    '<Item name="DESCRIPTION" sample="0">&a;</Item></GDALMetadata>'
)


def profile_of(space: bytes, length: int = 400) -> bytes:
    """Return the header of an ICC profile and zeros."""
    start = length.to_bytes(4, "big") + b"\0" * 12 + space + b"XYZ " + b"\0" * 12 + b"acsp"
    return start.ljust(length, b"\0")


def write_ome_tiff(path: Path, channels: str, bands: int = 3) -> Path:
    """Write uint16 planes whose OME-XML holds these Channel elements."""
    pixels = truth("uint16", bands).transpose(2, 0, 1)
    text = OME.format(count=bands, channels=channels).encode()
    tifffile.imwrite(path, pixels, photometric="minisblack", description=text, metadata=None)
    return path


def write_scene(path: Path, metadata: str, bands: int = 4) -> Path:
    """Write uint16 bands with GDAL's metadata."""
    tag = (42112, "s", 0, metadata, True)
    return write_tiff(path, truth("uint16", bands), extratags=[tag])


def write_slide(path: Path, icc: bytes | None = None) -> Path:
    """Write a slide as Aperio's scanners do, with a thumbnail, a label and a macro picture."""
    said = "Aperio Image Library v11.2.1\n"
    extra: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        size = f"{said}512x384 (256x256)|AppMag = 20|MPP = 0.5"
        pixels = truth(size=(512, 384))
        tiff.write(pixels, tile=(256, 256), description=size, iccprofile=icc, **extra)
        tiff.write(truth(size=(64, 48)), description=f"{said}512x384 -> 64x48", **extra)
        for name, kind, side in (("label", 1, 40), ("macro", 9, 70)):
            text = f"{said}{name} {side}x30"
            more = {**extra, "description": text, "compression": "zlib"}
            tiff.write(truth(size=(side, 30)), subfiletype=kind, **more)
    return path


@pytest.mark.parametrize("name", ["i.png", "i.jpg", "i.webp"])
def test_pictures_keep_their_profile(tmp_path: Path, name: str) -> None:
    path = write_picture(tmp_path / name, truth(), icc_profile=SRGB)
    assert extras_of(path) == Extras(COLOURS, SRGB)


def test_a_bitmap_and_a_grey_picture_have_little_to_say(tmp_path: Path) -> None:
    assert extras_of(write_picture(tmp_path / "i.bmp", truth())) == Extras(COLOURS, None)
    assert extras_of(write_picture(tmp_path / "i.png", truth(bands=1))) == NOTHING


def test_a_profile_of_other_colours_than_the_reader_gives_is_left_out(tmp_path: Path) -> None:
    inks = Image.new("CMYK", (30, 20), (10, 200, 30, 0))
    inks.save(tmp_path / "inks.jpg", icc_profile=profile_of(b"CMYK"))
    assert extras_of(tmp_path / "inks.jpg") == Extras(COLOURS, None)
    grey = write_picture(tmp_path / "grey.png", truth(bands=1), icc_profile=profile_of(b"GRAY"))
    assert extras_of(grey).icc == profile_of(b"GRAY")
    rubbish = write_picture(tmp_path / "rubbish.png", truth(), icc_profile=b"x" * 500)
    assert extras_of(rubbish) == Extras(COLOURS, None)


def test_transparency_has_no_colour(tmp_path: Path) -> None:
    clear = truth(bands=4)
    assert extras_of(write_picture(tmp_path / "i.png", clear)).channels == COLOURS
    tifffile.imwrite(tmp_path / "i.tif", clear, photometric="rgb", extrasamples=["unassalpha"])
    assert extras_of(tmp_path / "i.tif").channels == COLOURS


def test_an_enormous_picture_is_not_refused_here(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1  # else Pillow decodes all of a PNG to look for EXIF behind the pixels
    grey: dict[str, Any] = {"icc_profile": profile_of(b"GRAY"), "exif": exif}
    path = write_picture(tmp_path / "i.png", truth(bands=1), **grey)
    data = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", 20000, 20000) + data[24:29]
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
    assert extras_of(path).icc == profile_of(b"GRAY")


def test_coloured_tiff(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "i.tif", truth(), iccprofile=SRGB)
    assert extras_of(path) == Extras(COLOURS, SRGB)
    plain = write_tiff(tmp_path / "plain.tif", truth(), photometric="minisblack")
    assert extras_of(plain) == NOTHING
    assert extras_of(write_tiff(tmp_path / "deep.tif", truth("uint16"))) == NOTHING
    assert extras_of(write_geotiff(tmp_path / "scene.tif", truth("uint16", 4))) == NOTHING
    pyramid = write_tiff_pyramid(tmp_path / "p.ome.tif", truth(), ome=True)
    assert extras_of(pyramid) == Extras(COLOURS, None)


def test_the_longest_profile(tmp_path: Path) -> None:
    for length, kept in ((2**24, True), (2**24 + 1, False)):
        path = write_tiff(tmp_path / "i.tif", truth(), iccprofile=profile_of(b"RGB ", length))
        assert (extras_of(path).icc is not None) == kept


def test_ome_tiff_channels(tmp_path: Path) -> None:
    channels = (
        '<Channel ID="Channel:0:0" Name="DAPI" Color="65535"/>'  # 0000FF, opaque
        '<Channel ID="Channel:0:1" Name=" FITC µ " Color="-16776961"/>'
        '<Channel ID="Channel:0:2"/>'
    )
    path = write_ome_tiff(tmp_path / "i.ome.tif", channels)
    assert extras_of(path).channels == (
        Channel("DAPI", "0000FF"),
        Channel("FITC µ", "FF0000"),
        Channel("2", None),
    )


@pytest.mark.parametrize(
    "channels",
    [
        "",
        '<Channel ID="Channel:0:0"/><Channel ID="Channel:0:1"/><Channel ID="Channel:0:2"/>',
        '<Channel ID="Channel:0:0" Name="one of three"/>',
    ],
)
def test_ome_tiff_that_names_nothing(tmp_path: Path, channels: str) -> None:
    assert extras_of(write_ome_tiff(tmp_path / "i.ome.tif", channels)) == NOTHING


def test_an_odd_colour_does_not_cost_the_name(tmp_path: Path) -> None:
    channel = '<Channel ID="Channel:0:0" Name="DAPI" Color="blue"/>'
    path = write_ome_tiff(tmp_path / "i.ome.tif", channel, bands=1)
    assert extras_of(path).channels == (Channel("DAPI", None),)


def test_a_very_long_name_is_cut(tmp_path: Path) -> None:
    channel = f'<Channel ID="Channel:0:0" Name="{"n" * 100_000}"/>'
    path = write_ome_tiff(tmp_path / "i.ome.tif", channel, bands=1)
    assert extras_of(path).channels == (Channel("n" * 256, None),)


def test_gdal_descriptions(tmp_path: Path) -> None:
    items = "".join(
        f'<Item name="DESCRIPTION" sample="{band}" role="description">{name}</Item>'
        for band, name in ((0, "B02"), (1, "B03"), (3, "B08"))
    )
    text = f'<GDALMetadata><Item name="AREA">x</Item>{items}</GDALMetadata>'
    assert extras_of(write_scene(tmp_path / "i.tif", text)).channels == (
        Channel("B02", None),
        Channel("B03", None),
        Channel("2", None),
        Channel("B08", None),
    )
    tag = (42112, "s", 0, text, True)
    coloured = write_tiff(tmp_path / "c.tif", truth(), extratags=[tag])
    assert extras_of(coloured).channels == (
        Channel("B02", "FF0000"),
        Channel("B03", "00FF00"),
        Channel("2", "0000FF"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "no XML",
        "<GDALMetadata>",
        '<GDALMetadata><Item name="DESCRIPTION" sample="one">B02</Item></GDALMetadata>',
        '<GDALMetadata><Item name="DESCRIPTION">of all</Item></GDALMetadata>',
        '<GDALMetadata><Item name="DESCRIPTION" sample="77">B02</Item></GDALMetadata>',
        ENTITY,
    ],
)
def test_odd_gdal_metadata_is_left_out(tmp_path: Path, text: str) -> None:
    assert extras_of(write_scene(tmp_path / "i.tif", text)) == NOTHING


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=80))
def test_no_metadata_breaks_anything(tmp_path: Path, text: str) -> None:
    path = write_scene(tmp_path / "i.tif", text, bands=2)
    assert extras_of(path) == NOTHING


def test_imagej_labels(tmp_path: Path) -> None:
    pixels = truth("uint16", 2).transpose(2, 0, 1)
    names: dict[str, Any] = {"axes": "CYX", "Labels": ["actin", "nuclei"]}
    tifffile.imwrite(tmp_path / "i.tif", pixels, imagej=True, metadata=names)
    assert extras_of(tmp_path / "i.tif").channels == (
        Channel("actin", None),
        Channel("nuclei", None),
    )


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_channels_and_profile(tmp_path: Path, version: str) -> None:
    path = write_ome_zarr(tmp_path / "i.zarr", truth(), version=version)
    assert extras_of(path) == Extras(COLOURS, None)
    group = zarr.open_group(path, mode="r+")
    channels: Any = [
        {"label": "DAPI", "color": "0000ff", "window": {"start": 0, "end": 9}},
        {"label": "FITC", "color": "#00FF00"},
        {"color": "nonsense"},
    ]
    if version == "0.4":
        group.attrs["omero"] = {"channels": channels}
    else:
        group.attrs["ome"] = {**dict(group.attrs)["ome"], "omero": {"channels": channels}}  # type: ignore[dict-item]
    stored = np.frombuffer(SRGB, np.uint8)
    group.create_array("icc_profile", shape=stored.shape, dtype="u1")[...] = stored
    expected = (Channel("DAPI", "0000FF"), Channel("FITC", "00FF00"), Channel("2", "0000FF"))
    assert extras_of(path) == Extras(expected, SRGB)


def test_a_collection_speaks_of_its_first_image(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "all.zarr", mode="w")
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    first = write_ome_zarr(tmp_path / "all.zarr" / "0", truth("uint16", 2))
    inner = zarr.open_group(first, mode="r+")
    omero: Any = {"channels": [{"label": "a"}, {"label": "b", "color": "FFFFFF"}]}
    inner.attrs["ome"] = {**dict(inner.attrs)["ome"], "omero": omero}  # type: ignore[dict-item]
    assert extras_of(tmp_path / "all.zarr").channels == (Channel("a", None), Channel("b", "FFFFFF"))


@pytest.mark.parametrize("omero", [7, [], {}, {"channels": 3}, {"channels": [1, 2, 3]}, None])
def test_odd_omero_is_left_out(tmp_path: Path, omero: Any) -> None:
    path = write_ome_zarr(tmp_path / "i.zarr", truth("uint16"), version="0.4")
    group = zarr.open_group(path, mode="r+")
    group.attrs["omero"] = omero
    group.create_array("icc_profile", shape=(2**40,), chunks=(2**30,), dtype="u1")
    assert extras_of(path) == NOTHING


def test_a_profile_that_would_grow_takes_no_memory(tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "i.zarr", truth())
    group = zarr.open_group(path, mode="r+")
    group.create_array("icc_profile", shape=(500,), chunks=(500,), dtype="u1")[...] = 1
    (path / "icc_profile/c/0").write_bytes(imagecodecs.zstd_encode(bytes(2**27)))
    tracemalloc.start()
    assert extras_of(path).icc is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_plain_zarr(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "i.zarr", truth())
    assert extras_of(path) == Extras(COLOURS, None)
    zarr.open_array(path, mode="r+").attrs["proj:code"] = "EPSG:32632"
    assert extras_of(path) == NOTHING  # a scene in false colours, for all we know


def test_slide(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "i.svs", SRGB)
    assert open_pyramid(path).format == "OpenSlide aperio"
    assert extras_of(path) == Extras(COLOURS, SRGB)
    assert extras_of(write_slide(tmp_path / "plain.svs")) == Extras(COLOURS, None)
    pictures = associated_of(path)
    assert {name: picture.shape for name, picture in pictures.items()} == {
        "label": (30, 40, 3),
        "macro": (30, 70, 3),
        "thumbnail": (48, 64, 3),
    }
    assert (pictures["label"] == truth(size=(40, 30))).all()
    assert pictures["label"].dtype == np.uint8


def test_a_pyramid_that_is_open_is_used_and_stays_open(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "i.svs", SRGB)
    with open_pyramid(path, reader="tiff") as image:
        assert extras_of(path, image) == Extras(COLOURS, SRGB)
        assert image.read(Region(0, 0, 512, 384), (8, 8)).shape == (8, 8, 3)


def test_pictures_of_an_ome_tiff(tmp_path: Path) -> None:
    path = tmp_path / "i.ome.tif"
    grey = truth(bands=1, size=(20, 30))[..., 0]
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(truth(), photometric="rgb", metadata={"axes": "YXS", "Name": "slide"})
        tiff.write(
            truth(size=(40, 30)), photometric="rgb", metadata={"axes": "YXS", "Name": "Label"}
        )
        tiff.write(grey, photometric="minisblack", metadata={"axes": "YX", "Name": "macro"})
        tiff.write(truth(size=(50, 30)), photometric="rgb", metadata={"axes": "YXS", "Name": "x"})
        deep = truth("uint16", 1)[..., 0]
        tiff.write(deep, photometric="minisblack", metadata={"axes": "YX", "Name": "thumbnail"})
    pictures = associated_of(path)
    assert sorted(pictures) == ["label", "macro"]
    assert (pictures["label"] == truth(size=(40, 30))).all()
    assert (pictures["macro"] == grey[..., None]).all()
    assert pictures["macro"].shape == (30, 20, 3)


def test_all_but_slides_have_no_such_pictures(tmp_path: Path) -> None:
    assert associated_of(write_picture(tmp_path / "i.png", truth())) == {}
    assert associated_of(write_tiff(tmp_path / "i.tif", truth())) == {}
    assert associated_of(write_zarr(tmp_path / "i.zarr", truth())) == {}


def test_a_damaged_label_is_named(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "i.svs")
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[2]
        place = page.dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[place : place + 100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"i\.svs holds a damaged label .*; go without it"):
        associated_of(path)


def test_a_damaged_macro_of_an_ome_tiff_is_named(tmp_path: Path) -> None:
    path = tmp_path / "i.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for name in ("slide", "macro"):
            place: Any = {"axes": "YXS", "Name": name}
            tiff.write(truth(), photometric="rgb", compression="zlib", metadata=place)
    with tifffile.TiffFile(path) as written:
        page: Any = written.pages[1]
        start = page.dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[start : start + 100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"i\.ome\.tif holds a damaged macro"):
        associated_of(path)


def test_unreadable_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        extras_of(tmp_path / "none.tif")
    (tmp_path / "text.tif").write_bytes(b"only text")
    with pytest.raises(UnsupportedImage, match="no image"):
        extras_of(tmp_path / "text.tif")


def test_real_slides() -> None:
    folder = shared_folder("data", "files", "wsi")
    slide = folder / "CMU-1-Small-Region.svs"
    assert extras_of(slide) == Extras(COLOURS, None)
    pictures = associated_of(slide)
    with tifffile.TiffFile(slide) as tiff:
        for series in tiff.series[1:]:
            ours, theirs = pictures[series.name.lower()], series.asarray()
            assert ours.shape == theirs.shape
            assert np.abs(ours.astype(int) - theirs).mean() < 2  # two decoders of JPEG
    found = extras_of(folder / "highdicom_sm_image.dcm")
    assert found.channels == COLOURS
    assert found.icc is not None
    assert ImageCms.getProfileName(ImageCms.ImageCmsProfile(io.BytesIO(found.icc))).strip()
    assert extras_of(folder / "largeimage_rgba_geotiff.tiff").channels == COLOURS


def test_real_scenes() -> None:
    for path in shared_folder("data", "files", "geotiff").glob("*.tif"):
        found = extras_of(path)
        with open_pyramid(path) as image:
            assert len(found.channels) in (0, image.bands)
