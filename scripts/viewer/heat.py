"""The heat map of a walk for the browser, in the colours of the exported pictures."""

from typing import Any

import numpy as np

from tnet.adapters.drawing import css
from tnet.adapters.exports.heat import Heat
from tnet.maps import KINDS, Kind
from tnet.record import Walk
from tnet.scripts.viewer.gallery import encoded

LONGEST = 1024  # pixels of the longer side; a map of 2048 takes the server 50 MB more


def heat_of(kind: Kind, target: int) -> Heat:
    """Return what the page shows: the kind of map, and of contributions the number of the class."""
    return Heat(kind, target, LONGEST)


def heat_png(walk: Walk, heat: Heat) -> bytes:
    """Return a heat map as a PNG file that covers the whole image.

    It has no colour where the model never looked closer.
    """
    values = heat.map(walk, heat.size(walk))
    return encoded(heat.scale(walk, values).indexed(values), "png")


def heat_legend(walk: Walk, heat: Heat) -> dict[str, Any]:
    """Return what the colours mean, as JSON values; no ends where the map shows nothing."""
    values = heat.map(walk, heat.size(walk))
    scale = heat.scale(walk, values)
    return {
        "title": heat.title(walk),
        "ends": scale.ends() if np.isfinite(values).any() else None,
        "steps": scale.steps(),
        "colours": [css(colour) for colour in scale.anchors()],
    }


def kinds_of(walk: Walk) -> list[Kind]:
    """Return the heat maps that a walk can be shown as; older records hold no distributions."""
    return [kind for kind in KINDS if kind != "probability" or walk.grids]
