"""Places on the ground: units, GeoTIFF keys, and what zarr stores say to others."""

import json
from typing import Any

import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS
from shared_data import shared_folder

from tnet.adapters.georeference import of_geotiff, of_zarr, scaled, unit_of, zarr_attributes

AFFINE = (10.0, 0.5, 500000.0, -0.25, -10.0, 5000000.0)
OWN = CRS.from_proj4("+proj=laea +lat_0=12 +lon_0=34 +datum=WGS84 +units=us-ft").to_wkt()
NAMELESS = 'GEOGCS["WGS 84"]'  # not even PROJ understands that

numbers = st.floats(-1e9, 1e9)


@pytest.mark.parametrize(
    ("crs", "unit"),
    [
        (None, None),
        ("EPSG:32632", "metre"),
        ("EPSG:27700", "metre"),
        ("EPSG:2263", "US survey foot"),
        ("EPSG:3167", "British chain (Sears 1922 truncated)"),
        ("EPSG:4326", "degree"),
        ("EPSG:4901", "grad"),
        ("EPSG:4087", "metre"),  # among the geographic systems' numbers, and projected
        ("EPSG:7415", "metre"),
        ("OGC:CRS84", "degree"),
        ("IAU_2015:49910", "metre"),
        ("EPSG:99999", None),
        ("EPSG:5703", "metre"),
        (OWN, "US survey foot"),
        (CRS.from_epsg(4326).to_wkt("WKT1_ESRI"), "degree"),
        (CRS.from_epsg(32632).to_wkt("WKT1_GDAL"), "metre"),
        (NAMELESS, None),
        ("", None),
        ("/etc/hosts:x", None),
        ("GEOGCS[" * 5000, None),
    ],
)
def test_units_are_exact(crs: str | None, unit: str | None) -> None:
    assert unit_of(crs) == unit


def test_user_defined_system_with_esri_text() -> None:
    text = CRS.from_user_input(OWN).to_wkt("WKT1_ESRI")
    tags: dict[str, Any] = {
        "ProjectedCSTypeGeoKey": 32767,
        "PCSCitationGeoKey": f"ESRI PE String = {text}",
        "ModelPixelScale": [2.0, 2.0, 0.0],
        "ModelTiepoint": [0.0, 0.0, 0.0, 5.0, 50.0, 0.0],
    }
    crs, unit, transform, notes = of_geotiff(tags)
    assert CRS.from_wkt(crs or "") == CRS.from_wkt(text)
    assert (unit, notes) == ("US survey foot", ())
    assert transform == (2, 0, 5, 0, -2, 50)


@pytest.mark.parametrize("key", ["ProjectedCSTypeGeoKey", "GeographicTypeGeoKey"])
@pytest.mark.parametrize("text", ["Mars", "ESRI PE String = PROJCS[rubbish]"])
def test_user_defined_system_without_text_is_left_out_and_said(key: str, text: str) -> None:
    crs, _, _, notes = of_geotiff({key: 32767, "GTCitationGeoKey": text})
    assert crs is None
    assert len(notes) == 1
    assert text in notes[0]


@pytest.mark.parametrize("crs", [None, "EPSG:32632", "EPSG:99999", OWN, NAMELESS])
@pytest.mark.parametrize("transform", [None, AFFINE])
def test_what_is_written_is_read_again(
    crs: str | None, transform: tuple[float, ...] | None
) -> None:
    attributes, mapping = json.loads(
        json.dumps(zarr_attributes(crs, transform, (301, 203)), allow_nan=False)
    )
    assert of_zarr(attributes, mapping or {}) == (crs, transform, None)


@given(st.tuples(*[numbers] * 6))
def test_either_convention_alone_tells_all(transform: tuple[float, ...]) -> None:
    attributes, mapping = zarr_attributes("EPSG:32632", transform, (30, 20))
    assert of_zarr(attributes, {}) == ("EPSG:32632", transform, None)
    assert mapping is not None
    crs, read, _ = of_zarr({}, mapping)
    assert CRS.from_wkt(crs or "") == CRS.from_epsg(32632)
    assert read == transform


def test_nothing_is_said_of_a_picture_without_a_place() -> None:
    assert zarr_attributes(None, None, (30, 20)) == ({}, None)


def test_the_cf_variable_is_one_that_pyproj_understands() -> None:
    for crs in ("EPSG:32632", "EPSG:4326", "EPSG:3413", OWN):
        _, mapping = zarr_attributes(crs, AFFINE, (30, 20))
        assert mapping is not None
        assert mapping["grid_mapping_name"]
        assert CRS.from_cf(mapping) == CRS.from_user_input(crs)
        # CF's single attributes too, without the text.
        single = {key: value for key, value in mapping.items() if key != "crs_wkt"}
        ours = CRS.from_cf(single)
        theirs = CRS.from_user_input(crs)
        assert ours.ellipsoid is not None
        assert ours.ellipsoid == theirs.ellipsoid
        assert ours.is_projected == theirs.is_projected
        assert mapping["GeoTransform"] == "500000.0 10.0 0.5 5000000.0 -0.25 -10.0"


