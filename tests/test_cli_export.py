"""``tnet export``: files that others read, the same every time, with nothing in them that bites."""

import csv
import json
import sqlite3
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from command_line import CommandLine, picture, write_png
from fakes import fake_model, noise
from ome_zarr_models.v05 import Image as OmeImage
from ome_zarr_models.v05 import ImageLabel
from PIL import Image

from tnet.adapters.array import open_array
from tnet.adapters.drawing import level_colour
from tnet.adapters.exports import FORMATS
from tnet.plan import Plan, Step
from tnet.record import Walk
from tnet.traversal import walk

GROUND = {
    "crs": "EPSG:32632",
    "unit": "metre",
    "spacing": (0.5, 0.5),
    "transform": (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_200_000.0),
}
PLAN = Plan(view=(32, 32), steps=(Step(4, 4, 0.375, 3), Step(3, 3, 0.5, 2)))


@pytest.fixture(scope="module")
def record() -> Walk:
    (found,) = walk(fake_model(PLAN, bands=3), [open_array(noise(301, 517, bands=3))])
    return found


def saved(folder: Path, walks: Sequence[Walk], **facts: Any) -> Path:
    """Write walks as ``tnet classify`` does; return the folder."""
    (folder / "walks").mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(walks):
        text = replace(one, **facts).to_json(indent=1)
        encoded = text.encode("utf-8", "backslashreplace")
        (folder / "walks" / f"slide-{number}.json").write_bytes(encoded)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_every_format_twice_is_the_same(tnet: CommandLine, record: Walk, tmp_path: Path) -> None:
    source = saved(tmp_path / "source", [record], **GROUND)
    every = ",".join(FORMATS)
    done = [tnet("export", source, "--to", every, "--out", tmp_path / name) for name in "ab"]
    assert [one.code for one in done] == [0, 0]
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    for form in FORMATS.values():
        name = form.name.format(name="slide-0")
        assert any(place == name or place.startswith(f"{name}/") for place in first)
        assert str(tmp_path / "a" / name) in done[0].out.splitlines()
    # Over what is there already, stores included.
    assert tnet("export", source, "--to", every, "--out", tmp_path / "a").code == 0
    assert contents(tmp_path / "a") == first
    assert not list(tmp_path.rglob("*partial*"))


