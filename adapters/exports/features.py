"""GeoJSON's pieces, which two formats share."""

import json
from collections.abc import Sequence
from typing import Any

from tnet.adapters.exports.places import Point


def feature(corners: Sequence[Point], properties: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a polygon with its properties.

    Args:
        corners: of the polygon, closed.
        properties: JSON values.
        name: the feature's id.
    """
    return {
        "type": "Feature",
        "id": name,
        "geometry": {"type": "Polygon", "coordinates": [[[x, y] for x, y in corners]]},
        "properties": properties,
    }


def collection(features: Sequence[dict[str, Any]]) -> bytes:
    """Return features as the content of a file, a line each."""
    lines = ",\n".join(json.dumps(one, ensure_ascii=False, allow_nan=False) for one in features)
    text = '{"type": "FeatureCollection", "features": [\n' + lines + "\n]}\n"
    return text.encode("utf-8", "backslashreplace")
