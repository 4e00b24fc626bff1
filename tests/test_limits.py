"""What an image may declare, the flags that say so, and addresses on the command line."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import CommandLine, picture, write_model, write_png
from hypothesis import given
from hypothesis import strategies as st
from make_images import truth, write_ome_zarr, write_picture, write_tiff

from tnet.adapters import READERS, Limits, is_url, open_pyramid
from tnet.adapters.limits import (
    DEFAULT,
    OverLimit,
    bytes_of,
    limits_of,
    pixels_of,
    readable,
)
from tnet.errors import DataError, UnsupportedImage, UsageError, one_line
from tnet.geometry import Region
from tnet.scripts.inputs import Url, find_images, output_names

URL = "https://host.example/data/a%20slide.ome.zarr?key=1"


# --- numbers in flags --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1e9", 10**9),
        ("500MB", 500 * 10**6),
        ("500 mb", 500 * 10**6),
        ("4GiB", 2**32),
        ("4gi", 2**32),
        ("1.5k", 1500),
        ("2KiB", 2048),
        ("3 TB", 3 * 10**12),
        ("1TiB", 2**40),
        ("64MiB", 2**26),
        ("10B", 10),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "nan", "inf", "1e400", "4 GiBs", "4XB", "b"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--max-memory takes a size, such as 500MB"):
        bytes_of(text)
    with pytest.raises(UsageError, match=r"^--other takes"):
        bytes_of(text, "--other")
    with pytest.raises(UsageError, match=r"^--max-pixels takes a number of pixels"):
        pixels_of(text)


@given(st.integers(1, 2**49))
def test_any_size_can_be_told_and_is_shown(nbytes: int) -> None:
    assert bytes_of(str(nbytes)) == pytest.approx(nbytes, rel=1e-15)
    number, unit = readable(nbytes).split()
    shown = float(number) if unit == "bytes" else bytes_of(number + unit)
    assert shown == pytest.approx(nbytes, rel=1e-3)


def test_flags_change_what_they_name() -> None:
    assert limits_of(None, None) == DEFAULT == Limits(10**12, 2**32)
    assert limits_of("2e12", None) == Limits(pixels=2 * 10**12)
    assert limits_of(None, "8GiB") == Limits(memory=2**33)
    assert Limits(memory=400).piece == 100


# --- limits ------------------------------------------------------------------------------------


@given(st.integers(1, 10**7), st.integers(1, 10**7), st.integers(1, 10**14))
def test_an_image_within_the_limit_passes(width: int, height: int, pixels: int) -> None:
    limits = Limits(pixels=pixels)
    if width * height <= pixels:
        limits.check_image("i.tif", width, height)
    else:
        with pytest.raises(OverLimit, match=r"i\.tif .* raise it with --max-pixels"):
            limits.check_image("i.tif", width, height)


@given(st.integers(0, 2**34), st.integers(4, 2**34))
def test_a_piece_within_the_limit_passes(nbytes: int, memory: int) -> None:
    limits = Limits(memory=memory)
    if nbytes > limits.piece:
        with pytest.raises(OverLimit, match=r"i\.tif is stored in tiles, .* --max-memory"):
            limits.check_piece("i.tif", "tiles", nbytes)
    else:
        limits.check_piece("i.tif", "tiles", nbytes)
        limits.check_whole("i.tif", "it is", nbytes)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-3, -3)])
def test_an_image_has_pixels(size: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedImage, match="damaged"):
        DEFAULT.check_image("i.tif", *size)


def _tiled(folder: Path) -> Path:
    return write_tiff(folder / "i.tif", truth(), tile=(128, 128), compression="zlib")


def _striped(folder: Path) -> Path:
    return write_tiff(folder / "i.tif", truth(), rowsperstrip=200, compression="zlib")


def _turned(folder: Path) -> Path:
    turned = (274, "H", 1, 6, True)
    return write_tiff(
        folder / "i.tif", truth(), rowsperstrip=16, compression="zlib", extratags=[turned]
    )


def _png(folder: Path) -> Path:
    return write_picture(folder / "i.png", truth())


def _zarr(folder: Path) -> Path:
    return write_ome_zarr(folder / "i.zarr", truth())


def _progressive(folder: Path) -> Path:
    return write_picture(folder / "i.jpg", truth(), progressive=True)


# what makes the file, the least memory that lets it pass, what the refusal says
HELD = {
    "tiles": (_tiled, 4 * 128 * 128 * 4, "tiles of 128 x 128 pixels"),
    "strips": (_striped, 4 * 301 * 200 * 3, "pieces of 301 x 200 pixels"),
    "turned": (_turned, 2 * 301 * 203 * 3, r"stored turned \(orientation 6\)"),
    "picture": (_png, 301 * 203 * 8, "a PNG is decoded whole"),
    "progressive": (_progressive, 301 * 203 * 14, "a JPEG is decoded whole"),
}


@pytest.mark.parametrize("name", HELD)
def test_memory_is_limited(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, least, says = HELD[name]
    path = make(tmp_path)
    # What a directory takes is counted from above, which would hide the limits of small files.
    monkeypatch.setattr("tnet.adapters.directories._DIRECTORY_COST", 0)
    with open_pyramid(path, limits=Limits(memory=least)) as image:
        assert image.read(Region(0, 0, 9, 9), (9, 9)).any()
    with pytest.raises(OverLimit, match=f"{says}.* --max-memory") as caught:
        open_pyramid(path, limits=Limits(memory=least - 4))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_every_reader_has_limits(tmp_path: Path, name: str) -> None:
    make = {"image": _png, "zarr": _zarr}.get(name, _tiled)
    path = make(tmp_path)
    assert READERS[name](path, DEFAULT).width == 301
    with pytest.raises(OverLimit, match="--max-pixels"):
        READERS[name](path, Limits(pixels=301 * 203 - 1))


def test_arrays_are_not_limited() -> None:
    assert open_pyramid(np.zeros((9, 9), np.uint8), limits=Limits(1, 1)).width == 9


@pytest.mark.parametrize("flags", [("--max-pixels", "1000"), ("--max-memory", "10kB")])
def test_flags_of_info_and_classify(
    tnet: CommandLine, tmp_path: Path, flags: tuple[str, str]
) -> None:
    image = write_png(tmp_path / "a.png", picture())
    model = write_model(tmp_path / "m.safetensors")
    for command in (("info", image), ("classify", image, "--model", model)):
        assert tnet(*command).code == 0
        done = tnet(*command, *flags)
        assert (done.code, len(done.err.splitlines())) == (3, 1)
        assert str(image) in done.err
        assert flags[0] in done.err
        assert tnet(*command, flags[0], "1e13").code == 0
        done = tnet(*command, flags[0], "many")
        assert done.code == 2
        assert done.err.startswith(f"tnet: {flags[0]} takes")


def test_what_libraries_say_fits_into_a_sentence() -> None:
    assert one_line(ValueError(" first\n  second\r\n")) == "first second"


# --- addresses ---------------------------------------------------------------------------------


def test_what_is_an_address() -> None:
    assert all(is_url(f"{s}://host/a") for s in ("http", "https", "HTTPS", "s3", "gs", "ftp"))
    assert not any(map(is_url, ("a.png", "/a//b", "C:\\a.png", "C://a.png", "./http://", "s3:a")))


@pytest.mark.parametrize("scheme", ["http", "https", "s3", "gs", "S3"])
def test_nothing_is_fetched_unasked(scheme: str) -> None:
    with pytest.raises(DataError, match=f"^{scheme}://host/a.zarr is on the network.* --remote"):
        open_pyramid(f"{scheme}://host/a.zarr")


def test_other_schemes_are_refused() -> None:
    for scheme in ("ftp", "file", "memory"):
        with pytest.raises(UnsupportedImage, match=f"^{scheme}://a/b .*http, https, s3, gs$"):
            open_pyramid(f"{scheme}://a/b", remote=True)


def test_addresses_are_carried_unharmed(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{URL}\ns3://bucket/b.zarr/\n")
    found = find_images([f"@{listed}", URL, "s3://bucket/b.zarr"])
    assert found == [URL, "s3://bucket/b.zarr/", "s3://bucket/b.zarr"]
    assert all(isinstance(source, Url) for source in found)
    assert [source.name for source in found] == ["a%20slide.ome.zarr", "b.zarr", "b.zarr"]
    assert output_names(found) == ["a%20slide", "b", "b-2"]
    assert Url("https://host.example").name == "host.example"
    assert output_names([Url("http://"), Url("http://[h/a.tif#b/c")]) == ["image", "a"]
    assert output_names([Url("https://host.example/"), Path("b.png")]) == ["host.example", "b"]


def test_addresses_fail_alone_and_by_name(tnet: CommandLine, tmp_path: Path) -> None:
    image = write_png(tmp_path / "a.png", picture())
    done = tnet("info", URL, image, "--json")
    assert done.code == 4
    refused, read = json.loads(done.out)
    assert refused["name"] == URL
    assert "--remote" in refused["error"]
    assert read["name"] == str(image)
    assert done.err == f"tnet: {refused['error']}\n"
    assert "does not exist" not in done.err
    model, out = write_model(tmp_path / "m.safetensors"), tmp_path / "out"
    done = tnet("classify", URL, image, "--model", model, "--out", out, "--json")
    assert done.code == 4
    results = json.loads(done.out)["results"]
    assert [result["image"] for result in results] == [URL, str(image)]
    assert "--remote" in results[0]["error"]
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [URL, str(image)]


def test_asked_for_it_is_handed_on(
    tnet: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(url: str, limits: Limits) -> object:
        asked.append((url, limits))
        return open_pyramid(picture())

    pytest.importorskip("tnet.adapters.zarr.remote")
    monkeypatch.setattr("tnet.adapters.zarr.remote.open_remote", fetch)
    assert tnet("info", URL, "--remote", "--max-memory", "1GiB").code == 0
    model, out = write_model(tmp_path / "m.safetensors"), tmp_path / "out"
    done = tnet("classify", URL, "--model", model, "--remote", "--out", out, "--json")
    assert done.code == 0
    assert asked == [(URL, Limits(memory=2**30)), (URL, DEFAULT)]
    assert json.loads(done.out)["results"][0]["image"] == URL
    assert (out / "walks" / "a%20slide.json").is_file()
    assert (out / "overlays" / "a%20slide.png").is_file()
