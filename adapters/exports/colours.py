"""Heat maps in colours that colour-blind readers tell apart, and what these mean.

A few glimpses often say most. So that the others do not all look alike, colours follow the square
root of contributions and weights, and the logarithm of chances.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tnet.adapters.drawing import Colour
from tnet.maps import Kind

# From blue through white to red: against the class, and for it.
_DIVERGING: tuple[Colour, ...] = (
    (5, 48, 97), (67, 147, 195), (209, 229, 240), (247, 247, 247),
    (253, 219, 199), (214, 96, 77), (103, 0, 31),
)  # fmt: skip
# From dark violet through red to yellow: little and much.
_RISING: tuple[Colour, ...] = (
    (24, 15, 61), (87, 16, 110), (153, 39, 102), (211, 69, 66), (245, 125, 21), (250, 194, 40),
    (252, 255, 164),
)  # fmt: skip

_OPACITY = 0.62
_DECADES = 3  # chances are shown on a logarithmic scale that reaches down so far


@dataclass(frozen=True)
class Scale:
    """What value has which colour.

    Attributes:
        kind: of the map.
        low, high: the values of the first and the last colour.
    """

    kind: Kind
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float32], kind: Kind) -> "Scale":
        """Return the scale on which a map's largest value has the strongest colour."""
        known = np.abs(values[np.isfinite(values)])
        high = float(known.max()) if known.size and known.max() > 0 else 1.0
        lows = {"contribution": -high, "weight": 0.0, "probability": high / 10**_DECADES}
        return cls(kind, lows[kind], high)

    def painted(self, values: NDArray[np.float32]) -> Image.Image:
        """Return a map as RGBA: where nothing was looked at there is nothing."""
        opacity = np.where(np.isfinite(values), round(255 * _OPACITY), 0).astype(np.uint8)
        return Image.fromarray(np.dstack([self.colours(values), opacity]))

    def colours(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the colour of each value, uint8 (..., 3); NaN has that of the lowest."""
        shown = np.where(np.isfinite(values), values, self.low).astype(np.float64)
        shown = np.clip(shown, self.low, self.high)
        if self.kind == "probability":
            return self._of_shares(np.log(shown / self.low) / np.log(self.high / self.low))
        share = np.sign(shown) * np.sqrt(np.abs(shown) / self.high)
        return self._of_shares((share + 1) / 2 if self.kind == "contribution" else share)

    def bar(self, width: int, height: int) -> Image.Image:
        """Return the colours from the lowest value to the highest as they lie on white, RGB."""
        row = self._of_shares(np.linspace(0, 1, width)) * _OPACITY + 255 * (1 - _OPACITY)
        return Image.fromarray(np.tile(np.rint(row).astype(np.uint8), (height, 1, 1)))

    def ends(self) -> tuple[str, str]:
        """Return the lowest and the highest value as text."""
        sign = "+" if self.kind == "contribution" else ""
        return f"{self.low:.3g}", f"{self.high:{sign}.3g}"

    def steps(self) -> str:
        """Return how the values lie between the ends."""
        return "log scale" if self.kind == "probability" else "square-root scale"

    def _of_shares(self, share: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return the colours from low, 0, to high, 1."""
        anchors = np.array(_DIVERGING if self.kind == "contribution" else _RISING, np.float64)
        places = np.linspace(0, 1, len(anchors))
        bands = [np.interp(share, places, anchors[:, band]) for band in range(3)]
        return np.rint(np.stack(bands, axis=-1)).astype(np.uint8)
