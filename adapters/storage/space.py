"""How large a store will be, and whether the disk has room for it."""

import shutil
from collections.abc import Sequence

import numpy as np

from tnet.adapters.limits import readable
from tnet.adapters.storage.building import Read
from tnet.adapters.storage.layout import Layout, Part
from tnet.adapters.storage.staging import Stage
from tnet.errors import TNetError

_SAMPLES = 4  # a side: sixteen chunks, spread over the image
_SURE = 0.5  # of the estimate: samples may miss that most of an image is blank
_SAFE = 2**20


class SpaceError(TNetError):
    """A disk that has not enough room."""

    exit_code = 6


def expected_bytes(layouts: Sequence[Layout], read: Read) -> int:
    """Return about how many bytes the levels will take, from chunks spread over the finest.

    Args:
        layouts: the levels, finest first.
        read: returns a part of the finest level, (bands, height, width).
    """
    first = layouts[0]
    _, height, width = first.shape
    down, across = min(first.chunk[0], height), min(first.chunk[1], width)
    sizes = [
        len(first.codec.encode(read(Part(x, y, across, down))))
        for y in _spread(height, down)
        for x in _spread(width, across)
    ]
    pixels = sum(layout.shape[1] * layout.shape[2] for layout in layouts)
    return int(np.mean(sizes) / (down * across) * pixels)


def check_space(stage: Stage, expected: int) -> None:
    """Make sure that the disk has room.

    Args:
        stage: where the store grows.
        expected: its bytes, about.

    Raises:
        SpaceError: if it surely has not.
    """
    free = shutil.disk_usage(stage.folder).free
    there = sum(file.size for file in stage.files.values())
    if int(expected * _SURE) - there + _SAFE > free:
        raise SpaceError(
            f"{stage.destination} needs about {readable(expected - there)} more and its disk has "
            f"{readable(free)} left; make room, or name a destination on another disk"
        )


def _spread(side: int, window: int) -> list[int]:
    """Return where windows begin that lie evenly along a side."""
    count = min(_SAMPLES, -(-side // window))
    return [round(place) for place in np.linspace(0, side - window, count)]
