"""GIF: the walk glimpse by glimpse, for slides and pages."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tnet.adapters.drawing import INK, PAPER, Colour, level_colour
from tnet.adapters.exports.picture import boxes_layer, ground, page_for, sheet_for
from tnet.pyramid import Pyramid
from tnet.record import Walk

_SIDE = 640  # of the image, in pixels
_MOST = 48  # frames; of longer walks several glimpses come at once
_STEP, _END = 350, 2500  # milliseconds
_COLOURS = 255  # of all frames together
_WEIGHT = 16  # of a pixel of a frame, among the image's, where colours are chosen


def export(walk: Walk, pyramid: Pyramid | None = None) -> bytes:
    """Return the walk as an animated GIF that repeats.

    Args:
        walk: the record.
        pyramid: the image; None draws a plain ground.
    """
    sheet = sheet_for(walk, _SIDE)
    page = page_for(walk, sheet)
    shown = ground(walk, pyramid, (sheet.panel[2], sheet.panel[3])).convert("RGBA")
    pages = []
    for count in _counts(len(walk.glimpses)):
        layer = boxes_layer(walk, sheet, count)
        page.paste(Image.alpha_composite(shown, layer).convert("RGB"), (0, 0))
        pages.append(np.array(page))
    boxes = np.asarray(boxes_layer(walk, sheet))[..., 3] > 0
    exact = [INK, PAPER, *(level_colour(n) for n in sorted({g.level for g in walk.glimpses}))]
    exact = list(dict.fromkeys(exact))
    palette = _palette(pages[-1], boxes, exact)
    frames = [_indexed(each, palette, exact) for each in pages]
    durations = [_STEP] * (len(frames) - 1) + [_END]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return file.getvalue()


def _palette(page: NDArray[np.uint8], boxes: NDArray[np.bool_], exact: list[Colour]) -> Image.Image:
    """Return a picture with the colours of all frames: the exact ones, and those of the last page.

    Args:
        page: the last, (height, width, 3), with all glimpses.
        boxes: where on the image their lines are, (height, width) of the image.
        exact: colours that are wanted as they are.
    """
    image = page[: boxes.shape[0], : boxes.shape[1]]
    # Lines are few pixels, and would be left out.
    drawn = np.tile(image[boxes], (_WEIGHT, 1))
    pixels = np.concatenate([page.reshape(-1, 3), drawn])[None]
    found = Image.fromarray(pixels).quantize(_COLOURS - len(exact), Image.Quantize.MEDIANCUT)
    picture = Image.new("P", (1, 1))
    picture.putpalette(bytes(value for colour in exact for value in colour) + _bytes(found))
    return picture


def _bytes(picture: Image.Image) -> bytes:
    return bytes(picture.getpalette() or ())


def _indexed(page: NDArray[np.uint8], palette: Image.Image, exact: list[Colour]) -> Image.Image:
    """Return a page in the palette's colours; Pillow alone takes near ones for exact ones."""
    index = np.array(
        Image.fromarray(page).quantize(palette=palette, dither=Image.Dither.NONE), np.uint8
    )
    for number, colour in enumerate(exact):
        index[(page == colour).all(axis=2)] = number
    picture = Image.fromarray(index)
    picture.putpalette(_bytes(palette))
    return picture


def _counts(glimpses: int) -> list[int]:
    """Return how many glimpses each frame shows; the last one all of them."""
    step = -(-glimpses // _MOST)
    return [*range(1, glimpses, step), glimpses]
