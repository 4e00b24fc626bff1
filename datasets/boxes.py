"""Where the evidence is, if somebody drew it: boxes as text, and masks as pictures."""

import math
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tnet.adapters import Limits, open_pyramid
from tnet.errors import DataError
from tnet.geometry import Region

_NUMBERS = 4
_MASK_SIDE = 4096  # larger masks are read this large; parts apart stay apart but for a pixel


def parse_boxes(text: str) -> tuple[Region, ...]:
    """Return boxes from "x,y,width,height", several with ";" between them.

    Raises:
        ValueError: if the text is something else, or a box is empty or left of or above the image.
    """
    return tuple(parse_box(part) for part in text.split(";") if part.strip())


def parse_box(text: str) -> Region:
    """Return one box from four numbers, apart by commas or blanks, in pixels of level 0.

    Raises:
        ValueError: as for ``parse_boxes``; its text completes "a box ...".
    """
    words = re.split(r"[,\s]+", text.strip(" ()[]"))
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != _NUMBERS or not all(map(math.isfinite, numbers)):
        raise ValueError(f"must be x,y,width,height in pixels, got {text.strip()!r}")
    x, y, width, height = numbers
    if width <= 0 or height <= 0:
        raise ValueError(f"must have a width and a height above 0, got {text.strip()!r}")
    if x + width <= 0 or y + height <= 0:
        raise ValueError(f"lies outside its image: {text.strip()!r}")
    return Region(x, y, width, height)


def mask_boxes(
    path: Path, width: int, height: int, limits: Limits | None = None
) -> tuple[Region, ...]:
    """Return the boxes around the connected parts of a mask, in pixels of level 0.

    Args:
        path: a picture of any size and format that is read here; what is not zero in any band
            is the target. Pixels that touch at a corner are connected.
        width: of the image that the mask is stretched over, in pixels of level 0.
        height: the same, down.
        limits: what the file may declare.

    Returns:
        one box a part; none where all is zero.

    Raises:
        DataError: if the mask cannot be read.
    """
    with open_pyramid(path, limits=limits) as mask:
        shrink = min(1.0, _MASK_SIDE / max(mask.width, mask.height))
        size = max(1, round(mask.width * shrink)), max(1, round(mask.height * shrink))
        pixels = mask.read(Region(0, 0, mask.width, mask.height), size, dtype=np.float32)
    seen = (np.nan_to_num(pixels) != 0).any(axis=2)
    scale_x, scale_y = width / size[0], height / size[1]
    return tuple(
        Region(x * scale_x, y * scale_y, wide * scale_x, high * scale_y)
        for x, y, wide, high in _parts(seen)
    )


def evidence(
    boxes: tuple[Region, ...], mask: Path | None, width: int, height: int
) -> tuple[Region, ...]:
    """Return all boxes of an image, those of its mask last, in pixels of level 0.

    Raises:
        DataError: if the mask cannot be read, or a box shows nothing of the image.
    """
    if mask is not None:
        boxes += mask_boxes(mask, width, height)
    check_boxes(boxes, width, height)
    return boxes


def check_boxes(boxes: tuple[Region, ...], width: int, height: int) -> None:
    """Make sure that every box shows something of an image.

    Raises:
        DataError: if one does not; its text completes "IMAGE: ...".
    """
    image = Region(0, 0, width, height)
    for box in boxes:
        if image.intersection(box) is None:
            raise DataError(
                f"the box {box.x:g},{box.y:g},{box.width:g},{box.height:g} lies outside the image "
                f"of {width} x {height} pixels; boxes are in pixels of the full resolution"
            )


def _parts(seen: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Return x, y, width and height of each connected part."""
    _, _, table, _ = cv2.connectedComponentsWithStats(seen.astype(np.uint8), connectivity=8)
    return [(int(x), int(y), int(w), int(h)) for x, y, w, h, _ in table[1:]]
