"""Which arrays of a zarr store are the levels of its image, and which axis is which."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tnet.adapters.limits import Limits
from tnet.adapters.zarr.metadata import Array, Group, Node, nodes_at
from tnet.adapters.zarr.sources import Source, joined
from tnet.errors import UnsupportedImage
from tnet.facts import is_size
from tnet.pyramid import level_scales

Size = tuple[float, float]
Rectangle = tuple[int, int, int, int]

MOST_LEVELS = 64

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
    """One array of a store, and which of its axes are y, x and bands."""

    array: Array
    axes: tuple[str, ...]

    def size(self, axis: str) -> int:
        """Return the length of an axis, 1 if there is none of that name."""
        return self.array.shape[self.axes.index(axis)] if axis in self.axes else 1

    def of_picture(self) -> list[str]:
        """Return which of y, x and c it has, in the order of the array."""
        return [axis for axis in self.axes if axis in ("y", "x", "c")]

    def tile(self) -> tuple[int, int]:
        """Return width and height of a chunk."""
        chunk = self.array.chunks
        return chunk[self.axes.index("x")], chunk[self.axes.index("y")]

    def under(self, x: int, y: int, width: int, height: int) -> list[Rectangle]:
        """Return x, y, width and height of the chunks under a window, row by row."""
        across, down = self.tile()
        right, bottom = self.size("x"), self.size("y")
        return [
            (left, top, min(across, right - left), min(down, bottom - top))
            for top in range(y // down * down, y + height, down)
            for left in range(x // across * across, x + width, across)
        ]


@dataclass(frozen=True)
class Layers:
    """The levels of an image, the finest first; ``sizes`` are OME-Zarr's pixel sizes (x, y)."""

    arrays: tuple[Layer, ...]
    sizes: tuple[Size | None, ...]
    unit: str | None
    ome: bool


def ome_layers(source: Source, key: str, image: dict[str, Any], limits: Limits) -> Layers:
    """Return the levels of an OME-Zarr image from its ``multiscales`` metadata.

    Args:
        source: the store.
        key: of the image's group.
        image: the metadata.
        limits: what the arrays may declare.

    Raises:
        UnsupportedImage: if the metadata contradicts the arrays.
    """
    given = image.get("axes")
    axes = None if given is None else tuple(a if isinstance(a, str) else a["name"] for a in given)
    layers, sizes = [], []
    if len(image["datasets"]) > MOST_LEVELS:
        raise _too_many(source.where(key), len(image["datasets"]))
    keys = [joined(key, dataset["path"], source.name) for dataset in image["datasets"]]
    arrays = nodes_at(source, keys, limits)
    for dataset, inside, array in zip(image["datasets"], keys, arrays, strict=True):
        default = tuple("tczyx"[-len(array.shape) :]) if isinstance(array, Array) else None
        layers.append(layer_of(source, inside, array, axes or default))
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


def plain_layers(source: Source, group: Group, limits: Limits) -> Layers:
    """Return the arrays of a group as levels, those named by numbers if there are such.

    Raises:
        UnsupportedImage: if there are none, or several of one size.
    """
    where = source.where(group.key)
    names = [name for name in group.listed if "/" not in name] or source.folders(group.key)
    nodes = nodes_at(source, [joined(group.key, name, where) for name in names], limits)
    both = zip(names, nodes, strict=True)
    arrays = {name: node for name, node in both if isinstance(node, Array) and len(node.shape) > 1}
    if not arrays:
        raise UnsupportedImage(f"{where} is a zarr group that holds no image array")
    levels = {name: array for name, array in arrays.items() if name.isdecimal()} or arrays
    if len(levels) > MOST_LEVELS:
        raise _too_many(where, len(levels))
    layers = [layer_of(source, array.key, array, None) for array in levels.values()]
    layers.sort(key=lambda layer: -layer.size("x") * layer.size("y"))
    widths = [layer.size("x") for layer in layers]
    if any(a <= b for a, b in pairwise(widths)):
        raise UnsupportedImage(
            f"{where} holds several arrays of one size ({', '.join(arrays)}); name one of them"
        )
    return Layers(tuple(layers), (None,) * len(layers), None, False)


def _too_many(where: str, count: int) -> UnsupportedImage:
    return UnsupportedImage(
        f"{where} says that it has {count} levels, and {MOST_LEVELS} are more than any image "
        "needs; make it again"
    )


def layer_of(source: Source, key: str, array: Node, axes: tuple[str, ...] | None) -> Layer:
    """Find out which axis of an array is which: by name, by number, or by length.

    Raises:
        UnsupportedImage: if it is no image.
    """
    where = source.where(key)
    if not isinstance(array, Array):
        what = "nothing" if array is None else "a group"
        raise UnsupportedImage(f"{where} is {what} where an array should be; mend its metadata")
    shape = array.shape
    named = axes or array.names or array.attributes.get("_ARRAY_DIMENSIONS")
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
            f"{where} has {len(shape)} axes without names; an image has two or three"
        )
    if len(axes) != len(shape) or len(set(axes)) != len(axes) or 0 in shape:
        raise UnsupportedImage(f"{where} has the shape {shape} for the axes {', '.join(axes)}")
    return Layer(array, axes)


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
