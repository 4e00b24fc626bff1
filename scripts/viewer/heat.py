"""The heat map of a walk as a picture: transparent where the model never looked closer."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tnet.maps import KINDS, Kind, heat_map
from tnet.record import Walk
from tnet.scripts.viewer.gallery import encoded, fitted

LONGEST = 1024  # pixels of the longer side; a map of 2048 takes the server 50 MB more

_COLOURS = 255

# Dark blue over green to yellow, which stands out from tissue and land alike; light grows evenly.
_RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
# Against and for a class: blue and vermilion, which colour-blind readers tell apart.
_DIVERGING = ((0, 114, 178), (150, 196, 224), (247, 247, 247), (238, 170, 120), (213, 94, 0))


def heat_png(walk: Walk, kind: Kind, target: int) -> bytes:
    """Return the heat map as a PNG file with transparency, which covers the whole image.

    Args:
        walk: that is shown.
        kind: the glimpses' weights, what they add to a class's logit, or where the location
            module would look.
        target: number of the class, for contributions.
    """
    size = fitted(walk.width, walk.height, LONGEST)
    return encoded(coloured(heat(walk, size, kind, target), kind), "png")


def heat(walk: Walk, size: tuple[int, int], kind: Kind, target: int) -> NDArray[np.float32]:
    """Return a heat map, (height, width), see :func:`tnet.maps.heat_map`.

    The first look sees everything and therefore counts only where there is no other glimpse.

    Args:
        walk: that is shown.
        size: width and height of the map.
        kind: see ``heat_png``.
        target: see ``heat_png``.
    """
    alone = all(glimpse.level == 0 for glimpse in walk.glimpses)
    return heat_map(walk, size, kind, target, first=alone)


def kinds_of(walk: Walk) -> list[Kind]:
    """Return the heat maps that a walk can be shown as; older records hold no distributions."""
    return [kind for kind in KINDS if kind != "probability" or walk.grids]


def coloured(values: NDArray[np.float32], kind: Kind) -> Image.Image:
    """Return a heat map as a picture of 256 colours, the first of which is transparent: NaN.

    Weights and chances run from 0 to the largest, contributions from minus to plus the largest of
    either sign.
    """
    ends = np.nanmax(values, initial=0.0), np.nanmin(values, initial=0.0)
    most = float(np.abs(ends).max()) or 1.0
    low = -most if kind == "contribution" else 0.0
    index = np.rint(1 + (values - np.float32(low)) * np.float32((_COLOURS - 1) / (most - low)))
    shown = np.nan_to_num(index, copy=False, nan=0.0).astype(np.uint8)
    picture = Image.fromarray(shown)
    picture.putpalette(_palette(_DIVERGING if kind == "contribution" else _RAMP))
    picture.info["transparency"] = 0
    return picture


def _palette(colours: Sequence[tuple[int, int, int]]) -> bytes:
    """Return a palette: one colour that is not seen, and 255 evenly between the given ones."""
    places = np.linspace(1, _COLOURS, len(colours))
    bands = [
        np.interp(np.arange(_COLOURS + 1), places, band)
        for band in np.transpose(np.asarray(colours, float))
    ]
    return np.rint(np.stack(bands, axis=1)).astype(np.uint8).tobytes()
