"""What pictures of a walk share: the image or a plain ground, the page, the boxes."""

from PIL import Image

from tnet.adapters.drawing import PAPER, Colour, Stretch
from tnet.adapters.footer import draw_footer
from tnet.adapters.overlay import draw_boxes
from tnet.adapters.sheet import GAP, MARGIN, NARROWEST, TEXT, TITLE, Sheet, on_page
from tnet.geometry import Region
from tnet.pyramid import Pyramid
from tnet.record import Walk

_GROUND: Colour = (236, 236, 238)


def ground(walk: Walk, pyramid: Pyramid | None, size: tuple[int, int]) -> Image.Image:
    """Return the whole image, RGB; a plain ground where the image is not there."""
    if pyramid is None:
        return Image.new("RGB", size, _GROUND)
    view = pyramid.read(Region(0, 0, walk.width, walk.height), size)
    return Stretch(view, pyramid.nodata)(view)


def sheet_for(walk: Walk, side: int, extra: int = 0) -> Sheet:
    """Return a page with the image at its upper left corner and the text below.

    Args:
        walk: of the image.
        side: longer side of the image on the page, in pixels.
        extra: rows of text between the image and the footer.
    """
    scale = side / max(walk.width, walk.height)
    across, down = max(1, round(walk.width * scale)), max(1, round(walk.height * scale))
    unit = min(4.0, max(0.75, side / 1024))
    footer = down + round((GAP + extra * (TEXT + GAP)) * unit)
    page_width = max(across, round(NARROWEST * unit))
    page_height = footer + round((TITLE + 2 * TEXT + 3 * GAP + MARGIN / 2) * unit)
    return Sheet(unit, (page_width, page_height), (0, 0, across, down), (), footer)


def page_for(walk: Walk, sheet: Sheet) -> Image.Image:
    """Return an empty page with its footer: scale bar, levels, result, cost."""
    page = Image.new("RGB", sheet.page, PAPER)
    draw_footer(page, walk, sheet)
    return page


def boxes_layer(walk: Walk, sheet: Sheet, shown: int | None = None) -> Image.Image:
    """Return the glimpses' frames as RGBA, as large as the image on the page.

    Args:
        walk: the record.
        sheet: the page.
        shown: how many glimpses, from the first on; None for all.
    """
    layer = Image.new("RGBA", (sheet.panel[2], sheet.panel[3]), (0, 0, 0, 0))
    size = (walk.width, walk.height)
    boxes = [on_page(glimpse.region, size, sheet) for glimpse in walk.glimpses]
    if shown is not None:
        boxes[shown:] = [None] * (len(boxes) - shown)
    draw_boxes(layer, walk, boxes, sheet)
    return layer