def test_the_conventions_are_declared_as_published_and_as_rioxarray_reads_them() -> None:
    attributes, _ = zarr_attributes("EPSG:32632", AFFINE, (301, 203))
    declared = attributes["zarr_conventions"]
    assert [one["name"] for one in declared] == ["proj", "spatial", "proj:", "spatial:"]
    base = "https://raw.githubusercontent.com/zarr-conventions/"
    assert [one["schema_url"] for one in declared[:2]] == [
        f"{base}proj/refs/tags/v0.1/schema.json",
        f"{base}spatial/refs/tags/v0.1/schema.json",
    ]
    assert declared[0]["uuid"] == declared[2]["uuid"] == "f17cb550-5864-4468-aeb7-f3180cfb622f"
    assert declared[1]["uuid"] == declared[3]["uuid"] == "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"
    assert attributes["proj:code"] == "EPSG:32632"
    assert attributes["spatial:dimensions"] == ["y", "x"]
    assert attributes["spatial:shape"] == [203, 301]
    assert attributes["spatial:registration"] == "pixel"


def test_only_what_is_there_is_declared() -> None:
    without_place, _ = zarr_attributes("EPSG:32632", None, (30, 20))
    assert [c["name"] for c in without_place["zarr_conventions"]] == ["proj", "proj:"]
    without_crs, mapping = zarr_attributes(None, AFFINE, (30, 20))
    assert [c["name"] for c in without_crs["zarr_conventions"]] == ["spatial", "spatial:"]
    assert mapping is None
    own, _ = zarr_attributes(OWN, None, (30, 20))
    assert "proj:code" not in own
    assert own["proj:wkt2"].startswith("PROJCRS[")


def test_old_wkt_is_written_as_new() -> None:
    old = CRS.from_epsg(2263).to_wkt("WKT1_GDAL")
    attributes, mapping = zarr_attributes(old, None, (30, 20))
    assert attributes["proj:wkt2"].startswith("PROJCRS[")
    assert CRS.from_wkt(attributes["proj:wkt2"]) == CRS.from_wkt(old)
    assert mapping is not None
    assert mapping["crs_wkt"] == attributes["proj:wkt2"]


@given(st.tuples(*[numbers] * 6), st.integers(1, 9999), st.integers(1, 9999))
def test_the_box_holds_the_corners_and_no_more(
    transform: tuple[float, ...], width: int, height: int
) -> None:
    attributes, _ = zarr_attributes(None, transform, (width, height))
    left, bottom, right, top = attributes["spatial:bbox"]
    a, b, c, d, e, f = transform
    for x, y in ((0, 0), (width, 0), (0, height), (width, height)):
        assert left <= a * x + b * y + c <= right
        assert bottom <= d * x + e * y + f <= top
    assert {left, right} <= {a * x + b * y + c for x in (0, width) for y in (0, height)}


@given(st.tuples(*[numbers] * 6), st.sampled_from([1.0, 2.0, 4.0, 8.0]))
def test_a_pixel_of_a_level_lies_where_its_corner_lies(
    transform: tuple[float, ...], factor: float
) -> None:
    a, b, c, d, e, f = transform
    level = scaled(transform, factor, 2 * factor)
    x, y = 7 * factor, 3 * 2 * factor
    assert level[0] * 7 + level[1] * 3 + level[2] == a * x + b * y + c
    assert level[3] * 7 + level[4] * 3 + level[5] == d * x + e * y + f


def test_other_programs_attributes_are_read_without_stumbling() -> None:
    assert of_zarr({"proj:epsg": 4326}, {}) == ("EPSG:4326", None, None)
    assert of_zarr({"proj:code": 7, "proj:wkt2": None}, {"crs_wkt": ["x"]})[0] is None


def test_real_scenes() -> None:
    folder = shared_folder("data", "files", "geotiff")
    found = {}
    for path in folder.glob("*.tif"):
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            crs, unit, transform, _ = of_geotiff(page.geotiff_tags)
            found[path.name] = (crs, unit)
            size = (page.imagewidth, page.imagelength)
        attributes, mapping = zarr_attributes(crs, transform, size)
        assert of_zarr(attributes, mapping or {}) == (crs, transform, None)
        if mapping is not None:
            assert CRS.from_cf(mapping) == CRS.from_user_input(crs)
    assert found == {
        "RGB.byte.tif": ("EPSG:32618", "metre"),
        "TCI.tif": ("EPSG:32634", "metre"),
        "cog_hirise_mars.tif": (None, "metre"),
        "cogeo.tif": ("EPSG:3857", "metre"),
        "image_web_z5_z11.tif": ("EPSG:3857", "metre"),
    }
