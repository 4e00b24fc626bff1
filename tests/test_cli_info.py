"""``tnet info`` and ``tnet models``: pages for people, one JSON document for programs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command_line import CommandLine, picture, write_model, write_png, write_zarr

from tnet.backbones.generic import timm_names
from tnet.recipes import RECIPES
from tnet.scripts.info import page


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A GeoTIFF of 12 metres a pixel with nodata."""
    path = tmp_path / "ground.tif"
    keys = (1, 1, 0, 4, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632, 3076, 0, 1, 9001)
    tags = [
        (33550, "d", 3, (12.0, 12.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4e6, 0.0), True),
        (34735, "H", len(keys), keys, True),
        (42113, "s", 0, "-9999", True),
    ]
    tifffile.imwrite(
        path, np.zeros((300, 400), np.int16), photometric="minisblack", tile=(128, 128),
        extratags=tags,
    )  # fmt: skip
    return path


def test_a_page_about_an_image(tnet: CommandLine, ground: Path) -> None:
    done = tnet("info", ground)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        str(ground),
        "  format      GeoTIFF",
        "  size        400 x 300 pixels (0.12 megapixels)",
        "  levels      0: 400 x 300, 1/1, tiles of 128 x 128",
        "  values      1 band of int16",
        "  pixel       12 metre",
        "  reference   EPSG:32632",
        "  nodata      -9999",
        "  background  -9999",
        "  first look  decodes 393 kB",
    ]


def test_one_image_is_one_dict(tnet: CommandLine, ground: Path) -> None:
    done = tnet("info", ground, "--json")
    assert (done.code, done.err) == (0, "")
    facts = json.loads(done.out)
    assert (facts["width"], facts["height"], facts["bands"]) == (400, 300, 1)
    assert (facts["spacing"], facts["unit"], facts["crs"]) == ([12.0, 12.0], "metre", "EPSG:32632")
    assert facts["levels"][0]["tile"] == [128, 128]


def test_several_images_are_a_list(tnet: CommandLine, ground: Path, tmp_path: Path) -> None:
    write_zarr(tmp_path / "a.zarr", picture())
    done = tnet("info", tmp_path, "--json")
    assert done.code == 0
    assert [Path(facts["name"]).name for facts in json.loads(done.out)] == ["a.zarr", "ground.tif"]


