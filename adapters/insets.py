"""Pictures of what lies inside glimpses: each as the network saw it, under a map in colours."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tnet.adapters.drawing import Stretch
from tnet.adapters.exports.colours import Scale
from tnet.pyramid import Pyramid
from tnet.resample import cast

_LEAST, _MOST = 256, 512  # pixels of a picture's longer side
_EVEN = 1.1  # values that differ by less than so many times do not get all of the colours


def draw_insets(
    pyramid: Pyramid,
    views: Mapping[int, NDArray[np.generic]],
    maps: Mapping[int, NDArray[np.float32]],
    title: str,
) -> dict[int, bytes]:
    """Return a PNG file for each map, by the same number; all in one scale of colours.

    The scale goes from the least to the largest value of all maps, and to a tenth more than the
    least where none is as large. A file's texts, Title and Description, say what it shows and what
    the colours mean.

    Args:
        pyramid: the image; of images other than 8-bit grey or RGB it gives the contrast.
        views: (H, W, bands), what the network was given; missing pixels are NaN.
        maps: (H, W) each, from 0 upwards.
        title: what they show.
    """
    if not maps:
        return {}
    stretch = Stretch.of(pyramid)
    low, high = (float(f(list(map(f, maps.values())))) for f in (np.min, np.max))
    scale = Scale(low, max(high, _EVEN * low))
    about = PngInfo()
    about.add_itxt("Title", title)
    first, last = scale.ends()
    about.add_itxt("Description", f"clear is {first}, yellow is {last}, in all glimpses")
    return {n: _drawn(_shown(views[n], pyramid, stretch), maps[n], scale, about) for n in maps}


def inset_texts(file: Path) -> tuple[str, str]:
    """Return what a picture shows and what its colours mean; empty where it doesn't say."""
    try:
        with Image.open(file, formats=["PNG"]) as picture:
            return str(picture.info.get("Title", "")), str(picture.info.get("Description", ""))
    except Exception:  # it is not ours, or damaged
        return "", ""


def _shown(view: NDArray[np.generic], pyramid: Pyramid, stretch: Stretch) -> Image.Image:
    """Return a view in colours; missing pixels as the image has them."""
    empty = 0.0 if pyramid.nodata is None else pyramid.nodata
    return stretch(cast(np.nan_to_num(view, nan=empty), np.dtype(pyramid.dtype)))


def _drawn(crop: Image.Image, values: NDArray[np.float32], scale: Scale, about: PngInfo) -> bytes:
    longer = max(crop.size)
    factor = min(max(longer, _LEAST), _MOST) / longer
    size = max(1, round(crop.width * factor)), max(1, round(crop.height * factor))
    page = crop.resize(size, Image.Resampling.BILINEAR).convert("RGBA")
    map_hw = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    page.alpha_composite(scale.faded(map_hw))
    file = io.BytesIO()
    page.convert("RGB").save(file, "PNG", pnginfo=about)
    return file.getvalue()
