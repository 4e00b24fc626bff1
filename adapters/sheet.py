"""How the page of an overlay is laid out: the image, the crops beside or below it, the footer."""

import math
from dataclasses import dataclass

from tnet.adapters.drawing import Box
from tnet.geometry import Region

MOST_CROPS = 8

# All in pixels of a page whose image is 1024 pixels long; they grow with the image.
MARGIN = 24
GAP = 14
CAPTION = 42
HEADER = 30
SMALLEST_CROP = 130
LARGEST_CROP = 220
NARROWEST = 720
BADGE = 11
TINY = 9  # a box with a shorter side gets a ring around it
TITLE, TEXT, SMALL = 26, 16, 14


@dataclass(frozen=True)
class Sheet:
    """Where things stand on the page, in its pixels.

    Attributes:
        unit: pixels for each pixel of the measures above.
        page: width and height.
        panel: left, top, right, bottom of the image.
        crops: left, top, width and height of the room for each crop.
        footer: top of the text at the bottom.
    """

    unit: float
    page: tuple[int, int]
    panel: Box
    crops: tuple[tuple[int, int, int, int], ...]
    footer: int

    def px(self, measure: float) -> int:
        """Return a measure in pixels of the page."""
        return max(1, round(measure * self.unit))


def arrange(width: int, height: int, size: int, crops: int) -> Sheet:
    """Lay out the page: crops to the right of the image, or below one that is wide and low.

    Args:
        width: of level 0, in pixels; the crops are taken to be as wide for their height.
        height: of level 0, in pixels.
        size: longer side of the image on the page.
        crops: how many there are to show; fewer are laid out where there is no room.
    """
    unit = min(4.0, max(0.75, size / 1024))
    scale = size / max(width, height)
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    margin, gap, caption, header = (round(v * unit) for v in (MARGIN, GAP, CAPTION, HEADER))
    panel = (margin, margin, margin + across, margin + down)
    for rows in (4, 3):
        side = (down - header + gap) // rows - gap - caption
        if side >= SMALLEST_CROP * unit:
            side = min(side, round(LARGEST_CROP * unit))
            x0, y0, columns = panel[2] + 2 * gap, margin + header, math.ceil(crops / rows)
            break
    else:
        columns = 6
        side = (max(across, round(NARROWEST * unit)) + gap) // columns - gap
        x0, y0, rows = margin, panel[3] + gap + header, 1
    count = min(crops, rows * columns)
    wide = max(round(side * min(1, width / height)), round(SMALLEST_CROP * unit))
    tall = max(round(side * min(1, height / width)), round(2.5 * BADGE * unit))
    places = tuple(
        (x0 + i % columns * (wide + gap), y0 + i // columns * (tall + caption + gap), wide, tall)
        for i in range(count)
    )
    last = max((y + tall + caption for _, y, _, _ in places), default=0)
    footer = max(panel[3], last) + gap
    right = max([panel[2], round(NARROWEST * unit) + margin, *(x + wide for x, _, _, _ in places)])
    page = (right + margin, footer + round((TITLE + 2 * TEXT + 3 * GAP) * unit) + margin)
    return Sheet(unit, page, panel, places, footer)


def on_page(region: Region, image: tuple[int, int], sheet: Sheet) -> Box | None:
    """Return the part of a region inside the image, on the page; None where there is none.

    Args:
        region: in pixels of level 0.
        image: width and height of level 0.
        sheet: the layout.
    """
    inside = region.intersection(Region(0, 0, *image))
    if inside is None:
        return None
    left, top, right, bottom = sheet.panel
    x, y = (right - left) / image[0], (bottom - top) / image[1]
    x0, y0 = min(round(inside.x * x), right - left - 1), min(round(inside.y * y), bottom - top - 1)
    x1, y1 = max(round(inside.right * x), x0 + 1), max(round(inside.bottom * y), y0 + 1)
    return left + x0, top + y0, left + x1, top + y1
