"""Where an image lies on the ground: affine transforms and coordinate reference systems."""

import base64
import math
import re
import struct
from collections.abc import Mapping
from typing import Any

_LINEAR = {9001: "metre", 9002: "foot", 9003: "US survey foot"}
_USER_DEFINED = 32767


def spacing_of(transform: tuple[float, ...]) -> tuple[float, float]:
    """Return the size of a pixel, x and y, from an affine a, b, c, d, e, f."""
    a, b, _, d, e, _ = transform
    return math.hypot(a, d), math.hypot(b, e)


def from_gdal(values: tuple[float, ...]) -> tuple[float, ...]:
    """Reorder GDAL's c, a, b, f, d, e into a, b, c, d, e, f."""
    c, a, b, f, d, e = values
    return a, b, c, d, e, f


def unit_of(crs: str | None) -> str | None:
    """Return the unit of a coordinate reference system where it can be told without a database.

    EPSG numbers its geographic systems 4000 to 4999; of the projected ones, UTM, Web Mercator
    and Europe's are in metres and the others are not guessed.
    """
    if crs is None:
        return None
    code = re.fullmatch(r"EPSG:(\d+)", crs)
    if code:
        number = int(code[1])
        if 4000 <= number < 5000:
            return "degree"
        metric = number in (3857, 3035) or 25828 <= number <= 25838
        utm = number // 100 in (326, 327) and 1 <= number % 100 <= 60
        return "metre" if metric or utm else None
    if re.match(r"\s*(GEOGCS|GEOGCRS|GEODCRS)\[", crs):
        return "degree"
    return "metre" if re.search(r'UNIT\["met(re|er)"', crs, re.IGNORECASE) else None


def of_geotiff(
    tags: Mapping[str, Any],
) -> tuple[str | None, str | None, tuple[float, ...] | None, tuple[str, ...]]:
    """Return CRS, unit, transform and notes from GeoTIFF keys as tifffile names them."""
    crs, unit = None, None
    notes: tuple[str, ...] = ()
    for key in ("ProjectedCSTypeGeoKey", "GeographicTypeGeoKey"):
        code = int(tags.get(key, 0))
        if code == _USER_DEFINED and key.startswith("Proj"):
            citation = tags.get("GTCitationGeoKey", "user-defined")
            notes = (f"its coordinate system has no EPSG code ({citation}) and is left out",)
            break
        if 0 < code < _USER_DEFINED:
            crs = f"EPSG:{code}"
            break
    if tags.get("ProjectedCSTypeGeoKey"):
        unit = _LINEAR.get(int(tags.get("ProjLinearUnitsGeoKey", 0))) or unit_of(crs)
    elif tags.get("GeographicTypeGeoKey"):
        unit = "degree"
    return crs, unit, _geotiff_transform(tags), notes


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
    crs = attributes.get("proj:code") or attributes.get("proj:wkt2")
    if crs is None and attributes.get("proj:epsg"):
        crs = f"EPSG:{attributes['proj:epsg']}"
    if crs is None:
        crs = grid_mapping.get("crs_wkt") or grid_mapping.get("spatial_ref")
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