def test_where_files_go(tnet: CommandLine, record: Walk, tmp_path: Path) -> None:
    source = saved(tmp_path, [record, record])
    (source / "walks" / "._slide-0.json").write_bytes(b"what a Mac leaves beside a file")
    assert tnet("export", source, "--to", "qupath,csv").code == 0
    assert {"slide-0.geojson", "slide-1.geojson", "glimpses.csv"} <= set(contents(tmp_path))
    assert tnet("export", source / "walks" / "slide-1.json", "--to", "qupath").code == 0
    assert (source / "walks" / "slide-1.geojson").exists()
    done = tnet("export", source / "walks", "--to", "csv", "--out", tmp_path / "o", "--json")
    assert json.loads(done.out) == {"written": [str(tmp_path / "o" / "glimpses.csv")]}
    with (tmp_path / "o" / "glimpses.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 2 * len(record.glimpses)
    other = saved(tmp_path / "other", [record]) / "walks" / "slide-0.json"
    same = source / "walks" / "slide-0.json"
    assert tnet("export", same, other, "--to", "qupath", "--out", tmp_path / "o").code == 0
    assert (tmp_path / "o" / "slide-0-2.geojson").exists()


def test_qupath_finds_what_it_needs(tnet: CommandLine, record: Walk, tmp_path: Path) -> None:
    assert tnet("export", saved(tmp_path, [record]), "--to", "qupath").code == 0
    read = json.loads((tmp_path / "slide-0.geojson").read_text(encoding="utf-8"))
    assert read["type"] == "FeatureCollection"
    first, *tiles = read["features"]
    assert first["properties"]["objectType"] == "annotation"
    assert first["properties"]["classification"]["name"] == record.label
    assert len({feature["id"] for feature in read["features"]}) == len(record.glimpses)
    for feature, glimpse in zip(tiles, record.glimpses[1:], strict=True):
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        assert properties["isLocked"] is True
        assert properties["classification"]["name"] == f"glimpse level {glimpse.level}"
        assert all(0 <= value <= 255 for value in properties["classification"]["color"])
        assert properties["measurements"]["Weight"] == glimpse.weight
        assert properties["measurements"]["Contribution: grey"] == glimpse.contributions[1]
        ring = feature["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]
        assert ring[0] == [glimpse.region.x, glimpse.region.y]
        assert ring[2] == [glimpse.region.right, glimpse.region.bottom]


def test_tables_hold_the_record(tnet: CommandLine, record: Walk, tmp_path: Path) -> None:
    pq: Any = pytest.importorskip("pyarrow.parquet", reason="writes Parquet")
    assert tnet("export", saved(tmp_path, [record]), "--to", "csv,parquet").code == 0
    with (tmp_path / "glimpses.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    start = "image,glimpse,level,x,y,width,height,parent,probability,weight"
    assert (tmp_path / "glimpses.csv").read_text().startswith(start)
    table = pq.read_table(tmp_path / "glimpses.parquet").to_pylist()
    for row, typed, glimpse in zip(rows, table, record.glimpses, strict=True):
        assert float(row["x"]) == typed["x"] == glimpse.region.x
        assert row["parent"] == ("" if glimpse.parent is None else str(glimpse.parent))
        assert typed["parent"] == glimpse.parent
        assert float(row["probability"]) == glimpse.probability
        worth = [float(row[f"contribution_{name}"]) for name in record.classes]
        assert worth == list(glimpse.contributions)
        assert (row["unit"], typed["unit"]) == ("", None)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_no_cell_is_a_formula(tnet: CommandLine, record: Walk, tmp_path: Path, start: str) -> None:
    classes = (f"{start}1", "b", "c")
    source = saved(tmp_path, [record], image=f"{start}cmd|' /C calc'!A0", classes=classes)
    assert tnet("export", source, "--to", "csv").code == 0
    with (tmp_path / "glimpses.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    numbers = [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert all(float(cell) < 0 for cell in numbers)
    assert f"'{start}cmd|' /C calc'!A0" in cells


def test_names_that_could_do_harm(tnet: CommandLine, record: Walk, tmp_path: Path) -> None:
    evil = ('"); DROP TABLE glimpses; --', "<script>alert(1)</script>", "\ud800\u202ex")
    source = saved(tmp_path, [replace(record, classes=evil, image="\udcff&<b>")], **GROUND)
    assert tnet("export", source, "--to", ",".join(FORMATS)).code == 0
    database = sqlite3.connect(tmp_path / "slide-0.gpkg")
    names = [row[1] for row in database.execute("PRAGMA table_info(glimpses)")]
    assert f"contribution_{evil[0]}" in names
    assert database.execute("SELECT count(*) FROM glimpses").fetchone() == (len(record.glimpses),)
    database.close()
    with tifffile.TiffFile(tmp_path / "slide-0-heat.tif") as file:
        assert "<script>" not in file.pages.first.tags[42112].value


def test_classes_of_all_models_have_columns(
    tnet: CommandLine, record: Walk, tmp_path: Path
) -> None:
    other = replace(record, classes=("dark", "x", "y"))
    assert tnet("export", saved(tmp_path, [record, other]), "--to", "csv").code == 0
    with (tmp_path / "glimpses.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-5:] == [f"contribution_{n}" for n in ("dark", "grey", "bright", "x", "y")]
    assert (rows[0]["contribution_x"], rows[-1]["contribution_grey"]) == ("", "")


def test_stores_are_valid(tnet: CommandLine, record: Walk, tmp_path: Path) -> None:
    source = saved(tmp_path, [record], spacing=(0.25, 0.5), unit="µm")
    assert tnet("export", source, "--to", "omezarr").code == 0
    group: Any = zarr.open_group(tmp_path / "slide-0-heat.ome.zarr", mode="r")
    image = OmeImage.from_zarr(group)
    assert image.labels is not None
    assert image.labels.label_paths == ["glimpses"]
    assert [axis.unit for axis in image.attributes.ome.multiscales[0].axes] == ["micrometer"] * 2
    label: Any = ImageLabel.from_zarr(group["labels/glimpses"])
    assert len(label.attributes.ome.image_label.colors) == len(record.glimpses) - 1
    labels: Any = group["labels/glimpses/0"]
    assert set(np.unique(labels[:])) <= set(range(len(record.glimpses)))
    assert set(np.unique(labels[:])) >= {i for i, g in enumerate(record.glimpses) if g.level == 2}


def test_only_stores_of_ours_are_replaced(tnet: CommandLine, record: Walk, tmp_path: Path) -> None:
    source = saved(tmp_path, [record])
    place = tmp_path / "slide-0-heat.ome.zarr"
    zarr.create_array(place, shape=(2, 2), dtype="u1")[:] = 7
    done = tnet("export", source, "--to", "omezarr")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert str(place) in done.err
    assert np.array_equal(np.asarray(zarr.open_array(place, mode="r")[:]), np.full((2, 2), 7))


def test_directories_of_the_tiff_come_first(
    tnet: CommandLine, record: Walk, tmp_path: Path
) -> None:
    source = saved(tmp_path, [record], **GROUND)
    assert tnet("export", source, "--to", "cog", "--size", 2000).code == 0
    content = (tmp_path / "slide-0-heat.tif").read_bytes()
    assert struct.unpack_from("<I", content, 4) == (8,)
    with tifffile.TiffFile(tmp_path / "slide-0-heat.tif") as file:
        pages: list[Any] = list(file.pages)
        assert [page.shape for page in pages] == [(301, 517), (151, 259), (76, 130)]
        assert [page.is_reduced for page in pages] == [False, True, True]
        last = max(page.offset for page in pages)
        starts = [min(page.dataoffsets) for page in pages]
        assert last < min(starts)
        assert starts == sorted(starts, reverse=True)
        assert file.geotiff_metadata is not None
        assert int(file.geotiff_metadata["ProjectedCSTypeGeoKey"]) == 32632
        assert np.isnan(pages[0].nodata)
        assert "contribution to the logit of" in pages[0].tags[42112].value


def test_a_reference_system_without_a_number(
    tnet: CommandLine, record: Walk, tmp_path: Path
) -> None:
    from pyproj import CRS

    wkt = CRS.from_proj4("+proj=laea +lat_0=47 +lon_0=9 +datum=WGS84").to_wkt()
    source = saved(tmp_path, [record], **(GROUND | {"crs": wkt}))
    assert tnet("export", source, "--to", "gpkg,cog,geojson").code == 0
    database = sqlite3.connect(tmp_path / "slide-0.gpkg")
    query = "SELECT definition FROM gpkg_spatial_ref_sys JOIN gpkg_contents USING (srs_id)"
    (definition,) = database.execute(query).fetchone()
    database.close()
    assert "Lambert Azimuthal" in repr(CRS.from_wkt(definition))
    with tifffile.TiffFile(tmp_path / "slide-0-heat.tif") as file:
        assert file.geotiff_metadata is not None
        said = file.geotiff_metadata["PCSCitationGeoKey"].removeprefix("ESRI PE String = ")
    assert "Lambert Azimuthal" in repr(CRS.from_wkt(said))


def test_pictures_show_the_image_where_it_is(
    tnet: CommandLine, record: Walk, tmp_path: Path
) -> None:
    far = tmp_path / "far" / "away"
    far.mkdir(parents=True)
    write_png(far / "here.png", picture(517, 301))
    source = saved(tmp_path, [record], image="elsewhere/here.png")
    done = tnet("export", source, "--to", "png,gif", "--size", 517)
    assert (done.code, done.err.count("drawn without its image")) == (0, 1)
    plain = np.asarray(Image.open(tmp_path / "slide-0-heat.png"))
    assert (plain[300, 0] == (236, 236, 238)).all()
    done = tnet("export", source, "--to", "png,gif", "--size", 517, "--images", far)
    assert (done.code, done.err) == (0, "")
    shown = np.asarray(Image.open(tmp_path / "slide-0-heat.png"))
    assert (shown[300, 0] == picture(517, 301)[300, 0]).all()
    with Image.open(tmp_path / "slide-0.gif") as gif:
        assert getattr(gif, "n_frames", 0) == len(record.glimpses)
        assert gif.info["loop"] == 0
        gif.seek(len(record.glimpses) - 1)
        colours = {colour for _, colour in gif.convert("RGB").getcolors(2**24) or ()}
        assert {level_colour(glimpse.level) for glimpse in record.glimpses} <= colours
    write_png(far / "here.png", picture(500, 301))
    done = tnet("export", source, "--to", "png", "--images", far)
    assert "500 x 301 pixels, and the walk went over 517 x 301" in done.err


@pytest.mark.parametrize("kind", ["weight", "probability", "contribution"])
def test_without_evidence_everything_is_still_written(
    tnet: CommandLine, tmp_path: Path, kind: str
) -> None:
    empty = open_array(np.full((64, 64, 3), 255, dtype=np.uint8), nodata=255)
    plan = replace(PLAN, background=0.5)
    (found,) = walk(fake_model(plan, bands=3), [empty])
    assert found.label is None
    source = saved(tmp_path, [found], **GROUND)
    assert tnet("export", source, "--to", ",".join(FORMATS), "--kind", kind).code == 0
    with tifffile.TiffFile(tmp_path / "slide-0-heat.tif") as file:
        assert np.isnan(file.asarray()).all()


BAD: dict[str, tuple[list[str], str]] = {
    "format": (["good", "--to", "shapefile"], "--to knows no format 'shapefile'; it knows qupath"),
    "no format": (["good", "--to", ""], "--to knows no format ''"),
    "missing": (["nothing", "--to", "csv"], "nothing"),
    "empty": (["empty", "--to", "csv"], "holds no walks"),
    "no walk": (["other.json", "--to", "csv"], "other.json: this is not a walk"),
    "no text": (["bytes.json", "--to", "csv"], "bytes.json: this is not a walk"),
    "class": (["good", "--to", "cog", "--target", "fox"], "no class 'fox'; there are dark"),
    "nowhere": (["good", "--to", "csv,gpkg"], "no coordinate reference system"),
    "kind": (["good", "--to", "cog", "--kind", "heat"], "--kind"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(
    tnet: CommandLine, record: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "good", [record])
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    before = contents(tmp_path)
    arguments, said = BAD[name]
    done = tnet("export", *arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    if name != "kind":  # which Typer tells, with its usage
        assert done.err.count("\n") == 1
    assert contents(tmp_path) == before
