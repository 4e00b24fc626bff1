"""Targets planted at known places come back from every export at these places.

Images have odd sizes, and levels an odd number of times smaller. What was written is read by
others: json, Pillow, tensorstore, tifffile, sqlite3, rasterio (which is GDAL), shapely.
"""

import csv
import io
import json
import sqlite3
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import tensorstore as ts
import tifffile
import zarr
from fakes import fake_model
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer

from tnet.adapters import open_pyramid
from tnet.geometry import Region
from tnet.plan import Plan, Step
from tnet.scripts.export import export
from tnet.traversal import walk

PLAN = Plan(view=(40, 40), steps=(Step(5, 5, 0.2, 1), Step(5, 5, 0.2, 1)))
LEVEL_2 = (86, 180, 233)  # the colour of its frames
NORTH_UP = (0.3, 0.0, 500_000.0, 0.0, -0.3, 5_200_000.0)
TURNED = (0.26, 0.15, 500_000.0, 0.15, -0.26, 5_200_000.0)


@dataclass(frozen=True)
class Planted:
    """An image with a target, and the folder of its exports."""

    width: int
    height: int
    target: Region
    folder: Path
    transform: tuple[float, ...] | None

    def off(self, x: float, y: float) -> float:
        """How far a place is from the target's centre, in pixels of level 0."""
        middle = (self.target.x + self.target.width / 2, self.target.y + self.target.height / 2)
        return max(abs(x - middle[0]), abs(y - middle[1]))


def smaller(pixels: NDArray[Any], times: int) -> NDArray[Any]:
    """Average blocks of pixels; those at the right and lower border are cut off."""
    rows, columns = pixels.shape[0] // times, pixels.shape[1] // times
    whole = pixels[: rows * times, : columns * times].astype(np.float64)
    return whole.reshape(rows, times, columns, times).mean(axis=(1, 3)).astype(pixels.dtype)


def write_pyramid(
    path: Path, pixels: NDArray[Any], factors: tuple[int, ...], about: dict[str, Any]
) -> None:
    """Write an OME-Zarr image with levels so many times smaller."""
    datasets = []
    group = zarr.open_group(path, mode="w")
    for number, times in enumerate((1, *factors)):
        level = smaller(pixels, times)
        array = group.create_array(
            str(number), shape=level.shape, chunks=(64, 64), dtype=level.dtype
        )
        array[:] = level
        scale = [{"type": "scale", "scale": [0.5 * times, 0.5 * times]}]
        datasets.append({"path": str(number), "coordinateTransformations": scale})
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    multiscales = [{"axes": axes, "datasets": datasets}]
    group.attrs.update({"ome": {"version": "0.5", "multiscales": multiscales}} | about)


CASES = {
    "odd": (1237, 911, (3,), None),
    "five and seven": (703, 2049, (5, 35), None),
    "north up": (1237, 911, (3, 9), NORTH_UP),
    "turned": (911, 613, (3,), TURNED),
}


@pytest.fixture(scope="module", params=CASES)
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("planted")
    width, height, factors, transform = CASES[request.param]
    # A cell of the second grid, on the pixels nearest to it.
    target = Region(width * 18 / 25, height * 7 / 25, width / 25, height / 25)
    left, top = round(target.x), round(target.y)
    pixels = np.full((height, width), 10, dtype=np.uint8)
    pixels[top : round(target.bottom), left : round(target.right)] = 250
    about: dict[str, Any] = {}
    if transform is not None:
        about = {"proj:code": "EPSG:32632", "spatial:transform": list(transform)}
    write_pyramid(folder / "image.zarr", pixels, factors, about)
    with open_pyramid(folder / "image.zarr") as pyramid:
        assert (pyramid.width, pyramid.height) == (width, height)
        assert len(pyramid.levels) == 1 + len(factors)
        assert pyramid.transform == transform
        (record,) = walk(fake_model(PLAN), [pyramid])
    (folder / "walks").mkdir()
    (folder / "walks" / "image.json").write_text(record.to_json(indent=1), encoding="utf-8")
    formats = "qupath,cog,omezarr,csv" + (",geojson,gpkg" if transform else "")
    export([folder], formats, kind="weight", size=301)
    export([folder], "png", kind="weight", size=801)
    exact = Region(left, top, round(target.right) - left, round(target.bottom) - top)
    return Planted(width, height, exact, folder, transform)


def same_box(found: list[tuple[float, float]], wanted: Region, most: float = 0.5) -> None:
    xs, ys = zip(*found, strict=True)
    assert abs(min(xs) - wanted.x) <= most
    assert abs(min(ys) - wanted.y) <= most
    assert abs(max(xs) - wanted.right) <= most
    assert abs(max(ys) - wanted.bottom) <= most


def hottest(values: NDArray[Any]) -> tuple[float, float]:
    """Return the middle of the pixels of the largest value, x and y, in the map's pixels."""
    rows, columns = np.nonzero(values >= np.nanmax(values) * (1 - 1e-6))
    return float(columns.mean() + 0.5), float(rows.mean() + 0.5)


def test_qupath(planted: Planted) -> None:
    read = json.loads((planted.folder / "image.geojson").read_text(encoding="utf-8"))
    assert len(read["features"]) == 3
    same_box(read["features"][2]["geometry"]["coordinates"][0], planted.target)


