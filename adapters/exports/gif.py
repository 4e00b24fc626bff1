"""GIF: the walk glimpse by glimpse, for slides and pages."""

import io

from PIL import Image

from tnet.adapters.exports.picture import boxes_layer, ground, page_for, sheet_for
from tnet.pyramid import Pyramid
from tnet.record import Walk

_SIDE = 640  # of the image, in pixels
_MOST = 48  # frames; of longer walks several glimpses come at once
_STEP, _END = 350, 2500  # milliseconds


def export(walk: Walk, pyramid: Pyramid | None = None) -> bytes:
    """Return the walk as an animated GIF that repeats.

    Args:
        walk: the record.
        pyramid: the image; None draws a plain ground.
    """
    sheet = sheet_for(walk, _SIDE)
    page = page_for(walk, sheet)
    shown = ground(walk, pyramid, (sheet.panel[2], sheet.panel[3])).convert("RGBA")
    frames = []
    for count in _counts(len(walk.glimpses)):
        frame = shown.copy()
        frame.alpha_composite(boxes_layer(walk, sheet, count))
        page.paste(frame.convert("RGB"), (0, 0))
        frames.append(page.quantize(255, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))
    durations = [_STEP] * (len(frames) - 1) + [_END]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return file.getvalue()


def _counts(glimpses: int) -> list[int]:
    """Return how many glimpses each frame shows; the last one all of them."""
    step = -(-glimpses // _MOST)
    return [*range(1, glimpses, step), glimpses]
