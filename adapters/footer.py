"""The text under a walk's picture: scale, colours, the result and what it cost."""

import math

from PIL import Image, ImageDraw

from tnet.adapters.drawing import (
    FAINT,
    INK,
    level_colour,
    round_length,
    shortened,
    text_width,
    write,
)
from tnet.adapters.sheet import GAP, MARGIN, TEXT, TITLE, Sheet
from tnet.record import Walk

METRES = {"µm": 1e-6, "nm": 1e-9, "mm": 1e-3, "cm": 1e-2, "metre": 1.0, "meter": 1.0, "m": 1.0}
_LENGTHS = ((1e3, "km"), (1.0, "m"), (1e-3, "mm"), (1e-6, "µm"))


def draw_footer(page: Image.Image, walk: Walk, sheet: Sheet) -> None:
    """Write the scale bar and the legend, then the result, then what it cost."""
    left, wide = sheet.px(MARGIN), page.width - 2 * sheet.px(MARGIN)
    top = sheet.footer
    start = _draw_scale(page, walk, sheet, (left, top))
    _draw_legend(page, walk, sheet, (start, top))
    top += sheet.px(TEXT + GAP)
    size = sheet.px(TITLE)
    verdict = walk.outcome if walk.label is None else f"{walk.label} {sure(walk.confidence or 0)}"
    verdict = shortened(verdict, size, wide * 2 // 3)
    room = wide - text_width(verdict, size) - sheet.px(2 * GAP)
    name = shortened(walk.image.replace("\\", "/").rstrip("/").rpartition("/")[2], size, room)
    at = left + write(page, (left, top), name, size, FAINT) + sheet.px(GAP * 1.5)
    write(page, (at, top), verdict, size)
    top += sheet.px(TITLE + GAP)
    size = sheet.px(TEXT)
    write(page, (left, top), shortened(_cost(walk), size, wide), size, FAINT)


def _draw_scale(page: Image.Image, walk: Walk, sheet: Sheet, place: tuple[int, int]) -> int:
    """Draw a scale bar where the size of a pixel is known; return where it ends, x."""
    length = _scale_bar(walk, sheet)
    if length is None:
        return place[0]
    across, text = length
    x, y = place
    half = y + sheet.px(TEXT) // 2
    thick, tick = sheet.px(2), sheet.px(5)
    draw = ImageDraw.Draw(page)
    draw.rectangle((x, half - thick // 2, x + across, half - thick // 2 + thick - 1), fill=INK)
    for end in (x, x + across - thick + 1):
        draw.rectangle((end, half - tick, end + thick - 1, half + tick), fill=INK)
    x += across + sheet.px(8)
    return x + write(page, (x, half), text, sheet.px(TEXT), anchor="lm") + sheet.px(2 * GAP)


def _scale_bar(walk: Walk, sheet: Sheet) -> tuple[int, str] | None:
    """Return the bar's length on the page, in pixels, and what it says; at most a fifth."""
    across = sheet.panel[2] - sheet.panel[0]
    bar = round_bar(walk, max(across, sheet.px(400)) / across / 5)
    if bar is None:
        return None
    length, share = bar
    return max(1, round(share * across)), length_text(length)


def length_text(metres: float) -> str:
    """Return a length in the unit that suits it: "200 µm"."""
    size, unit = next(((s, u) for s, u in _LENGTHS if metres >= s * (1 - 1e-9)), _LENGTHS[-1])
    return f"{metres / size:g} {unit}"


def round_bar(walk: Walk, share: float) -> tuple[float, float] | None:
    """Return a round length for a scale bar, in metres and as a share of the image's width.

    None where the size of a pixel is not known.

    Args:
        walk: over the image.
        share: of the width, near which the length is to be.
    """
    metres = METRES.get(walk.unit or "")
    if walk.spacing is None or metres is None:
        return None
    whole = walk.width * walk.spacing[0] * metres
    if not 0 < whole < math.inf:
        return None
    length = round_length(share * whole)
    return length, length / whole


def _draw_legend(page: Image.Image, walk: Walk, sheet: Sheet, place: tuple[int, int]) -> None:
    """Name the levels' colours, as far as there is room."""
    x, y = place
    size = sheet.px(TEXT)
    square, edge = sheet.px(12), page.width - sheet.px(MARGIN)
    for level in sorted({glimpse.level for glimpse in walk.glimpses}):
        count = sum(glimpse.level == level for glimpse in walk.glimpses)
        text = level_name(level) + (f" ({count})" if level else "")
        if x + square + sheet.px(6) + text_width(text, size) > edge:
            return
        top = y + (size - square) // 2
        swatch = (x, top, x + square - 1, top + square - 1)
        ImageDraw.Draw(page).rectangle(swatch, fill=level_colour(level))
        x += square + sheet.px(6)
        x += write(page, (x, y + size // 2), text, size, FAINT, "lm") + sheet.px(1.4 * GAP)


def sure(probability: float) -> str:
    """Return a probability in percent; what is not certain does not read so."""
    value = 100 * probability
    return "> 99.9 %" if 99.95 <= value < 100 else f"{value:.1f} %"


def _cost(walk: Walk) -> str:
    share = walk.share * 100
    looked = f"{share:.0f}" if share >= 10 else f"{share:.2g}"
    count = walk.looks
    return " \u00b7 ".join(
        [
            f"{count} glimpse{'s'[: count > 1]}",
            f"{short_count(walk.pixels)} pixels looked at",
            f"{looked} % of {short_count(walk.width * walk.height)} ({walk.width} x {walk.height})",
            f"{walk.seconds:.2g} s",
        ]
    )


def short_count(count: int) -> str:
    """Return a number with a word for what is large."""
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{count:,}"


def level_name(level: int) -> str:
    """Return what a level is called."""
    return "first look" if level == 0 else f"level {level}"
