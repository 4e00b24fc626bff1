"""GeoJSON as QuPath reads it: a FeatureCollection in pixels of level 0.

The first look is an annotation that carries the prediction; every other glimpse is a tile, so that
QuPath colours them by any of their measurements. Drag the file onto the open image.
"""

import uuid
from typing import Any

import numpy as np

from tnet.adapters.drawing import level_colour
from tnet.adapters.exports.features import collection, feature
from tnet.adapters.exports.places import ring
from tnet.adapters.footer import level_name
from tnet.maps import path_probabilities
from tnet.record import Glimpse, Walk

_SPACE = uuid.UUID("6f2d9d0e-5b43-5d0c-9b1c-2f6f9f2c7a51")  # names of our own


def export(walk: Walk) -> bytes:
    """Return a walk as QuPath's GeoJSON."""
    paths = path_probabilities(walk)
    found = []
    for index, glimpse in enumerate(walk.glimpses):
        properties = _first(walk) if index == 0 else _tile(index, glimpse)
        properties["isLocked"] = True
        properties["measurements"] |= _measurements(walk, glimpse, float(paths[index]))
        name = uuid.uuid5(_SPACE, f"{walk.image}\n{index}\n{glimpse.region}")
        found.append(feature(ring(glimpse.region), properties, str(name)))
    return collection(found)


def _first(walk: Walk) -> dict[str, Any]:
    """Return the properties of the first look: what the model said of the image."""
    said = walk.label or walk.outcome
    chances = {
        f"Probability: {name}": float(p)
        for name, p in zip(walk.classes, walk.probabilities, strict=True)
        if np.isfinite(p)
    }
    return {
        "objectType": "annotation",
        "name": f"{said} {walk.confidence:.3f}" if walk.confidence is not None else said,
        "classification": {"name": said, "color": list(level_colour(0))},
        "measurements": chances,
    }


def _tile(index: int, glimpse: Glimpse) -> dict[str, Any]:
    return {
        "objectType": "tile",
        "name": f"glimpse {index}",
        "classification": {
            "name": f"glimpse {level_name(glimpse.level)}",
            "color": list(level_colour(glimpse.level)),
        },
        "measurements": {},
    }


def _measurements(walk: Walk, glimpse: Glimpse, path: float) -> dict[str, float]:
    said = {
        "Level": glimpse.level,
        "Probability": glimpse.probability,
        "Path probability": path,
        "Weight": glimpse.weight,
    }
    worth = zip(walk.classes, glimpse.contributions, strict=True)
    return said | {f"Contribution: {name}": value for name, value in worth}
