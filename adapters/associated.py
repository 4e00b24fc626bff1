"""The small pictures that lie beside a slide: its label, the whole glass, a thumbnail.

A label often bears a patient's name, so these are read only where somebody asks for them.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.limits import DEFAULT, Limits
from tnet.adapters.openslide import open_openslide
from tnet.adapters.tiff import is_tiff, tiff_file
from tnet.errors import DataError, UnsupportedImage

Picture = NDArray[np.uint8]

NAMES = ("label", "macro", "thumbnail")
LARGEST = 2**28  # bytes of a decoded picture; none that is real comes near

_SIDES = ("width", "height")
_GREY_OR_COLOURS = {2: (1,), 3: (2, 6)}  # axes of a picture: TIFF's photometric interpretations


def associated_of(path: Path, limits: Limits = DEFAULT) -> dict[str, Picture]:
    """Return the label, macro and thumbnail pictures of a slide by these names.

    Args:
        path: any local source that ``open_pyramid`` reads; all but slides have none.
        limits: of what the source may declare.

    Returns:
        (height, width, 3) each; those too large to be what they say are left out.

    Raises:
        DataError: if the file, or one of its pictures, is damaged.
    """
    if path.is_dir():
        return {}
    try:
        open_openslide(path, limits=limits).close()
    except UnsupportedImage:
        return _of_tiff(path, limits) if is_tiff(path) else {}
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
    return _of_slide(path)


def _of_slide(path: Path) -> dict[str, Picture]:
    import openslide

    pictures = {}
    with openslide.OpenSlide(path) as slide:
        # By iteration: a look-up would decode the picture.
        for name in [name for name in slide.associated_images if name in NAMES]:
            sides = (slide.properties[f"openslide.associated.{name}.{s}"] for s in _SIDES)
            width, height = (int(side) for side in sides)
            if width * height * 4 > LARGEST:
                continue
            try:
                pictures[name] = _on_white(slide.associated_images[name])
            except openslide.OpenSlideError as error:
                raise _damaged(path, name, error) from error
    return pictures


def _of_tiff(path: Path, limits: Limits) -> dict[str, Picture]:
    """Read the pictures by the names that tifffile, or OME-XML, gives them."""
    pictures = {}
    name = "pictures"
    try:
        with tiff_file(path, limits) as tiff:
            for series in tiff.series[1:]:
                name = series.name.strip().lower()
                if name in NAMES and _is_picture(series):
                    pixels = series.asarray()
                    pictures[name] = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, -1)
    except Exception as error:  # a foreign index can break a parser in any way
        raise _damaged(path, name, error) from error
    return pictures


def _is_picture(series: Any) -> bool:
    """Say whether a series is one page of grey or coloured bytes, of a bearable size."""
    page = series.pages[0].keyframe
    return (
        len(series.pages) == 1
        and series.dtype == np.uint8
        and int(page.photometric) in _GREY_OR_COLOURS.get(len(series.shape), ())
        and (len(series.shape) == 2 or (series.axes == "YXS" and series.shape[2] == 3))
        and max(series.nbytes, int(np.prod(page.chunks))) <= LARGEST
    )


def _on_white(image: Any) -> Picture:
    """Lay a picture with transparency on white."""
    from PIL import Image

    canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(canvas, image).convert("RGB"))


def _damaged(path: Path, name: str, error: Exception) -> DataError:
    return DataError(f"{path} holds a damaged {name} ({error}); go without it, or copy it again")
