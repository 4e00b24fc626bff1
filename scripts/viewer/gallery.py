"""Pixels for the browser: images are opened when they are asked for, and few stay open."""

import io
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal

from PIL import Image, ImageDraw

from tnet.adapters import open_pyramid
from tnet.adapters.drawing import Stretch, fitted, level_colour
from tnet.adapters.limits import Limits
from tnet.errors import DataError
from tnet.geometry import Region
from tnet.pyramid import Pyramid
from tnet.record import Walk
from tnet.scripts.viewer.cohort import Entry
from tnet.scripts.walks import check_size

Suffix = Literal["jpg", "png"]

MOST_OPEN = 4
QUALITY = 90
LEAST_BOX = 4  # pixels of a thumbnail


@dataclass
class Picture:
    """An open image.

    Attributes:
        pyramid: that is read.
        stretch: turns its values into colours.
        users: how many threads read it at the moment.
    """

    pyramid: Pyramid
    stretch: Stretch
    users: int = field(default=0)

    def show(self, region: Region, size: tuple[int, int]) -> Image.Image:
        """Return a region in colours, RGB of the given width and height."""
        return self.stretch(self.pyramid.read(region, size))


class Gallery:
    """Opens images, at most ``MOST_OPEN`` of them beside those being read.

    Args:
        limits: what a file may declare.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: OrderedDict[str, Picture] = OrderedDict()
        self._lock = Lock()

    @contextmanager
    def picture(self, entry: Entry) -> Iterator[Picture]:
        """Give an entry's image, which stays open as long as it is used.

        Raises:
            DataError: if there is none, it cannot be read, or it is another than was walked over.
        """
        with self._lock:
            picture = self._open.pop(entry.id, None) or self._opened(entry)
            self._open[entry.id] = picture
            picture.users += 1
            self._close_idle()
        try:
            yield picture
        finally:
            with self._lock:
                picture.users -= 1

    def close(self) -> None:
        """Close all images."""
        with self._lock:
            for picture in self._open.values():
                with suppress(Exception):
                    picture.pyramid.close()
            self._open.clear()

    def _opened(self, entry: Entry) -> Picture:
        if entry.image is None:
            raise DataError(entry.problem or "there is no image")
        pyramid = open_pyramid(entry.image, limits=self._limits)
        try:
            walk = entry.read()
            if walk is not None:
                check_size(pyramid, walk)
            return Picture(pyramid, Stretch.of(pyramid))
        except BaseException:
            pyramid.close()
            raise

    def _close_idle(self) -> None:
        for name in list(self._open)[:-MOST_OPEN]:
            if not self._open[name].users:
                with suppress(Exception):
                    self._open.pop(name).pyramid.close()


def thumbnail(picture: Picture, walk: Walk | None, longest: int) -> Image.Image:
    """Return an image small, with the walk's boxes on it."""
    size = fitted(picture.pyramid.width, picture.pyramid.height, longest)
    page = picture.show(Region(0, 0, picture.pyramid.width, picture.pyramid.height), size)
    draw = ImageDraw.Draw(page)
    scale = size[0] / picture.pyramid.width
    for glimpse in () if walk is None else walk.glimpses[1:]:
        region = glimpse.region
        left, top = round(region.x * scale), round(region.y * scale)
        right, bottom = round(region.right * scale) - 1, round(region.bottom * scale) - 1
        box = (left, top, max(right, left + LEAST_BOX), max(bottom, top + LEAST_BOX))
        draw.rectangle(box, outline=level_colour(glimpse.level), width=2)
    return page


def encoded(image: Image.Image, suffix: Suffix) -> bytes:
    """Return a picture as a JPEG or PNG file."""
    file = io.BytesIO()
    if suffix == "jpg":
        image.save(file, "JPEG", quality=QUALITY, subsampling=0)
    else:
        image.save(file, "PNG", compress_level=1)
    return file.getvalue()
