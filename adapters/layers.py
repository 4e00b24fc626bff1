"""Which arrays of a zarr store are the levels of its image, and which axis is which."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tnet.errors import UnsupportedImage
from tnet.facts import is_size
from tnet.pyramid import level_scales

Size = tuple[float, float]

_NAMES = {
    "x": ("x", "lon", "longitude", "easting", "column", "col", "width"),
    "y": ("y", "lat", "latitude", "northing", "row", "height"),
    "c": ("c", "channel", "channels", "band", "bands", "s", "sample", "samples", "rgb"),
}
_UNITS = {
    "micrometer": "µm", "micrometre": "µm", "micron": "µm", "um": "µm", "nanometer": "nm",
    "nanometre": "nm", "millimeter": "mm", "millimetre": "mm", "centimeter": "cm",
    "centimetre": "cm", "meter": "metre", "m": "metre",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One array of a store: where it is, and which of its axes are y, x and bands."""

    path: Path
    array: Any
    axes: tuple[str, ...]

    def size(self, axis: str) -> int:
        """Return the length of an axis, 1 if there is none of that name."""
        return int(self.array.shape[self.axes.index(axis)]) if axis in self.axes else 1

    def tile(self) -> tuple[int, int]:
        """Return width and height of a chunk."""
        chunk = self.array.chunks
        return int(chunk[self.axes.index("x")]), int(chunk[self.axes.index("y")])


@dataclass(frozen=True)
class Layers:
    """The levels of an image, the finest first; ``sizes`` are OME-Zarr's pixel sizes (x, y)."""

    arrays: tuple[Layer, ...]
    sizes: tuple[Size | None, ...]
    unit: str | None
    ome: bool


def ome_layers(path: Path, group: Any, image: dict[str, Any]) -> Layers:
    """Return the levels of an OME-Zarr image from its ``multiscales`` metadata.

    Raises:
        UnsupportedImage: if the metadata contradicts the arrays.
    """
    given = image.get("axes")
    axes = None if given is None else tuple(a if isinstance(a, str) else a["name"] for a in given)
    layers, sizes = [], []
    for dataset in image["datasets"]:
        inside = path_inside(path, dataset["path"])
        array = group[dataset["path"]]
        layers.append(layer_of(inside, array, axes or tuple("tczyx"[-array.ndim :])))
        steps = [*dataset.get("coordinateTransformations", ())]
        steps += image.get("coordinateTransformations", ())
        sizes.append(_pixel_size(steps, layers[-1].axes))
    units = [a.get("unit") for a in given or () if isinstance(a, dict) and a["name"] == "x"]
    unit = str(units[0]) if units and units[0] else None
    return Layers(tuple(layers), tuple(sizes), _UNITS.get(unit or "", unit), True)


def _pixel_size(steps: Sequence[dict[str, Any]], axes: tuple[str, ...]) -> Size | None:
    """Return the size of a pixel, x and y, from OME-Zarr's transformations."""
    scales = [step["scale"] for step in steps if step.get("type") == "scale"]
    if not scales:
        return None
    total = np.prod(np.asarray(scales, float), axis=0)
    return float(total[axes.index("x")]), float(total[axes.index("y")])


def plain_layers(path: Path, group: Any) -> Layers:
    """Return the arrays of a group as levels, those named by numbers if there are such.

    Raises:
        UnsupportedImage: if there are none, or several of one size.
    """
    arrays = [(name, array) for name, array in group.arrays() if array.ndim > 1]
    if not arrays:
        raise UnsupportedImage(f"{path} is a zarr group that holds no image array")
    numbered = [(name, array) for name, array in arrays if name.isdecimal()]
    layers = [layer_of(path_inside(path, name), array, None) for name, array in numbered or arrays]
    layers.sort(key=lambda layer: -layer.size("x") * layer.size("y"))
    widths = [layer.size("x") for layer in layers]
    if any(a <= b for a, b in pairwise(widths)):
        names = ", ".join(name for name, _ in arrays)
        raise UnsupportedImage(
            f"{path} holds several arrays of one size ({names}); name one of them"
        )
    return Layers(tuple(layers), (None,) * len(layers), None, False)


def path_inside(root: Path, name: str) -> Path:
    """Return where an array of a store lies.

    Raises:
        UnsupportedImage: if it would lie outside of the store.
    """
    parts = PurePosixPath(name)
    path = root / parts
    inside = path.resolve().is_relative_to(root.resolve())
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or not inside:
        raise UnsupportedImage(f"{root} names a level outside of itself ({name!r}); mend its paths")
    return path


def layer_of(path: Path, array: Any, axes: tuple[str, ...] | None) -> Layer:
    """Find out which axis of an array is which: by name, by number, or by length.

    Raises:
        UnsupportedImage: if it is no image.
    """
    if not hasattr(array, "shape"):
        raise UnsupportedImage(f"{path} is a group where an array should be; mend its metadata")
    shape = array.shape
    named = axes or getattr(array.metadata, "dimension_names", None)
    named = named or array.attrs.get("_ARRAY_DIMENSIONS")
    if named and len(named) == len(shape) and None not in named:
        axes = tuple(_axis(str(name)) for name in named)
    if axes and "x" in axes and "y" in axes:
        pass
    elif len(shape) == 2:
        axes = ("y", "x")
    elif len(shape) == 3:
        axes = ("y", "x", "c") if shape[-1] <= shape[0] else ("c", "y", "x")
    else:
        raise UnsupportedImage(
            f"{path} has {len(shape)} axes without names; an image has two or three"
        )
    if len(axes) != len(shape) or len(set(axes)) != len(axes) or 0 in (*shape, *array.chunks):
        raise UnsupportedImage(f"{path} has the shape {shape} for the axes {', '.join(axes)}")
    return Layer(path, array, axes)


def _axis(name: str) -> str:
    """Return x, y or c for the names that mean these; other names as they are."""
    return next((axis for axis, names in _NAMES.items() if name.lower() in names), name)


def level_scale(
    layer: Layer, full: tuple[int, int], base: Size | None, own: Size | None
) -> tuple[float, float]:
    """Return a level's scale from the metadata, or from its size where that contradicts."""
    size = (layer.size("x"), layer.size("y"))
    if base and own and is_size(base) and is_size(own):
        scales = (own[0] / base[0], own[1] / base[1])
        if all(abs(f / s - p) < 1 for f, s, p in zip(full, scales, size, strict=True)):
            return scales
    return level_scales(full, size)
