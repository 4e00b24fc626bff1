"""OME-XML, the text in an OME-TIFF: how large a pixel is, and what a reader must not fall for.

The text may name other files to be opened, and any number of planes to make room for.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tnet.adapters.directories import MAGIC, check_directories
from tnet.adapters.limits import DEFAULT, Limits
from tnet.errors import UnsupportedImage

_PLANE_COST = 2**12  # bytes of memory, from above
_MOST = 2**60
_PLANES = ("SizeZ", "SizeC", "SizeT")


def check_ome(path: Path, xml: str, limits: Limits = DEFAULT) -> None:
    """Refuse OME-XML that asks for more than the limits allow, or for files elsewhere.

    Args:
        path: of the file that holds it.
        xml: the text.
        limits: what it may declare.

    Raises:
        OverLimit: if it lists too many planes.
        UnsupportedImage: if it names files outside of its folder.
        DataError: if another file of the image is no better.
        ElementTree.ParseError: if it is no XML.
    """
    root = ElementTree.fromstring(xml)
    planes = int(min(_MOST, sum(_planes(root))))
    limits.check_whole(str(path), f"its OME-XML lists {planes} planes", planes * _PLANE_COST)
    for name in sorted(_other_files(root) - {path.name, path.resolve().name}):
        other = path.parent / name
        if Path(name).name != name or (other.exists() and not other.is_file()):
            raise UnsupportedImage(
                f"{path} is one part of an OME-TIFF of several files, of which one would lie "
                f"elsewhere ({name!r}); merge them into one"
            )
        if other.exists():
            with other.open("rb") as file:
                tiff = file.read(4) in MAGIC
            if tiff:
                check_directories(other, limits)


def pixel_size(xml: str) -> tuple[tuple[float, float] | None, str | None]:
    """Return the physical size of a pixel of the first picture, x and y, and its unit."""
    for element in ElementTree.fromstring(xml).iter():
        if _name(element) == "Pixels":
            x, y = element.get("PhysicalSizeX"), element.get("PhysicalSizeY")
            unit = element.get("PhysicalSizeXUnit", "µm").replace("\u03bc", "\u00b5")
            return ((_number(x), _number(y)), unit) if x and y else (None, None)
    return None, None


def _planes(root: ElementTree.Element) -> Iterator[float]:
    """Give how many planes each element makes room for."""
    for element in root.iter():
        name = _name(element)
        if name == "Pixels":
            sides = [max(1.0, _count(element.get(side, "1"))) for side in _PLANES]
            yield sides[0] * sides[1] * sides[2]
        elif name == "TiffData":
            yield max(0.0, *(_count(element.get(key, "0")) for key in ("NumPlanes", "PlaneCount")))
        elif name.startswith("ModuloAlong"):
            start, end = _count(element.get("Start", "0")), _count(element.get("End", "0"))
            step = abs(_count(element.get("Step", "1"))) or 1.0
            yield abs(end - start) / step


def _other_files(root: ElementTree.Element) -> set[str]:
    """Return the names of the files that hold planes which are not in this one."""
    own = root.get("UUID")
    return {
        element.get("FileName", "")
        for element in root.iter()
        if _name(element) == "UUID" and element.get("FileName") and element.text != own
    }


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _count(text: str) -> float:
    """Return a number, far too many where it is none that counts."""
    number = _number(text)
    return number if abs(number) < _MOST else float(_MOST)


def _number(text: str) -> float:
    """Return a number, NaN where there is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
