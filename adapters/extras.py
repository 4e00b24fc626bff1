"""What a source carries beside its pixels: names and colours of channels, and a colour profile.

Metadata of foreign programs can be odd in any way: what makes no sense is left out, in silence.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from xml.etree import ElementTree

import numpy as np

from tnet.adapters.limits import DEFAULT, Limits
from tnet.adapters.links.reading import is_link, source_of
from tnet.adapters.opening import open_pyramid
from tnet.adapters.tiff import is_tiff, tiff_file
from tnet.adapters.zarr.metadata import Array, Group, node_at
from tnet.adapters.zarr.sources import Folder, joined
from tnet.adapters.zarr.windows import all_of
from tnet.pyramid import Pyramid

ICC_PROFILE = "icc_profile"  # the array of a zarr group that holds one
LONGEST_PROFILE = 2**24  # bytes

_LONGEST_XML = 2**26  # characters; an OME-TIFF of a million planes has less
_LONGEST_NAME = 256
_RGB = (("R", "FF0000"), ("G", "00FF00"), ("B", "0000FF"))
_GREY = (0, 1)  # TIFF's photometric interpretations of which none is a colour
_ICC_TAG, _GDAL_TAG = 34675, 42112
_BYTES = (1, 7)  # TIFF's types of bytes
_NESTED = 4  # groups in groups before the one that holds an image
_COLOUR_SPACES = {1: b"GRAY", 3: b"RGB "}

Named = list[tuple[str | None, str | None]]  # what a file says of each channel: name and colour
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Channel:
    """One band: its name, and the colour "RRGGBB" to show it in, if the source has one."""

    name: str
    colour: str | None


@dataclass(frozen=True)
class Extras:
    """What a source carries beside its pixels.

    Attributes:
        channels: one for every band, or none where the source does not name them.
        icc: the ICC profile that says what the pixels' colours look like.
    """

    channels: tuple[Channel, ...]
    icc: bytes | None


def extras_of(path: Path, pyramid: Pyramid | None = None, limits: Limits = DEFAULT) -> Extras:
    """Return what a file or a zarr folder carries beside its pixels.

    Args:
        path: any local source that ``open_pyramid`` reads.
        pyramid: the source, if it is open already; it stays so.
        limits: of what the source may declare.

    Raises:
        DataError: if the source cannot be opened.
    """
    if path.is_dir() and is_link(path):
        return extras_of(source_of(path), None, limits)
    opened = open_pyramid(path, limits=limits) if pyramid is None else pyramid
    try:
        named, icc, rgb = _found(path, opened, limits)
        rgb = rgb and opened.bands == 3 and opened.dtype == np.dtype(np.uint8)
        return Extras(_channels(named, opened.bands, rgb), _fitting(icc, opened.bands))
    finally:
        if pyramid is None:
            opened.close()


def _found(path: Path, opened: Pyramid, limits: Limits) -> tuple[Named, bytes | None, bool]:
    """Return what a source names its channels, its profile, and whether three are colours."""
    if path.is_dir():
        rgb = opened.crs is None and opened.transform is None
        return *(_quietly(_of_zarr, path, limits) or ([], None)), rgb
    if opened.format.startswith("OpenSlide"):
        return [], _quietly(_openslide_profile, path), True
    if is_tiff(path):
        return _quietly(_of_tiff, path, limits) or ([], None, False)
    return [], _quietly(_picture_profile, path, opened.format), True


def _quietly(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    try:
        return read(*args, **kwargs)
    except Exception:  # foreign metadata can break a parser in any way
        return None


def _channels(named: Named, bands: int, rgb: bool) -> tuple[Channel, ...]:
    """Return a channel for every band; what has no name is numbered from 0."""
    if len(named) != bands or not any(any(pair) for pair in named):
        named = list(_RGB) if rgb else []
    usual = [colour for _, colour in _RGB] if rgb else [None] * len(named)
    return tuple(
        Channel((name or str(index)).strip()[:_LONGEST_NAME], colour or usual[index])
        for index, (name, colour) in enumerate(named)
    )


def _fitting(icc: bytes | None, bands: int) -> bytes | None:
    """Return a profile if it is one, and of the colours that the reader gives.

    Readers turn CMYK into RGB, for one; the file's profile then speaks of other numbers.
    """
    if icc is None or not 128 <= len(icc) <= LONGEST_PROFILE or icc[36:40] != b"acsp":
        return None
    return icc if icc[16:20] == _COLOUR_SPACES.get(bands) else None


def _of_zarr(path: Path, limits: Limits) -> tuple[Named, bytes | None]:
    source = Folder(path, checked=False)
    group = _image_group(source, limits)
    named = _quietly(_omero_channels, dict(group.attributes)) or []
    return named, _quietly(_zarr_profile, source, joined(group.key, ICC_PROFILE, path.name), limits)


def _image_group(source: Folder, limits: Limits) -> Array | Group:
    """Return the group of an image; in a collection that is the first one, "0"."""
    node = node_at(source, "", limits)
    for _ in range(_NESTED):
        inner = node and node_at(source, joined(node.key, "0", source.name), limits)
        if not isinstance(inner, Group):
            break
        node = inner
    if node is None:
        raise KeyError
    return node


def _omero_channels(attributes: dict[str, Any]) -> Named:
    """Return the channels of OME-Zarr 0.5, or of 0.4, where they stand one floor higher."""
    channels = attributes.get("ome", attributes)["omero"]["channels"]
    return [(_text(c.get("label")), _colour(c.get("color"))) for c in channels]


def _zarr_profile(source: Folder, key: str, limits: Limits) -> bytes | None:
    array = node_at(source, key, limits)
    if not isinstance(array, Array) or len(array.shape) != 1 or array.dtype != np.uint8:
        return None
    if max(*array.shape, *array.chunks, *array.files) > LONGEST_PROFILE:
        return None
    return all_of(source, array).tobytes()


def _openslide_profile(path: Path) -> bytes | None:
    from openslide import lowlevel

    # The class of higher level hands out Pillow's edition of the profile, not its bytes.
    slide = lowlevel.open(str(path))
    try:
        size = int(lowlevel.get_property_value(slide, "openslide.icc-size") or 0)
        return lowlevel.read_icc_profile(slide) if 0 < size <= LONGEST_PROFILE else None
    finally:
        lowlevel.close(slide)


def _picture_profile(path: Path, kind: str) -> bytes | None:
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    # Image.open would refuse the largest pictures, of which only the header is read here.
    plugins: dict[str, Callable[[Path], Any]] = {
        "PNG": PngImagePlugin.PngImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
    }
    with plugins[kind](path) as image:
        profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) else None


def _of_tiff(path: Path, limits: Limits) -> tuple[Named, bytes | None, bool]:
    with tiff_file(path, limits) as tiff:
        page: Any = tiff.series[0].levels[0].pages[0]
        page = page.keyframe
        found = (_quietly(read, tiff, page) for read in (_of_ome, _of_gdal, _of_imagej))
        named: Named = next((pairs for pairs in found if pairs), [])
        return named, _quietly(_tiff_profile, page), int(page.photometric) not in _GREY


def _tiff_profile(page: Any) -> bytes | None:
    tag = page.tags.get(_ICC_TAG)
    # The length first: the value is read from the file when it is asked for.
    if tag is None or tag.count > LONGEST_PROFILE or int(tag.dtype) not in _BYTES:
        return None
    return bytes(tag.value)


def _of_ome(tiff: Any, page: Any) -> Named:
    """Return the channels of the first picture in OME-XML; colours are RGBA, signed 32-bit."""
    if not tiff.is_ome:
        return []
    pixels = next(_elements(_xml(tiff.ome_metadata), "Pixels"))
    return [
        (_text(channel.get("Name")), _quietly(_rgba, channel.get("Color")))
        for channel in _elements(pixels, "Channel")
    ]


def _rgba(text: Any) -> str:
    return f"{(int(text) & 0xFFFFFFFF) >> 8:06X}"


def _of_gdal(tiff: Any, page: Any) -> Named:
    """Return what GDAL wrote down as the bands' descriptions."""
    tag = page.tags.get(_GDAL_TAG)
    if tag is None or tag.count > _LONGEST_XML:
        return []
    items = [
        (int(item.get("sample", 0)), _text(item.text))
        for item in _elements(_xml(str(tag.value).strip("\0 ")), "Item")
        if item.get("name") == "DESCRIPTION" and "sample" in item.attrib
    ]
    described = dict(items)
    return [(described.get(band), None) for band in range(page.samplesperpixel)]


def _of_imagej(tiff: Any, page: Any) -> Named:
    """Return ImageJ's labels; with more planes than channels there are too many, which shows."""
    labels = (tiff.imagej_metadata or {}).get("Labels", ()) if tiff.is_imagej else ()
    return [(_text(label), None) for label in labels]


def _xml(text: str) -> ElementTree.Element:
    """Parse XML that declares nothing of its own, such as an entity that grows when expanded."""
    if len(text) > _LONGEST_XML or "<!DOCTYPE" in text:
        raise ValueError
    return ElementTree.fromstring(text)


def _elements(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (element for element in root.iter() if element.tag.rpartition("}")[2] == name)


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _colour(value: Any) -> str | None:
    found = re.fullmatch(r"#?([0-9A-Fa-f]{6})", value) if isinstance(value, str) else None
    return found[1].upper() if found else None
