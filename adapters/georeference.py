"""Where an image lies on the ground: affine transforms and coordinate reference systems.

A coordinate reference system (CRS) is a text: a code of an authority, ``EPSG:32632``, or WKT.
"""

import base64
import math
import re
import struct
from collections.abc import Mapping
from typing import Any

GRID_MAPPING = "spatial_ref"  # the usual name of CF's variable for the reference system

_LINEAR = {9001: "metre", 9002: "foot", 9003: "US survey foot"}
_UNITS = (
    ("metre", 1.0),
    ("foot", 0.3048),
    ("US survey foot", 1200 / 3937),
    ("degree", math.pi / 180),
)
_USER_DEFINED = 32767
_CODE = re.compile(r"([A-Za-z0-9_]+):([A-Za-z0-9]+)")
_ESRI = re.compile(r"ESRI PE String\s*=\s*(\w+\[.*\])", re.DOTALL)

_PROJ = {
    "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/proj/refs/tags/v0.1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/proj/blob/v0.1/README.md",
    "name": "proj",
    "description": "Coordinate reference system information for geospatial data",
}
_SPATIAL = {
    "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v0.1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/spatial/blob/v0.1/README.md",
    "name": "spatial",
    "description": "Spatial coordinate information",
}


def spacing_of(transform: tuple[float, ...]) -> tuple[float, float]:
    """Return the size of a pixel, x and y, from an affine a, b, c, d, e, f."""
    a, b, _, d, e, _ = transform
    return math.hypot(a, d), math.hypot(b, e)


def from_gdal(values: tuple[float, ...]) -> tuple[float, ...]:
    """Reorder GDAL's c, a, b, f, d, e into a, b, c, d, e, f."""
    c, a, b, f, d, e = values
    return a, b, c, d, e, f


def scaled(transform: tuple[float, ...], x: float, y: float) -> tuple[float, ...]:
    """Return the affine of a level from that of level 0 and the level's scale, x and y."""
    a, b, c, d, e, f = transform
    return a * x, b * y, c, d * x, e * y, f


def unit_of(crs: str | None) -> str | None:
    """Return the unit of the x and y axes, None if unknown or not one for both."""
    system = None if crs is None else parsed(crs)
    if system is None:
        return None
    axes = system.axis_info[:2]  # a third one is a height
    found = {_unit_name(axis.unit_name, axis.unit_conversion_factor) for axis in axes}
    return found.pop() if len(found) == 1 else None


def _unit_name(name: str, size: float) -> str:
    """Return one name for a unit that WKT spells in many ways, by its size in metres or radians."""
    return next((known for known, s in _UNITS if math.isclose(s, size, rel_tol=1e-8)), name)


def parsed(crs: str) -> Any:
    """Return pyproj's CRS of a code or of WKT, None if it knows no such.

    Nothing but these two is passed on: PROJ would take file names and ask the network too.
    """
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    code = _CODE.fullmatch(crs)
    try:
        return CRS.from_authority(code[1], code[2]) if code else CRS.from_wkt(crs)
    except CRSError:
        return None


def of_geotiff(
    tags: Mapping[str, Any],
) -> tuple[str | None, str | None, tuple[float, ...] | None, tuple[str, ...]]:
    """Return CRS, unit, transform and notes from GeoTIFF keys as tifffile names them."""
    crs, unit = None, None
    notes: tuple[str, ...] = ()
    for key in ("ProjectedCSTypeGeoKey", "GeographicTypeGeoKey"):
        code = int(tags.get(key, 0))
        if code == _USER_DEFINED:
            crs = _esri_wkt(tags)
            if crs is None:
                citation = tags.get("GTCitationGeoKey", "user-defined")
                notes = (f"its coordinate system has no EPSG code ({citation}) and is left out",)
            break
        if 0 < code < _USER_DEFINED:
            crs = f"EPSG:{code}"
            break
    if tags.get("ProjectedCSTypeGeoKey"):
        unit = _LINEAR.get(int(tags.get("ProjLinearUnitsGeoKey", 0))) or unit_of(crs)
    elif tags.get("GeographicTypeGeoKey"):
        unit = unit_of(crs) or "degree"
    return crs, unit, _geotiff_transform(tags), notes


def _esri_wkt(tags: Mapping[str, Any]) -> str | None:
    """Return the WKT that ESRI's programs write beside the keys of a CRS without a code."""
    for key in ("PCSCitationGeoKey", "GTCitationGeoKey", "GeogCitationGeoKey"):
        found = _ESRI.search(str(tags.get(key, "")))
        if found and parsed(found[1]) is not None:
            return found[1]
    return None


