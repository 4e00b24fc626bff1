"""Drawing for reports: type, boxes that read on any ground, round badges; sizes in pixels."""

import math
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tnet.geometry import Region
from tnet.pyramid import Pyramid

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two just past it

INK: Colour = (32, 33, 36)
FAINT: Colour = (100, 104, 110)
PAPER: Colour = (255, 255, 255)

# Okabe and Ito's palette, which colour-blind readers tell apart; grey is the first look.
PALETTE: tuple[Colour, ...] = (
    (120, 120, 120),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)

_HALO = (16, 16, 20)
_SAMPLE = 512  # pixels of the longer side of a view that contrast is learned from
_FINER = 4  # round shapes are drawn so many times larger, then averaged
_KNOWN = frozenset(map(chr, range(32, 127))) | frozenset(
    "\u00b0\u00b1\u00b7\u2018\u2019\u201c\u201d\u2026"
)


def level_colour(level: int) -> Colour:
    """Return the colour of a level; after seven levels the colours repeat."""
    return PALETTE[0] if level == 0 else PALETTE[1 + (level - 1) % (len(PALETTE) - 1)]


def css(colour: Colour) -> str:
    """Return a colour as style sheets write it, such as "#e69f00"."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font, so that pictures are the same on every machine."""
    found = ImageFont.load_default(size=size)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found


def drawable(text: str) -> str:
    """Return text in the characters that the font has: accents are left out, others are "?"."""
    bare = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if c in _KNOWN else "?" for c in bare)


def text_width(text: str, size: int) -> int:
    """Return how wide a line is, in pixels."""
    return math.ceil(font(size).getlength(drawable(text)))


def shortened(text: str, size: int, width: int) -> str:
    """Return a line that is at most ``width`` pixels wide, with its middle left out if need be."""
    text = drawable(text)
    if text_width(text, size) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: kept - kept // 2]}\u2026{text[len(text) - kept // 2 :]}"
        if text_width(short, size) <= width:
            return short
    return "\u2026"


def write(
    page: Image.Image,
    place: tuple[int, int],
    text: str,
    size: int,
    colour: Colour = INK,
    anchor: str = "la",
) -> int:
    """Write a line; return its width. ``anchor`` is Pillow's, "la" is the top left corner."""
    text = drawable(text)
    ImageDraw.Draw(page).text(place, text, font=font(size), fill=colour, anchor=anchor)
    return text_width(text, size)


def outline(layer: Image.Image, box: Box, colour: Colour, width: int, opacity: float) -> None:
    """Draw a frame whose outer edge is the box's, between two thin dark lines.

    Args:
        layer: RGBA; what is under the lines is replaced, not mixed.
        box: in pixels of the layer.
        colour: of the frame.
        width: of the frame, inwards.
        opacity: 0 to 1.
    """
    draw = ImageDraw.Draw(layer)
    left, top, right, bottom = box[0], box[1], box[2] - 1, box[3] - 1
    halo = (*_HALO, round(150 * opacity))
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=halo, width=1)
    room = (min(right - left, bottom - top) + 1) // 2
    width = max(1, min(width, room))
    if room > width + 1:
        inside = (left + width, top + width, right - width, bottom - width)
        draw.rectangle(inside, outline=halo, width=1)
    draw.rectangle((left, top, right, bottom), outline=(*colour, round(255 * opacity)), width=width)


def pointer(
    layer: Image.Image, start: tuple[float, float], end: tuple[float, float], colour: Colour
) -> None:
    """Draw a thin line with a dark border from a number to what it names."""
    draw = ImageDraw.Draw(layer)
    draw.line((*start, *end), fill=(*_HALO, 160), width=4)
    draw.line((*start, *end), fill=(*colour, 255), width=2)


def disc(
    layer: Image.Image, centre: tuple[float, float], radius: float, fill: Colour, edge: Colour
) -> None:
    """Lay a smooth filled circle with a thin edge onto an RGBA layer."""
    _round(layer, centre, radius, (*fill, 255), edge, 0.14)


def ring(layer: Image.Image, centre: tuple[float, float], radius: float, colour: Colour) -> None:
    """Lay a smooth ring with a dark halo onto an RGBA layer; it is empty inside."""
    _round(layer, centre, radius + 1.5, (0, 0, 0, 0), _HALO, 0.42)
    _round(layer, centre, radius, (0, 0, 0, 0), colour, 0.28)