def test_one_bad_image_does_not_stop_the_others(
    tnet: CommandLine, ground: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "a.png"
    bad.write_text("no image")
    done = tnet("info", bad, ground, tmp_path / "none.svs")
    assert done.code == 4
    assert [line.startswith("tnet: ") for line in done.err.splitlines()] == [True, True]
    assert done.out.startswith(str(ground))
    read = json.loads(tnet("info", bad, ground, "--json").out)
    assert list(read[0]) == ["name", "error"]
    assert read[1]["format"] == "GeoTIFF"


def test_code_3_when_all_fail(tnet: CommandLine, tmp_path: Path) -> None:
    done = tnet("info", tmp_path / "none.svs", "--json")
    assert (done.code, done.out) == (3, "")
    assert done.err == f"tnet: {tmp_path / 'none.svs'} does not exist; check the name\n"
    assert tnet("info", tmp_path / "a.png", tmp_path / "b.png").code == 3


@pytest.mark.parametrize("arguments", [[], [""], ["*.nothing"], ["@none"], ["--jsn", "a.png"]])
def test_wrong_usage_is_code_2(
    tnet: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = tnet("info", *arguments)
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err


def test_pages_are_apart(tnet: CommandLine, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, picture())
    pages = tnet("info", tmp_path).out.split("\n\n")
    assert [Path(text.splitlines()[0]).name for text in pages] == ["a.png", "b.png"]


def test_a_name_cannot_steer_the_terminal(tnet: CommandLine, tmp_path: Path) -> None:
    path = write_png(tmp_path / "a\x1b[2Jb.png", picture())
    assert "\x1b" not in tnet("info", path).out
    assert "\x1b" not in tnet("info", path, tmp_path / "\x1b.png").err


def test_every_unit_and_size() -> None:
    facts = {
        "name": "big",
        "format": "OME-Zarr",
        "width": 100_000,
        "height": 80_000,
        "megapixels": 8000.0,
        "bands": 2,
        "dtype": "float32",
        "levels": [{"width": 100_000, "height": 80_000, "scale": [1.0, 2.0], "tile": None}],
        "spacing": [0.25, 0.5],
        "unit": None,
        "crs": None,
        "nodata": "nan",
        "background": [0.0, 0.5],
        "notes": ["first", "second"],
        "first_look_bytes": 64_000_000_000,
    }
    assert page(facts).splitlines()[2:] == [
        "  size        100000 x 80000 pixels (8 gigapixels)",
        "  levels      0: 100000 x 80000, 1/1 x 1/2, tiles unknown",
        "  values      2 bands of float32",
        "  pixel       0.25 x 0.5 units",
        "  nodata      nan",
        "  background  0, 0.5",
        "  first look  decodes 64 GB",
        "  note        first",
        "              second",
    ]


@pytest.fixture
def one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One model that seems to come with the package."""
    path = write_model(tmp_path / "small.safetensors")
    monkeypatch.setattr("tnet.bundle.shipped", lambda: {"small": path})
    return path


def test_models_as_json(tnet: CommandLine, one_model: Path) -> None:
    done = tnet("models", "--json", "--no-costs")
    assert (done.code, done.err) == (0, "")
    read = json.loads(done.out)
    assert list(read) == ["shipped", "backbones", "recipes", "own"]
    (model,) = read["shipped"]
    assert (model["name"], model["file"], model["recipe"]) == ("small", str(one_model), "default")
    assert model["classes"] == ["grass", "=1+1", "water"]
    assert (model["bands"], model["dtype"]) == (3, "uint8")
    assert model["parameters"] > 1000
    assert model["plan"]["view"] == [64, 64]
    assert model["training"] == {"made": "for tests"}
    assert read["backbones"] == timm_names()
    assert [recipe["name"] for recipe in read["recipes"]] == sorted(RECIPES)
    assert read["recipes"][0]["options"]["backbone"] == "resnet18"


@pytest.mark.usefixtures("one_model")
def test_models_for_people(tnet: CommandLine) -> None:
    done = tnet("models")
    assert done.code == 0
    assert "  small  3 bands of uint8" in done.out
    assert "grass, =1+1, water" in done.out
    assert all(name in done.out for name in RECIPES)
    assert f"{len(timm_names())} timm architectures" in done.out


def test_no_model_shipped(tnet: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tnet.bundle.shipped", dict)
    assert tnet("models").out.splitlines()[1] == "  none"


def test_a_pattern_filters_backbones(tnet: CommandLine) -> None:
    done = tnet("models", "resnet1*")
    assert done.code == 0
    assert "resnet18" in done.out.splitlines()
    assert all(name.startswith("resnet1") for name in done.out.splitlines())
    assert json.loads(tnet("models", "resnet18", "--json").out)["backbones"] == ["resnet18"]


def test_a_pattern_that_fits_nothing(tnet: CommandLine) -> None:
    done = tnet("models", "resnet_18")
    assert (done.code, done.out) == (2, "")
    assert "did you mean" in done.err
    assert "resnet18" in done.err
    assert tnet("models", "0").err == "tnet: no backbone is called '0'; try '*net*'\n"


def test_a_shipped_model_classifies_by_name(
    tnet: CommandLine, one_model: Path, tmp_path: Path
) -> None:
    image = write_png(tmp_path / "a.png", picture())
    by_name = json.loads(tnet("classify", image, "--model", "small", "--json").out)
    shutil.copy(one_model, tmp_path / "other.safetensors")
    by_file = json.loads(
        tnet("classify", image, "--model", tmp_path / "other.safetensors", "--json").out
    )
    assert by_name["model"] == "small"
    assert by_name["results"][0]["probabilities"] == by_file["results"][0]["probabilities"]
