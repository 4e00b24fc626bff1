"""Where a glimpse lies: in the image's unit, in its reference system, and on the globe."""

import math
from itertools import pairwise
from typing import Any

from tnet.adapters.georeference import parsed, spacing_of, unit_of
from tnet.errors import DataError
from tnet.geometry import Region
from tnet.record import Walk

Point = tuple[float, float]


def extent(walk: Walk, region: Region) -> tuple[float, float, float, float] | None:
    """Return x, y, width and height of a region in the image's unit; None if it has none.

    x and y are those of the region's upper left corner: in the reference system where the image
    has a transform, from the image's upper left corner otherwise.
    """
    if walk.transform is not None:
        across, down = spacing_of(walk.transform)
        x, y = _placed(walk.transform, (region.x, region.y))
        return x, y, region.width * across, region.height * down
    if walk.spacing is not None:
        across, down = walk.spacing
        return region.x * across, region.y * down, region.width * across, region.height * down
    return None


def unit_of_places(walk: Walk) -> str | None:
    """Return the unit of :func:`extent`: the reference system's where that counts."""
    return (unit_of(walk.crs) if walk.transform is not None else None) or walk.unit


def ring(region: Region) -> list[Point]:
    """Return a region's corners in pixels of level 0, closed: clockwise as seen on the image."""
    x, y, right, bottom = region.x, region.y, region.right, region.bottom
    return [(x, y), (right, y), (right, bottom), (x, bottom), (x, y)]


def ground_ring(walk: Walk, region: Region) -> list[Point]:
    """Return a region's corners in the image's reference system, closed, counter-clockwise.

    Raises:
        DataError: if the image has no transform.
    """
    if walk.transform is None:
        raise DataError(f"{walk.image}: does not say where on the ground it lies")
    corners = [_placed(walk.transform, corner) for corner in ring(region)]
    return corners if _area(corners) > 0 else corners[::-1]


def globe_ring(walk: Walk, region: Region, transformer: Any) -> list[Point]:
    """Return a region's corners in degrees of longitude and latitude, counter-clockwise.

    A region across the 180th meridian goes on past 180 degrees, in one piece.

    Args:
        walk: of the image.
        region: in pixels of level 0.
        transformer: of :func:`to_globe`.

    Raises:
        DataError: if a corner is beyond what the reference system can tell.
    """
    corners = [transformer.transform(x, y) for x, y in ground_ring(walk, region)]
    if not all(math.isfinite(value) for corner in corners for value in corner):
        raise DataError(f"{walk.image}: a glimpse lies outside of what {walk.crs} can tell")
    if max(x for x, _ in corners) - min(x for x, _ in corners) > 180:
        corners = [(x + 360 if x < 0 else x, y) for x, y in corners]
    # A billionth of a degree is a tenth of a millimetre.
    corners = [(round(x, 9), round(y, 9)) for x, y in corners]
    return corners if _area(corners) > 0 else corners[::-1]


def system_of(walk: Walk) -> Any:
    """Return pyproj's CRS of the image.

    Raises:
        DataError: if it has none, or one that is not known.
    """
    system = None if walk.crs is None else parsed(walk.crs)
    if system is None or walk.transform is None:
        raise DataError(
            f"{walk.image}: has no coordinate reference system that is known here; export it in "
            "pixels, --to qupath or csv"
        )
    return system


def to_globe(walk: Walk) -> Any:
    """Return what takes the image's coordinates to longitude and latitude (WGS 84).

    Raises:
        DataError: if the image has no reference system.
    """
    from pyproj import Transformer

    return Transformer.from_crs(system_of(walk), "OGC:CRS84", always_xy=True)


def _placed(transform: tuple[float, ...], point: Point) -> Point:
    a, b, c, d, e, f = transform
    x, y = point
    return a * x + b * y + c, d * x + e * y + f


def _area(corners: list[Point]) -> float:
    """Return twice the area of a closed ring, positive if it runs counter-clockwise."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(corners))
