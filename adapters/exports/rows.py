"""A row a glimpse: the columns that tables and vector files share."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tnet.adapters.exports.places import extent, unit_of_places
from tnet.maps import path_probabilities
from tnet.record import Walk

# Pixels of level 0; then the image's unit, from its corner or in its reference system.
COLUMNS = (
    *("image", "glimpse", "level", "x", "y", "width", "height", "parent", "probability", "weight"),
    *("path_probability", "row", "column", "unit", "unit_x", "unit_y", "unit_width"),
    *("unit_height", "crs"),
)
PREFIX = "contribution_"


def classes_of(walks: Iterable[Walk]) -> tuple[str, ...]:
    """Return the classes of all walks, in the order in which they come."""
    return tuple(dict.fromkeys(name for walk in walks for name in walk.classes))


def columns(classes: Sequence[str]) -> list[str]:
    """Return the names of all columns."""
    return [*COLUMNS, *(f"{PREFIX}{name}" for name in classes)]


def rows(walk: Walk) -> Iterator[dict[str, Any]]:
    """Give a row for each glimpse, by column; what there is none of is left out."""
    paths = path_probabilities(walk)
    unit = unit_of_places(walk)
    for index, glimpse in enumerate(walk.glimpses):
        region = glimpse.region
        row: dict[str, Any] = {
            "image": walk.image,
            "glimpse": index,
            "level": glimpse.level,
            "x": float(region.x),
            "y": float(region.y),
            "width": float(region.width),
            "height": float(region.height),
            "parent": glimpse.parent,
            "probability": glimpse.probability,
            "weight": glimpse.weight,
            "path_probability": float(paths[index]),
            "row": glimpse.row,
            "column": glimpse.column,
            "crs": walk.crs,
        }
        place = extent(walk, region)
        if place is not None:
            names = ("unit_x", "unit_y", "unit_width", "unit_height")
            row |= {"unit": unit} | dict(zip(names, place, strict=True))
        for name, worth in zip(walk.classes, glimpse.contributions, strict=True):
            row[f"{PREFIX}{name}"] = worth
        yield row