def _round(
    layer: Image.Image,
    centre: tuple[float, float],
    radius: float,
    fill: tuple[int, int, int, int],
    edge: Colour,
    edge_share: float,
) -> None:
    left, top = math.floor(centre[0] - radius) - 1, math.floor(centre[1] - radius) - 1
    side = math.ceil(2 * radius) + 3
    stamp = Image.new("RGBA", (side * _FINER, side * _FINER), (*edge, 0))
    middle_x, middle_y = (centre[0] - left) * _FINER, (centre[1] - top) * _FINER
    reach = radius * _FINER
    ImageDraw.Draw(stamp).ellipse(
        (middle_x - reach, middle_y - reach, middle_x + reach, middle_y + reach),
        fill=fill if fill[3] else None,
        outline=(*edge, 255),
        width=max(1, round(reach * edge_share)),
    )
    small = stamp.resize((side, side), Image.Resampling.BOX)
    _lay(layer, small, left, top)


def _lay(layer: Image.Image, stamp: Image.Image, left: int, top: int) -> None:
    """Composite a stamp that may hang over the layer's border."""
    cut = (max(0, -left), max(0, -top))
    if cut[0] < stamp.width and cut[1] < stamp.height:
        layer.alpha_composite(stamp, (max(0, left), max(0, top)), cut)


def badge(
    layer: Image.Image, centre: tuple[float, float], radius: float, number: int, colour: Colour
) -> None:
    """Lay a numbered disc onto an RGBA layer."""
    disc(layer, centre, radius, colour, PAPER)
    size = max(7, round(radius * (1.35 if number < 10 else 1.1)))
    ink = INK if is_light(colour) else PAPER
    ImageDraw.Draw(layer).text(centre, str(number), font=font(size), fill=(*ink, 255), anchor="mm")


def is_light(colour: Colour) -> bool:
    """Say whether dark ink reads better on a colour."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140


def fitted(width: float, height: float, longest: int) -> tuple[int, int]:
    """Return a size of the same shape whose longer side has at most so many pixels."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def round_length(most: float) -> float:
    """Return the longest of 1, 2 or 5 times a power of ten that is not longer than ``most``."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


class Stretch:
    """How values of any type become bytes on the page: learned from one view, used for all.

    8-bit images of one or three bands show as they are. Otherwise the 2nd and 98th percentiles
    of each of the first three bands (of the first, where there are fewer) become 0 and 255.

    Args:
        view: (height, width, bands).
        nodata: the value of missing pixels, which are not counted.
    """

    def __init__(self, view: NDArray[Any], nodata: float | None) -> None:
        bands = view.shape[2]
        self._shown = [0, 1, 2] if bands >= 3 else [0]
        self._limits: Sequence[tuple[float, float]] | None = None
        if view.dtype != np.uint8 or bands not in (1, 3):
            self._limits = [_percentiles(view[..., band], nodata) for band in self._shown]

    @classmethod
    def of(cls, pyramid: Pyramid) -> "Stretch":
        """Return what is learned from a small view of all of an image."""
        whole = Region(0, 0, pyramid.width, pyramid.height)
        sample = pyramid.read(whole, fitted(pyramid.width, pyramid.height, _SAMPLE))
        return cls(sample, pyramid.nodata)

    def __call__(self, view: NDArray[Any]) -> Image.Image:
        """Return a view as an RGB picture."""
        shown = view[..., self._shown]
        if self._limits is not None:
            low, high = np.asarray(self._limits, np.float64).T
            scaled = np.clip((shown - low) / (high - low) * 255, 0, 255)
            shown = np.rint(np.nan_to_num(scaled, nan=0.0))
        if shown.shape[2] == 1:
            shown = np.repeat(shown, 3, axis=2)
        return Image.fromarray(np.ascontiguousarray(shown.astype(np.uint8)))


def _percentiles(values: NDArray[Any], nodata: float | None) -> tuple[float, float]:
    there = values[np.isfinite(values)]
    if nodata is not None:
        there = there[there != nodata]
    if there.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(there, (2, 98)))
    return (low, high) if high > low else (low, low + 1.0)