def _geotiff_transform(tags: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return the affine of level 0, its origin at the top left corner of the first pixel."""
    matrix, scale = tags.get("ModelTransformation"), tags.get("ModelPixelScale")
    points = tags.get("ModelTiepoint")
    if matrix is not None:
        rows = [list(row) for row in matrix]
        a, b, c = rows[0][0], rows[0][1], rows[0][3]
        d, e, f = rows[1][0], rows[1][1], rows[1][3]
    elif scale is not None and points is not None:
        # Several tie points come as a list of lists; with a scale, the first one counts.
        i, j, _, x, y, _ = points[0] if isinstance(points[0], list | tuple) else points
        a, b, d, e = scale[0], 0.0, 0.0, -scale[1]
        c, f = x - i * a, y - j * e
    else:
        return None  # ground control points alone give no exact transform
    if int(tags.get("GTRasterTypeGeoKey", 1)) == 2:  # coordinates of pixel centres
        c, f = c - (a + b) / 2, f - (d + e) / 2
    return float(a), float(b), float(c), float(d), float(e), float(f)


def of_zarr(
    attributes: Mapping[str, Any], grid_mapping: Mapping[str, Any]
) -> tuple[str | None, tuple[float, ...] | None, float | None]:
    """Return CRS, transform and nodata from attributes of a zarr group and its CF grid mapping.

    Two conventions are read: ``proj:`` and ``spatial:``, and CF's ``crs_wkt`` and GeoTransform.
    """
    number = attributes.get("proj:epsg")
    said = (
        attributes.get("proj:code"),
        attributes.get("proj:wkt2"),
        f"EPSG:{number}" if number else None,
        grid_mapping.get("crs_wkt"),
        grid_mapping.get("spatial_ref"),
    )
    crs = next((text for text in said if isinstance(text, str) and text), None)
    transform = None
    if "spatial:transform" in attributes:
        transform = tuple(float(value) for value in attributes["spatial:transform"])
    elif "GeoTransform" in grid_mapping:
        numbers = str(grid_mapping["GeoTransform"]).split()
        transform = from_gdal(tuple(float(value) for value in numbers))
    nodata = None
    for key in ("nodata", "_FillValue", "missing_value"):
        nodata = _number(attributes.get(key))
        if nodata is not None:
            break
    return crs, transform if transform and len(transform) == 6 else None, nodata


def zarr_attributes(
    crs: str | None, transform: tuple[float, ...] | None, size: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return what a zarr store says of an image's place, in two ways that others read.

    Coarser arrays inherit what their group says, so each needs the first part of its own, made
    with its ``scaled`` transform. For the same reason only level 0 may name the CF variable,
    as ``{"grid_mapping": GRID_MAPPING}``: the variable holds level 0's transform.

    Args:
        crs: a code or WKT.
        transform: a, b, c, d, e, f, from pixels (x, y) to places, the origin a pixel's corner.
        size: width and height in pixels.

    Returns:
        The attributes of the conventions ``proj`` and ``spatial``, empty without CRS and
        transform; and the attributes of the scalar CF variable, None without CRS.
    """
    attributes: dict[str, Any] = {}
    conventions = []
    mapping = None
    if crs is not None:
        system = parsed(crs)
        if _CODE.fullmatch(crs):
            attributes["proj:code"] = crs
        elif system is not None:
            attributes["proj:wkt2"] = system.to_wkt("WKT2_2019")
        conventions += [_PROJ] if attributes else []
        mapping = _cf_attributes(crs, system, transform)
    if transform is not None:
        attributes |= _spatial(transform, size)
        conventions.append(_SPATIAL)
    if conventions:
        # A second time by the names with a colon: rioxarray looks for these.
        again = [{"uuid": c["uuid"], "name": f"{c['name']}:"} for c in conventions]
        attributes["zarr_conventions"] = [dict(c) for c in conventions] + again
    return attributes, mapping


def _spatial(transform: tuple[float, ...], size: tuple[int, int]) -> dict[str, Any]:
    a, b, c, d, e, f = transform
    width, height = size
    corners = [(x, y) for x in (0, width) for y in (0, height)]
    xs = [a * x + b * y + c for x, y in corners]
    ys = [d * x + e * y + f for x, y in corners]
    return {
        "spatial:dimensions": ["y", "x"],
        "spatial:transform": [float(value) for value in transform],
        "spatial:bbox": [min(xs), min(ys), max(xs), max(ys)],
        "spatial:shape": [height, width],
        "spatial:registration": "pixel",
    }


def _cf_attributes(
    crs: str, system: Any, transform: tuple[float, ...] | None
) -> dict[str, Any] | None:
    """Return CF's grid mapping; a text that PROJ does not understand is handed on as it is."""
    if system is not None:
        mapping = dict(system.to_cf())
    elif _CODE.fullmatch(crs):
        return None
    else:
        mapping = {"crs_wkt": crs}
    if transform is not None:
        a, b, c, d, e, f = (float(value) for value in transform)
        mapping["GeoTransform"] = f"{c!r} {a!r} {b!r} {f!r} {d!r} {e!r}"  # as GDAL orders them
    return mapping


def _number(value: Any) -> float | None:
    """Return a number from JSON; xarray writes floats as base64 of eight bytes."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        return float(struct.unpack("<d", base64.b64decode(value, validate=True))[0])
    except (TypeError, ValueError, struct.error):
        return None
