"""Which heat map is shown, at what size, and what its colours mean."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.exports.colours import Scale
from tnet.maps import Kind, class_index, heat_map
from tnet.record import Walk


@dataclass(frozen=True)
class Heat:
    """What heat maps show.

    Attributes:
        kind: see :func:`tnet.maps.heat_map`.
        target: name of the class; None for the predicted one.
        side: longer side of a map in pixels; never more than the image's.
    """

    kind: Kind = "contribution"
    target: str | None = None
    side: int = 1024

    def size(self, walk: Walk) -> tuple[int, int]:
        """Return width and height of an image's map in pixels."""
        scale = min(1.0, self.side / max(walk.width, walk.height))
        return max(1, round(walk.width * scale)), max(1, round(walk.height * scale))

    def map(self, walk: Walk, size: tuple[int, int]) -> NDArray[np.float32]:
        """Return an image's map, float32 (height, width); NaN where nothing was looked at."""
        return heat_map(walk, size, self.kind, self.target)

    def of_glimpses(self, walk: Walk, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what a map shows for each glimpse, however small, float32 (glimpses,).

        Args:
            walk: the record.
            values: the map; it says itself what chances are at a glimpse's centre.
        """
        number = class_index(walk, self.target)
        if self.kind == "weight":
            found = [glimpse.weight for glimpse in walk.glimpses]
        elif self.kind == "contribution":
            nothing = number is None
            found = [math.nan if nothing else g.contributions[number or 0] for g in walk.glimpses]
        else:
            height, width = values.shape
            centres = [
                (g.region.x + g.region.width / 2, g.region.y + g.region.height / 2)
                for g in walk.glimpses
            ]
            found = [
                float(values[_pixel(y, walk.height, height), _pixel(x, walk.width, width)])
                for x, y in centres
            ]
        # The first look shows everything, and no map shows it.
        return np.array([math.nan, *found[1:]], dtype=np.float32)

    def scale(self, walk: Walk, values: NDArray[np.float32]) -> Scale:
        """Return what the colours of a map mean.

        The largest value has the strongest colour, that of a glimpse too which is smaller than a
        pixel of the map.

        Args:
            walk: the record.
            values: the map.
        """
        own = self.of_glimpses(walk, values)
        return Scale.of(np.concatenate([values.ravel(), own]), self.kind)

    def levels(self, walk: Walk, smallest: int) -> list[NDArray[np.float32]]:
        """Return maps of half the size each, rounded up, until none is longer than ``smallest``.

        Each is made of the walk, not of the one before, and covers the whole image.
        """
        sizes = [self.size(walk)]
        while max(sizes[-1]) > smallest:
            wide, high = sizes[-1]
            sizes.append((-(-wide // 2), -(-high // 2)))
        return [self.map(walk, size) for size in sizes]

    def title(self, walk: Walk) -> str:
        """Return in a few words what the map shows."""
        if self.kind == "weight":
            return "weight in the answer"
        if self.kind == "probability":
            return "chance of being looked at, times that of any place"
        number = class_index(walk, self.target)
        name = "the predicted class (none)" if number is None else walk.classes[number]
        return f"contribution to the logit of {name}"


def _pixel(place: float, side: int, count: int) -> int:
    return min(max(int(place * count / side), 0), count - 1)
