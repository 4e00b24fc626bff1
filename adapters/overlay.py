"""A walk as a picture: where the model looked, what it saw there, and what that was worth."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tnet.adapters.drawing import (
    FAINT,
    INK,
    PAPER,
    Box,
    Stretch,
    badge,
    level_colour,
    outline,
    pointer,
    ring,
    shortened,
    write,
)
from tnet.adapters.footer import draw_footer, level_name
from tnet.adapters.sheet import (
    BADGE,
    HEADER,
    MARGIN,
    MOST_CROPS,
    SMALL,
    TEXT,
    TINY,
    Sheet,
    arrange,
    on_page,
)
from tnet.geometry import Region
from tnet.pyramid import Pyramid
from tnet.record import Glimpse, Walk


def draw_walk(walk: Walk, pyramid: Pyramid, size: int = 1024) -> Image.Image:
    """Draw a walk: the image with all glimpses, the weightiest of them enlarged, and the result.

    The enlarged glimpses are those that add most to the logit of the predicted class; without
    evidence, those of the largest weights. Images other than 8-bit grey or RGB are stretched
    (see ``drawing.Stretch``) and show their first three bands.

    Args:
        walk: what :func:`tnet.walk` returned.
        pyramid: the image that was walked over, opened the same way.
        size: longer side of the whole image on the page, in pixels.

    Returns:
        The page, RGB.
    """
    ranked = _ranked(walk)
    sheet = arrange(walk.width, walk.height, size, min(MOST_CROPS, len(ranked)))
    page = Image.new("RGB", sheet.page, PAPER)
    left, top, right, bottom = sheet.panel
    view = pyramid.read(Region(0, 0, walk.width, walk.height), (right - left, bottom - top))
    stretch = Stretch(view, pyramid.nodata)
    page.paste(stretch(view), (left, top))
    layer = Image.new("RGBA", page.size, (0, 0, 0, 0))
    boxes = [on_page(glimpse.region, (walk.width, walk.height), sheet) for glimpse in walk.glimpses]
    draw_boxes(layer, walk, boxes, sheet)
    shown = ranked[: len(sheet.crops)]
    _number_boxes(layer, walk, [(index, boxes[index]) for index in shown], sheet)
    _draw_crops(page, layer, walk, pyramid, stretch, shown, sheet)
    page.paste(layer, (0, 0), layer)
    draw_footer(page, walk, sheet)
    return page


def _ranked(walk: Walk) -> list[int]:
    """Return the indices of the glimpses, those that say most for the predicted class first."""

    def worth(index: int) -> float:
        glimpse = walk.glimpses[index]
        return glimpse.weight if walk.label is None else _contribution(walk, glimpse)

    return sorted(range(len(walk.glimpses)), key=lambda index: (-worth(index), index))


def _contribution(walk: Walk, glimpse: Glimpse) -> float:
    return glimpse.contributions[int(np.argmax(walk.probabilities))]


def draw_boxes(layer: Image.Image, walk: Walk, boxes: list[Box | None], sheet: Sheet) -> None:
    """Draw all glimpses, deeper levels over their parents, weightier ones over lighter."""
    heaviest = max((glimpse.weight for glimpse in walk.glimpses), default=0) or 1.0
    order = sorted(
        range(len(boxes)), key=lambda i: (walk.glimpses[i].level, walk.glimpses[i].weight)
    )
    for index in order:
        glimpse, box = walk.glimpses[index], boxes[index]
        if box is None:
            continue
        share = glimpse.weight / heaviest
        colour = level_colour(glimpse.level)
        width = sheet.px(1.2 + (2 * share if glimpse.level else 0))
        outline(layer, box, colour, width, 0.55 + 0.45 * share)
        if max(box[2] - box[0], box[3] - box[1]) < TINY * sheet.unit:
            ring(layer, _centre(box), _ring_radius(box, sheet), colour)


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _ring_radius(box: Box, sheet: Sheet) -> float:
    longest = max(box[2] - box[0], box[3] - box[1])
    return min(longest / 2 + 5 * sheet.unit, TINY * sheet.unit * 1.2)


def _number_boxes(
    layer: Image.Image, walk: Walk, boxes: list[tuple[int, Box | None]], sheet: Sheet
) -> None:
    """Put each crop's number at its box, beside numbers that stand there already."""
    radius = BADGE * sheet.unit
    spots = number_spots([box for _, box in boxes], radius, sheet.panel)
    for (index, box), spot in zip(boxes, spots, strict=True):
        if box is not None and spot is not None and not holds_number(box, radius):
            pointer(layer, spot, _centre(box), level_colour(walk.glimpses[index].level))
    for rank, ((index, _), spot) in enumerate(zip(boxes, spots, strict=True), 1):
        if spot is not None:
            badge(layer, spot, radius, rank, level_colour(walk.glimpses[index].level))


