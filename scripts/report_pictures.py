"""The pictures of a report: the image small, and every glimpse as the model saw it.

Glimpses come from the pixels that were kept, else from the image. Without either there are none,
and a sentence says why.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from tnet.adapters.drawing import PAPER, Stretch, fitted
from tnet.errors import DataError, one_line
from tnet.geometry import Region
from tnet.record import Walk
from tnet.replaying import Pixels
from tnet.scripts.viewer.cohort import Entry
from tnet.scripts.walks import image_if_there

if TYPE_CHECKING:
    from tnet.pyramid import Pyramid

LONGEST = 1200  # pixels of the image's longer side
INSET = 160  # of a soft-attention inset's

# Bytes of pictures, which base64 makes a third larger: a report of 40 glimpses stays below 2 MB.
MOST_GROUND = 300_000
_MOST_CROPS, _LEAST_CROP = 740_000, 9_000
_MOST_INSET = 4_000
_QUALITIES = (90, 82, 72, 60, 45)


@dataclass(frozen=True)
class Pictures:
    """What there is to be seen of a walk.

    Attributes:
        ground: the whole image, RGB, at most ``LONGEST`` pixels a side.
        crops: JPEG files, by the number of their glimpse.
        insets: what counts inside the glimpses, likewise.
        inside: what the insets show, in their own words.
        pixels: what was kept of the walk.
        source: where the crops come from, in one sentence.
        problem: what cannot be shown, and why, as a sentence.
    """

    ground: Image.Image | None
    crops: dict[int, bytes]
    insets: dict[int, bytes]
    inside: str
    pixels: Pixels | None
    source: str
    problem: str | None = None


def pictures_of(walk: Walk, entry: Entry, folder: Path | None, shown: Sequence[int]) -> Pictures:
    """Return the pictures of a walk.

    Args:
        walk: the record.
        entry: names its file.
        folder: where to look for the image first.
        shown: the numbers of the glimpses that are wanted.
    """
    assert entry.walk is not None, "an entry of a report has a walk"
    kept, trouble = _kept(walk, entry.walk)
    seen = None if kept is None else _Seen(walk, kept)
    most = max(_LEAST_CROP, _MOST_CROPS // max(1, len(shown)))
    insets, inside = _insets(entry, shown)
    crops = {} if seen is None else {i: jpeg(seen.picture(i), most) for i in shown}
    pyramid = image_if_there(walk, entry.walk, folder)
    if not isinstance(pyramid, str):
        try:
            whole = Region(0, 0, walk.width, walk.height)
            view = pyramid.read(whole, fitted(walk.width, walk.height, LONGEST))
            stretch = Stretch(view, pyramid.nodata)
            if seen is None:
                crops = {i: jpeg(_read(walk, pyramid, stretch, i), most) for i in shown}
            source = _FROM_IMAGE if seen is None else _FROM_PIXELS
            left = (
                None if trouble is None else f"The pixels that were kept are not shown: {trouble}."
            )
            return Pictures(stretch(view), crops, insets, inside, kept, source, left)
        except Exception as error:  # decoders of damaged files fail in many ways
            problem = f"{walk.image} cannot be read: {one_line(error)}"
        finally:
            pyramid.close()
    else:
        problem = pyramid
    if seen is None:
        both = "; ".join(filter(None, (problem, trouble)))
        return Pictures(None, {}, insets, inside, None, "", f"The image is not shown: {both}.")
    about = f"The image is shown as the first look saw it: {problem}."
    return Pictures(seen.ground(), crops, insets, inside, kept, _FROM_PIXELS, about)


_FROM_PIXELS = "Glimpses are shown from the pixels that were kept, as the network was given them."
_FROM_IMAGE = "Glimpses are read from the image again, in the size at which they were looked at."


def _read(walk: Walk, pyramid: "Pyramid", stretch: Stretch, index: int) -> Image.Image:
    return stretch(pyramid.read(walk.glimpses[index].region, own_size(walk, index)))


def own_size(walk: Walk, index: int) -> tuple[int, int]:
    """Return the size at which a glimpse was looked at, in the shape of its region.

    A view may be square where its region is not; then its coarser side is stretched.
    """
    view = walk.view if index or walk.first_view is None else walk.first_view
    region = walk.glimpses[index].region
    scale = max(view[0] / region.width, view[1] / region.height)
    return max(1, round(region.width * scale)), max(1, round(region.height * scale))


@dataclass
class _Seen:
    """Pixels that were kept, as pictures."""

    walk: Walk
    kept: Pixels
    stretch: Stretch = field(init=False)

    def __post_init__(self) -> None:
        first = self.kept.first if len(self.kept.first) else self.kept.views
        self.stretch = Stretch(first[0], None)

    def picture(self, index: int) -> Image.Image:
        """Return a glimpse that the network looked at."""
        view = self.kept.views[index - 1] if index else self.kept.first[0]
        return self.stretch(view).resize(own_size(self.walk, index))

    def ground(self) -> Image.Image | None:
        """Return the image as the first look showed it; None if there was none."""
        if not len(self.kept.first):
            return None
        walk = self.walk
        size = fitted(walk.width, walk.height, LONGEST)
        page = Image.new("RGB", size, PAPER)
        region = walk.glimpses[0].region
        across, down = size[0] / walk.width, size[1] / walk.height
        view = self.stretch(self.kept.first[0])
        shown = view.resize((round(region.width * across), round(region.height * down)))
        page.paste(shown, (round(region.x * across), round(region.y * down)))
        return page


def _kept(walk: Walk, file: Path) -> tuple[Pixels | None, str | None]:
    """Return the pixels that were kept of a walk, or why those that are there are none of its."""
    path = file.parent.parent / "pixels" / f"{file.stem}.npz"
    try:
        kept = Pixels.from_bytes(path.read_bytes())
    except OSError:
        return None, None
    except DataError as error:
        return None, f"{path}: {error}"
    wanted = (walk.first_view != (0, 0), len(walk.glimpses) - 1)
    if (len(kept.first), len(kept.views)) != wanted:
        return None, f"{path}: these are the pixels of another walk"
    return kept, None


def _insets(entry: Entry, shown: Sequence[int]) -> tuple[dict[int, bytes], str]:
    """Return the pictures of glimpses' insides that were written beside the walk, made small.

    And what they show: a PNG file may say so in its texts Title and Description.
    """
    found: dict[int, bytes] = {}
    about = ""
    for index in shown:
        file = entry.inset(index)
        if file is None:
            continue
        try:
            with Image.open(file) as picture:
                texts = [picture.info.get(name) for name in ("Title", "Description")]
                small = picture.convert("RGB")
        except Exception:  # it is a picture of somebody else's, and may be anything
            continue
        about = about or ": ".join(str(text) for text in texts if text)
        small.thumbnail((INSET, INSET))
        found[index] = jpeg(small, _MOST_INSET)
    return found, about or "what the network attended to"


def jpeg(picture: Image.Image, most: int) -> bytes:
    """Return a picture as a JPEG file of at most so many bytes: less exact, then smaller."""
    while True:
        for quality in _QUALITIES:
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality, optimize=True)
            content = file.getvalue()
            if len(content) <= most or max(picture.size) < 16:
                return content
        picture = picture.resize((max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4)))


def smaller(content: bytes, longest: int) -> bytes:
    """Return a JPEG file with so many pixels on its longer side, or as it is if it has fewer."""
    with Image.open(io.BytesIO(content)) as picture:
        if max(picture.size) <= longest:
            return content
        picture.thumbnail((longest, longest))
        return jpeg(picture, _LEAST_CROP)


def png(picture: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
