"""PNG: the image with its glimpses and a heat map over it, a scale bar and a legend.

The image stands at the page's upper left corner: a pixel of the page is one of the heat map.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tnet.adapters.drawing import (
    FAINT,
    INK,
    disc,
    level_colour,
    shortened,
    text_width,
    write,
)
from tnet.adapters.exports.colours import Scale
from tnet.adapters.exports.heat import Heat
from tnet.adapters.exports.picture import ground, page_for, sheet_for
from tnet.adapters.sheet import GAP, MARGIN, TEXT, TINY, Sheet, on_page
from tnet.pyramid import Pyramid
from tnet.record import Walk


def export(walk: Walk, heat: Heat, pyramid: Pyramid | None = None) -> bytes:
    """Return the picture as a PNG file.

    Args:
        walk: the record.
        heat: which map, and how large the image is on the page, even if it is smaller itself.
        pyramid: the image; None draws a plain ground.
    """
    sheet = sheet_for(walk, heat.side, extra=1)
    size = (sheet.panel[2], sheet.panel[3])
    values = heat.map(walk, size)
    own = heat.of_glimpses(walk, values)
    scale = heat.scale(walk, values)
    page = page_for(walk, sheet)
    shown = ground(walk, pyramid, size).convert("RGBA")
    shown.alpha_composite(scale.painted(values))
    _draw_glimpses(shown, walk, own, scale, sheet)
    page.paste(shown.convert("RGB"), (0, 0))
    _draw_scale(page, scale, heat.title(walk), sheet)
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def _draw_glimpses(
    shown: Image.Image, walk: Walk, own: NDArray[np.float32], scale: Scale, sheet: Sheet
) -> None:
    """Frame the glimpses; those that are too small to show a colour get a disc of theirs."""
    draw = ImageDraw.Draw(shown)
    least, radius = sheet.px(2 * TINY), max(4.0, sheet.unit * TINY / 2)
    size = (walk.width, walk.height)
    # Where discs lie on one another, the strongest is on top.
    for index in sorted(range(1, len(walk.glimpses)), key=lambda i: abs(np.nan_to_num(own[i]))):
        glimpse = walk.glimpses[index]
        box, edge = on_page(glimpse.region, size, sheet), level_colour(glimpse.level)
        if box is None:
            continue
        left, top, right, bottom = box
        if max(right - left, bottom - top) >= least:
            draw.rectangle((left, top, right - 1, bottom - 1), outline=edge, width=sheet.px(1.5))
            continue
        red, green, blue = (int(value) for value in scale.colours(own[index]))
        disc(shown, ((left + right) / 2, (top + bottom) / 2), radius, (red, green, blue), edge)


def _draw_scale(page: Image.Image, scale: Scale, title: str, sheet: Sheet) -> None:
    """Draw the colours with their values and what they mean, between the image and the footer."""
    size, gap = sheet.px(TEXT), sheet.px(8)
    x, y = sheet.px(MARGIN), sheet.panel[3] + sheet.px(GAP)
    low, high = scale.ends()
    x += write(page, (x, y), low, size, FAINT) + gap
    width = sheet.px(160)
    page.paste(scale.bar(width, size), (x, y))
    ImageDraw.Draw(page).rectangle((x, y, x + width - 1, y + size - 1), outline=FAINT)
    x += width + gap
    x += write(page, (x, y), high, size, FAINT) + 2 * gap
    room = page.width - sheet.px(MARGIN) - x
    if text_width("...", size) < room:
        write(page, (x, y), shortened(f"{title}, {scale.steps()}", size, room), size, INK)