def number_spots(
    boxes: Sequence[Box | None], radius: float, panel: Box
) -> list[tuple[float, float] | None]:
    """Return where the numbers of boxes stand, so that none lies on another if there is room.

    Args:
        boxes: in the order of their importance; None is out of sight.
        radius: of a number's disc.
        panel: where the discs may be.
    """
    found: list[tuple[float, float] | None] = []
    for box in boxes:
        if box is None:
            found.append(None)
            continue
        spots = [_kept_inside(spot, radius, panel) for spot in _spots(box, radius)]
        taken = [spot for spot in found if spot is not None]
        free = (s for s in spots if all(math.dist(s, other) >= 2 * radius for other in taken))
        found.append(next(free, spots[0]))
    return found


def holds_number(box: Box, radius: float) -> bool:
    """Say whether a number fits into a box without covering what it shows."""
    return min(box[2] - box[0], box[3] - box[1]) >= 4 * radius


def _spots(box: Box, radius: float) -> list[tuple[float, float]]:
    """Return places for a number, best first: the corners of a large box, around a small one."""
    left, top, right, bottom = box
    x, y = _centre(box)
    if holds_number(box, radius):
        inset = radius * 1.3
        columns, rows = (left + inset, right - inset), (top + inset, bottom - inset)
        edges = [*((x, b) for b in rows), *((a, y) for a in columns)]
        return [*((a, b) for b in rows for a in columns), *edges, (x, y)]
    away_x, away_y = (right - left) / 2 + radius * 1.3, (bottom - top) / 2 + radius * 1.3
    around = [(-1, -1), (1, -1), (-1, 1), (1, 1), (0, -1), (0, 1), (-1, 0), (1, 0)]
    return [(x + a * r * away_x, y + b * r * away_y) for r in (1, 2, 3) for a, b in around]


def _kept_inside(spot: tuple[float, float], radius: float, panel: Box) -> tuple[float, float]:
    """Move a spot so that the number there lies on the image, or in the middle of a thin one."""
    kept = []
    for value, low, high in ((spot[0], panel[0], panel[2]), (spot[1], panel[1], panel[3])):
        small = high - low < 2 * radius
        kept.append((low + high) / 2 if small else min(max(value, low + radius), high - radius))
    return kept[0], kept[1]


def _draw_crops(
    page: Image.Image,
    layer: Image.Image,
    walk: Walk,
    pyramid: Pyramid,
    stretch: Stretch,
    shown: list[int],
    sheet: Sheet,
) -> None:
    """Show glimpses at their own resolution, each in its level's colour, with a caption."""
    if sheet.crops:
        about = f"Most for {walk.label}" if walk.label else "What was looked at"
        x, y = sheet.crops[0][:2]
        size = sheet.px(TEXT)
        about = shortened(about, size, sheet.page[0] - sheet.px(MARGIN) - x)
        write(page, (x, y - sheet.px(HEADER)), about, size)
    for rank, (index, (x, y, wide, tall)) in enumerate(zip(shown, sheet.crops, strict=True), 1):
        glimpse = walk.glimpses[index]
        region, colour = glimpse.region, level_colour(glimpse.level)
        scale = min(wide / region.width, tall / region.height)
        across, down = max(1, round(region.width * scale)), max(1, round(region.height * scale))
        top = y + (tall - down) // 2
        page.paste(stretch(pyramid.read(region, (across, down))), (x, top))
        outline(layer, (x, top, x + across, top + down), colour, sheet.px(3), 1.0)
        inset = sheet.px(BADGE + 4)
        beside = across if across < 2 * inset else 0
        spot = (x + beside + inset, min(top + inset, y + tall / 2))
        badge(layer, spot, sheet.px(BADGE), rank, colour)
        for line, text in enumerate(_caption(walk, glimpse)):
            size = sheet.px(SMALL)
            below = y + tall + sheet.px(6 + line * (SMALL + 4))
            write(page, (x, below), shortened(text, size, wide), size, (INK, FAINT)[line])


def _caption(walk: Walk, glimpse: Glimpse) -> tuple[str, str]:
    """Return what a glimpse adds to the logit, and its weight and longer side."""
    first = level_name(glimpse.level)
    if walk.label is not None:
        first = f"logit {_contribution(walk, glimpse):+.3f}"
    side = max(glimpse.region.width, glimpse.region.height)
    return first, f"weight {glimpse.weight * 100:.3g} %, {side:.0f} px"
