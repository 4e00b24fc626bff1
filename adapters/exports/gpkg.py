"""GeoPackage: the glimpses as polygons in the image's own reference system.

Source: OGC 12-128r18, GeoPackage Encoding Standard 1.3. A GeoPackage is an SQLite file.
"""

import sqlite3
import struct
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from tnet.adapters.exports.places import Point, ground_ring, system_of
from tnet.adapters.exports.rows import columns, rows
from tnet.record import Walk

LAYER = "glimpses"
_OWN_ID = 100_000  # of a reference system that no authority numbers
_APPLICATION = 0x47504B47  # "GPKG"
_VERSION = 10_300
_WHEN = "1970-01-01T00:00:00.000Z"  # the column must not be empty; the same walk, the same bytes

_WGS_84 = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,'
    'AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,'
    'AUTHORITY["EPSG","8901"]],UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],'
    'AUTHORITY["EPSG","4326"]]'
)
_TABLES = """
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY,
  organization TEXT NOT NULL, organization_coordsys_id INTEGER NOT NULL,
  definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL,
  identifier TEXT UNIQUE, description TEXT DEFAULT '',
  last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
  min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
  CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL,
  geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL,
  m TINYINT NOT NULL, CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name),
  CONSTRAINT uk_gc_table_name UNIQUE (table_name),
  CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
  CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id));
"""
_KINDS = {"image": "TEXT", "unit": "TEXT", "crs": "TEXT"} | dict.fromkeys(
    ("glimpse", "level", "parent", "row", "column"), "INTEGER"
)


def export(walk: Walk) -> bytes:
    """Return a walk as a GeoPackage of one layer, "glimpses", with the columns of the table.

    Raises:
        DataError: if the image does not say where on the ground it lies.
    """
    system = system_of(walk)
    rings = [ground_ring(walk, glimpse.region) for glimpse in walk.glimpses]
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(
            f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_VERSION};{_TABLES}"
        )
        known = _reference_systems(system)
        database.executemany("INSERT INTO gpkg_spatial_ref_sys VALUES (?,?,?,?,?,?)", known)
        srs_id = int(known[-1][1])
        _describe(database, rings, srs_id)
        _fill(database, walk, rings, srs_id)
        database.commit()
        return database.serialize()


def _reference_systems(system: Any) -> list[tuple[Any, ...]]:
    """Return the rows that every GeoPackage has, and last the image's own."""
    found = [
        ("Undefined Cartesian SRS", -1, "NONE", -1, "undefined", ""),
        ("Undefined geographic SRS", 0, "NONE", 0, "undefined", ""),
        ("WGS 84 geodetic", 4326, "EPSG", 4326, _WGS_84, ""),
    ]
    authority = system.to_authority(min_confidence=100)
    if authority == ("EPSG", "4326"):
        return found
    name, number = authority or ("NONE", str(_OWN_ID))
    number = number if number.isdecimal() else str(_OWN_ID)
    return [*found, (system.name, int(number), name, int(number), _definition(system), "")]


def _definition(system: Any) -> str:
    """Return the WKT that most programs read, or a newer one for what it cannot say."""
    from pyproj.exceptions import CRSError

    try:
        return str(system.to_wkt("WKT1_GDAL"))
    except CRSError:
        return str(system.to_wkt())


def _describe(database: sqlite3.Connection, rings: Sequence[Sequence[Point]], srs_id: int) -> None:
    xs, ys = ([point[axis] for ring in rings for point in ring] for axis in (0, 1))
    database.execute(
        "INSERT INTO gpkg_contents VALUES (?,'features',?,'',?,?,?,?,?,?)",
        (LAYER, LAYER, _WHEN, min(xs), min(ys), max(xs), max(ys), srs_id),
    )
    database.execute(
        "INSERT INTO gpkg_geometry_columns VALUES (?,'geom','POLYGON',?,0,0)", (LAYER, srs_id)
    )


def _fill(
    database: sqlite3.Connection, walk: Walk, rings: Sequence[Sequence[Point]], srs_id: int
) -> None:
    names = _distinct(columns(walk.classes))
    kinds = [_KINDS.get(name, "DOUBLE") for name in names]
    declared = ", ".join(f"{_quoted(n)} {k}" for n, k in zip(names, kinds, strict=True))
    database.execute(
        f"CREATE TABLE {LAYER} (fid INTEGER PRIMARY KEY AUTOINCREMENT, geom POLYGON, {declared})"
    )
    places = ",".join("?" * (len(names) + 2))
    for ring, row in zip(rings, rows(walk), strict=True):
        values = [row.get(name) for name in columns(walk.classes)]
        database.execute(
            f"INSERT INTO {LAYER} VALUES ({places})",
            (row["glimpse"] + 1, _geometry(ring, srs_id), *values),
        )


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names that differ even to SQLite, to which case is no difference."""
    taken = {"fid", "geom"}
    found = []
    for name in names:
        number, kept = 1, name.replace("\0", "")
        while kept.lower() in taken:
            number += 1
            kept = f"{name}_{number}"
        taken.add(kept.lower())
        found.append(kept)
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _geometry(ring: Sequence[Point], srs_id: int) -> bytes:
    """Return a polygon as GeoPackage's binary: a header with the envelope, and WKB."""
    xs, ys = [point[0] for point in ring], [point[1] for point in ring]
    envelope = struct.pack("<4d", min(xs), max(xs), min(ys), max(ys))
    header = b"GP" + struct.pack("<BBi", 0, 0b11, srs_id) + envelope
    body = struct.pack("<BIII", 1, 3, 1, len(ring))
    return header + body + b"".join(struct.pack("<2d", *point) for point in ring)
