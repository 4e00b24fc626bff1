"""``tnet link``: one link or a folder of them, each with what came of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from command_line import CommandLine, picture, write_model, write_png

from tnet.adapters import open_pyramid
from tnet.geometry import Region


def write_slide(path: Path, seed: int = 0, side: int = 900) -> Path:
    """Write a tiled pyramid of 3 levels as a microscope might."""
    pixels = picture(side, side, seed=seed)
    options: dict[str, Any] = {
        "photometric": "rgb", "tile": (128, 128), "compression": "jpeg", "metadata": None,
        "resolution": (20000, 20000), "resolutionunit": "CENTIMETER",
    }  # fmt: skip
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 2, 4):
            tiff.write(pixels[::step, ::step], subfiletype=int(step > 1), **options)
    return path


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "slide.tif")


def test_one_image_to_a_link_of_that_name(tnet: CommandLine, slide: Path, tmp_path: Path) -> None:
    place = tmp_path / "there" / "mine.zarr"
    done = tnet("link", slide, place)
    assert (done.code, done.err) == (0, "")
    heading, row = done.out.splitlines()
    assert heading.split() == ["image", "link", "outcome", "levels", "tiles", "size", "seconds"]
    assert row.split()[:5] == [str(slide), str(place), "linked", "3", "84"]
    with open_pyramid(slide) as source, open_pyramid(place) as image:
        region = Region(0, 0, 900, 900)
        np.testing.assert_array_equal(image.read(region, (99, 99)), source.read(region, (99, 99)))


def test_json(tnet: CommandLine, slide: Path, tmp_path: Path) -> None:
    place = tmp_path / "mine.zarr"
    first, second = (json.loads(tnet("link", slide, place, "--json").out) for _ in range(2))
    assert first["failed"] == 0
    (result,) = first["results"]
    files = [".zgroup", ".zattrs", "references.json.bz2"]
    assert result.pop("seconds") < 30
    assert result == {
        "source": str(slide),
        "destination": str(place),
        "outcome": "linked",
        "levels": 3,
        "chunks": 84,
        "bytes": sum((place / name).stat().st_size for name in files),
        "error": None,
    }
    second["results"][0].pop("seconds")
    assert second["results"] == [result | {"outcome": "already linked"}]


def test_several_images_to_a_folder(tnet: CommandLine, slide: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    write_slide(tmp_path / "more" / "slide.ome.tif", seed=1)
    done = tnet("link", slide, tmp_path / "more", tmp_path / "links")
    assert (done.code, done.err) == (0, "")
    assert sorted(p.name for p in (tmp_path / "links").iterdir()) == ["slide-2.zarr", "slide.zarr"]


def test_some_cannot_be_linked(tnet: CommandLine, slide: Path, tmp_path: Path) -> None:
    strips = tmp_path / "strips.tif"
    tifffile.imwrite(strips, picture(), rowsperstrip=32, compression="zlib", photometric="rgb")
    missing = tmp_path / "missing.tif"
    done = tnet("link", slide, strips, missing, tmp_path / "links", "--json")
    assert done.code == 4
    why = "its last strip has fewer rows than the others; copy its pixels with `tnet convert`"
    assert done.err.splitlines() == [
        f"tnet: {strips} cannot be linked: {why}",
        f"tnet: {missing} does not exist; check the name",
    ]
    listed = json.loads(done.out)
    assert listed["failed"] == 2
    assert [r["outcome"] for r in listed["results"]] == ["linked", "failed", "failed"]
    assert [f"tnet: {r['error']}" for r in listed["results"][1:]] == done.err.splitlines()
    assert tnet("link", strips, tmp_path / "links").code == 3


def test_what_exists_is_not_replaced(tnet: CommandLine, slide: Path, tmp_path: Path) -> None:
    other = write_slide(tmp_path / "other.tif", seed=1)
    links = tmp_path / "links"
    assert tnet("link", other, links / "slide.zarr").code == 0
    before = (links / "slide.zarr" / ".zattrs").read_bytes()
    done = tnet("link", other, slide, links)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"tnet: {links / 'slide.zarr'} exists already; name another one, or replace it with "
        "--overwrite\n"
    )
    # A mistake is told of before anything is done.
    assert [p.name for p in links.iterdir()] == ["slide.zarr"]
    assert (links / "slide.zarr" / ".zattrs").read_bytes() == before
    assert tnet("link", other, slide, links, "--overwrite").code == 0
    assert (links / "slide.zarr" / ".zattrs").read_bytes() != before


def test_several_images_need_a_folder(tnet: CommandLine, slide: Path, tmp_path: Path) -> None:
    png = write_png(tmp_path / "i.png", picture())
    done = tnet("link", slide, png, tmp_path / "one.zarr")
    assert (done.code, done.out) == (2, "")
    assert "one.zarr" in done.err


def test_addresses_are_not_linked(tnet: CommandLine, tmp_path: Path) -> None:
    done = tnet("link", "https://localhost/a.tif", tmp_path / "a.zarr")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1


def test_a_place_where_nothing_can_be_written(
    tnet: CommandLine, slide: Path, tmp_path: Path
) -> None:
    place = slide / "inside" / "a.zarr"
    done = tnet("link", slide, place)
    assert (done.code, done.out) == (2, "")
    said = "for something else is in its place (Not a directory); name another one"
    assert done.err == f"tnet: {place} cannot be written, {said}\n"


def test_the_disk_is_full(
    tnet: CommandLine, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tnet.adapters.storage.staging.Stage.write", full)
    place = tmp_path / "a.zarr"
    done = tnet("link", slide, place)
    assert (done.code, done.out) == (6, "")
    assert done.err == f"tnet: {place} cannot be written (No space left on device)\n"
    assert [p.name for p in tmp_path.iterdir()] == ["slide.tif"]


def test_limits(tnet: CommandLine, slide: Path, tmp_path: Path) -> None:
    done = tnet("link", slide, tmp_path / "a.zarr", "--max-pixels", "1000")
    assert done.code == 3
    assert "--max-pixels" in done.err


def test_a_link_is_described_and_classified_as_its_source(
    tnet: CommandLine, slide: Path, tmp_path: Path
) -> None:
    place = tmp_path / "mine.zarr"
    tnet("link", slide, place)
    source, image = (json.loads(tnet("info", path, "--json").out) for path in (slide, place))
    assert image["format"] == "link to TIFF"
    assert {k: v for k, v in image.items() if k not in ("name", "format")} == {
        k: v for k, v in source.items() if k not in ("name", "format")
    }
    model = write_model(tmp_path / "model.safetensors")
    done = tnet("classify", slide, place, "--model", model, "--out", tmp_path / "out", "--json")
    assert done.code == 0
    walks = [
        json.loads((tmp_path / "out" / r["walk"]).read_text())
        for r in json.loads(done.out)["results"]
    ]
    ours, theirs = ({k: v for k, v in w.items() if k not in ("image", "seconds")} for w in walks)
    assert ours == theirs
    assert len(ours["glimpses"]) > 1


def test_a_source_that_is_gone(tnet: CommandLine, slide: Path, tmp_path: Path) -> None:
    place = tmp_path / "mine.zarr"
    tnet("link", slide, place)
    slide.unlink()
    done = tnet("info", place)
    assert done.code == 3
    assert done.err == (
        f"tnet: {place} points to {slide}, which is not there (moved?); link it again with "
        "`tnet link`\n"
    )
