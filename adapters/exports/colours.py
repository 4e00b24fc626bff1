"""Values as colours that colour-blind readers tell apart, the same in every picture and page.

A few glimpses often say most. So that the others do not all look alike, colours of heat maps follow
the square root of contributions and weights, and the logarithm of chances.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tnet.adapters.drawing import Colour
from tnet.maps import Kind

Curve = Literal["linear", "root", "log"]

OPACITY = 0.6  # of a map over an image, where nobody chooses it
_DENSEST = 0.75  # opacity of the largest value of a map that fades

# Against and for a class: blue and vermilion, which colour-blind readers tell apart.
_DIVERGING: tuple[Colour, ...] = (
    (0, 114, 178), (150, 196, 224), (247, 247, 247), (238, 170, 120), (213, 94, 0),
)  # fmt: skip
# Dark blue over green to yellow, which stands out from tissue and land alike; light grows evenly.
_RISING: tuple[Colour, ...] = (
    (68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37),
)  # fmt: skip

_COLOURS = 255  # of an indexed picture, beside the one that is not seen
_ROWS = 128  # that are coloured at once
_DECADES = 3  # chances are shown on a logarithmic scale that reaches down so far
_STEPS = {"linear": "linear scale", "root": "square-root scale", "log": "log scale"}


@dataclass(frozen=True)
class Scale:
    """What value has which colour; values below 0 are against something, those above for it.

    Attributes:
        low, high: the values of the first and the last colour.
        curve: how the values lie between them; "root" wants ``low`` to be 0 or ``-high``, "log"
            both above 0.
    """

    low: float
    high: float
    curve: Curve = "linear"

    @classmethod
    def of(cls, kind: Kind, *values: NDArray[np.float32]) -> "Scale":
        """Return the scale on which the largest of all values has the strongest colour."""
        ends = [float(end(part, initial=0.0)) for part in values for end in (np.nanmax, np.nanmin)]
        high = max(map(abs, ends)) or 1.0
        if kind == "probability":
            return cls(high / 10**_DECADES, high, "log")
        return cls(-high if kind == "contribution" else 0.0, high, "root")

    def indexed(self, values: NDArray[np.float32]) -> Image.Image:
        """Return a map as a picture of 256 colours; where it is NaN there is nothing."""
        index = np.zeros(values.shape, np.uint8)
        for shown, part in zip(_strips(index), _strips(values), strict=True):
            known = np.isfinite(part)
            shown[known] = 1 + np.rint((_COLOURS - 1) * self._shares(part[known]))
        picture = Image.fromarray(index)
        palette = self._of_shares(np.linspace(0, 1, _COLOURS))
        picture.putpalette(bytes(3) + palette.tobytes())
        picture.info["transparency"] = 0
        return picture

    def painted(self, values: NDArray[np.float32]) -> Image.Image:
        """Return a map as RGBA to be laid over its image; where it is NaN there is nothing."""
        picture = self.indexed(values).convert("RGBA")
        picture.putalpha(picture.getchannel("A").point([round(a * OPACITY) for a in range(256)]))
        return picture

    def faded(self, values: NDArray[np.float32]) -> Image.Image:
        """Return a map as RGBA that the image shows through the more, the lower a value is."""
        opacity = np.rint(255 * _DENSEST * self._shares(values)).astype(np.uint8)
        picture = self.indexed(values).convert("RGB")
        picture.putalpha(Image.fromarray(opacity))
        return picture

    def colours(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the colour of each value, uint8 (..., 3); NaN has that of the lowest."""
        return self._of_shares(self._shares(np.where(np.isfinite(values), values, self.low)))

    def bar(self, width: int, height: int) -> Image.Image:
        """Return the colours from the lowest value to the highest as they lie on white, RGB."""
        row = self._of_shares(np.linspace(0, 1, width)) * OPACITY + 255 * (1 - OPACITY)
        return Image.fromarray(np.tile(np.rint(row).astype(np.uint8), (height, 1, 1)))

    def anchors(self) -> Sequence[Colour]:
        """Return colours at even distances from low to high; those between are mixed of two."""
        return _DIVERGING if self.low < 0 else _RISING

    def ends(self) -> tuple[str, str]:
        """Return the lowest and the highest value as text."""
        sign = "+" if self.low < 0 else ""
        return f"{self.low:.3g}", f"{self.high:{sign}.3g}"

    def steps(self) -> str:
        """Return how the values lie between the ends."""
        return _STEPS[self.curve]

    def _shares(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return where values stand between low, 0, and high, 1."""
        low, high = np.float32(self.low), np.float32(self.high)
        shown = np.clip(values, low, high)
        if self.curve == "log":
            return np.log(shown / low) / np.log(high / low)
        if self.curve == "root":
            share: NDArray[np.float32] = np.sign(shown) * np.sqrt(np.abs(shown) / high)
            return (share + np.float32(1)) / np.float32(2) if low < 0 else share
        return (shown - low) / np.float32(high - low or 1)

    def _of_shares(self, share: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Return the colours from low, 0, to high, 1."""
        anchors = np.array(self.anchors(), np.float64)
        places = np.linspace(0, 1, len(anchors))
        bands = [np.interp(share, places, anchors[:, band]) for band in range(3)]
        return np.rint(np.stack(bands, axis=-1)).astype(np.uint8)


def _strips(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Give an array some rows at a time: what is reckoned of them takes less memory than all."""
    return (values[row : row + _ROWS] for row in range(0, len(values), _ROWS))