def test_csv(planted: Planted) -> None:
    text = (planted.folder / "glimpses.csv").read_text(encoding="utf-8")
    row = list(csv.DictReader(io.StringIO(text)))[2]
    x, y, width, height = (float(row[name]) for name in ("x", "y", "width", "height"))
    same_box([(x, y), (x + width, y + height)], planted.target)
    unit_x, unit_y = float(row["unit_x"]), float(row["unit_y"])
    if planted.transform is None:
        assert (row["unit"], row["crs"]) == ("µm", "")
        assert (unit_x, unit_y) == pytest.approx((x / 2, y / 2))
        assert float(row["unit_width"]) == pytest.approx(width / 2)
    else:
        a, b, c, d, e, f = planted.transform
        assert (row["unit"], row["crs"]) == ("metre", "EPSG:32632")
        assert (unit_x, unit_y) == pytest.approx((a * x + b * y + c, d * x + e * y + f))


def test_png(planted: Planted) -> None:
    picture = np.asarray(Image.open(planted.folder / "image-heat.png"))
    scale = 801 / max(planted.width, planted.height)
    across, down = round(planted.width * scale), round(planted.height * scale)
    rows, columns = np.nonzero((picture[:down, :across] == LEVEL_2).all(axis=2))
    step = planted.width / across
    middle = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
    assert planted.off(middle[0] * step, middle[1] * planted.height / down) <= step


def test_omezarr(planted: Planted) -> None:
    place = planted.folder / "image-heat.ome.zarr"
    for part in (place, place / "labels" / "glimpses"):
        facts = json.loads((part / "zarr.json").read_text())["attributes"]["ome"]
        for dataset in facts["multiscales"][0]["datasets"]:
            spec = {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": str(part / dataset["path"])},
            }
            values = ts.open(spec, read=True).result().read().result()
            x, y = hottest(values)
            scale, shift = (step[step["type"]] for step in dataset["coordinateTransformations"])
            # A place is that of a pixel's centre, and the first of the source is at zero.
            found_x = ((x - 0.5) * scale[1] + shift[1]) / 0.5 + 0.5
            found_y = ((y - 0.5) * scale[0] + shift[0]) / 0.5 + 0.5
            assert planted.off(found_x, found_y) <= max(scale) / 0.5


def test_cog(planted: Planted) -> None:
    with tifffile.TiffFile(planted.folder / "image-heat.tif") as file:
        levels = file.series[0].levels
        tags = file.pages.first.tags
        transform = planted.transform or (1, 0, 0, 0, 1, 0)
        if 33550 in tags:
            across, down, _ = tags[33550].value
            affine: tuple[float, ...] = (
                across,
                0,
                tags[33922].value[3],
                0,
                -down,
                tags[33922].value[4],
            )
        else:
            matrix = tags[34264].value
            affine = (*matrix[:2], matrix[3], *matrix[4:6], matrix[7])
        for level in levels:
            values = level.asarray()
            x, y = hottest(values)
            x, y = (
                x * levels[0].shape[1] / values.shape[1],
                y * levels[0].shape[0] / values.shape[0],
            )
            a, b, c, d, e, f = affine
            place = a * x + b * y + c, d * x + e * y + f
            assert planted.off(*back(transform, *place)) <= planted.width / values.shape[1]
        assert len(levels) == 2


def back(transform: tuple[float, ...], x: float, y: float) -> tuple[float, float]:
    """Return the pixel of level 0 of a place on the ground."""
    a, b, c, d, e, f = transform
    det = a * e - b * d
    return (e * (x - c) - b * (y - f)) / det, (a * (y - f) - d * (x - c)) / det


def test_lonlat(planted: Planted) -> None:
    if planted.transform is None:
        assert not (planted.folder / "image-lonlat.geojson").exists()
        return
    read = json.loads((planted.folder / "image-lonlat.geojson").read_text(encoding="utf-8"))
    ring = read["features"][2]["geometry"]["coordinates"][0]
    home = Transformer.from_crs("OGC:CRS84", "EPSG:32632", always_xy=True)
    same_box([back(planted.transform, *home.transform(*corner)) for corner in ring], planted.target)
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring))
    assert area > 0, "RFC 7946 wants the outer ring counter-clockwise"


def test_gpkg(planted: Planted) -> None:
    if planted.transform is None:
        return
    with sqlite3.connect(planted.folder / "image.gpkg") as database:
        query = "SELECT geom, x, weight FROM glimpses WHERE glimpse = 2"
        geometry, x, weight = database.execute(query).fetchone()
        srs = database.execute("SELECT srs_id FROM gpkg_geometry_columns").fetchone()
    database.close()
    assert geometry[:8] == b"GP\0\x03" + struct.pack("<i", 32632)
    assert srs == (32632,)
    assert abs(x - planted.target.x) <= 0.5
    assert weight == pytest.approx(1 / 3)
    corners = struct.unpack("<10d", geometry[40 + 13 :])
    ring = list(zip(corners[::2], corners[1::2], strict=True))
    assert ring[0] == ring[-1]
    same_box([back(planted.transform, *corner) for corner in ring], planted.target)


def test_readers_of_the_ground_agree(planted: Planted) -> None:
    with rasterio.open(planted.folder / "image-heat.tif") as file:
        values, found = file.read(1), file.transform
        assert np.isnan(file.nodata)
        assert file.overviews(1) == [2]
        assert (file.crs is None) == (planted.transform is None)
        if planted.transform is not None:
            assert file.crs.to_epsg() == 32632
        x, y = hottest(values)
        place = found.a * x + found.b * y + found.c, found.d * x + found.e * y + found.f
    transform = planted.transform or (1, 0, 0, 0, 1, 0)
    assert planted.off(*back(transform, *place)) <= planted.width / values.shape[1]


def test_shapely_agrees(planted: Planted) -> None:
    read: Callable[[str], Any] = shapely.from_geojson
    found = read((planted.folder / "image.geojson").read_text(encoding="utf-8")).geoms[2]
    target = planted.target
    wanted = (target.x, target.y, target.right, target.bottom)
    assert found.is_valid
    assert np.abs(np.subtract(found.bounds, wanted)).max() <= 0.5
