"""Whether the metadata of a store makes sense: OME-Zarr 0.4 and 0.5, zarr v2 and v3.

Source: the two OME-Zarr specifications, of them what a reader of pixels depends on.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from tnet.adapters.limits import Limits, OverLimit
from tnet.adapters.storage.findings import Fault, Stored, picture_axes
from tnet.adapters.zarr.metadata import Array, Group, node_at
from tnet.adapters.zarr.sources import Source, joined
from tnet.errors import DataError

MARKS = ("zarr.json", ".zarray", ".zgroup")

_FORMATS = {"0.4": 2, "0.5": 3}  # versions of OME-Zarr that are checked, and of zarr under them
_KINDS = {"time": 0, "channel": 1, "space": 2}  # of axes, in their order
_FEWEST, _MOST = 2, 5  # axes


@dataclass
class Structure:
    """What the metadata of a store says.

    Attributes:
        arrays: by their folder in the store.
        faults: of the metadata.
        notes: on it.
        attributes: of the whole store.
    """

    arrays: dict[str, Stored] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    attributes: Mapping[str, Any] = field(default_factory=dict)


def structure_of(source: Source, files: Sequence[str], limits: Limits) -> Structure:
    """Read and check all metadata of a store.

    Args:
        source: the store.
        files: in it, by path.
        limits: what they may declare.
    """
    found = Structure()
    groups: list[tuple[str, Group]] = []
    for key, mark in sorted(_marked(files).items()):
        try:
            node = _node(source, key, limits)
        except OverLimit:
            raise
        except (DataError, OSError) as error:
            found.faults.append(Fault(mark, f"is no sound metadata ({error})"))
            continue
        if isinstance(node, Group):
            groups.append((mark, node))
        elif isinstance(node, Array):
            found.arrays[key] = _alone(node)
    _size_alone(found.arrays)
    for mark, group in groups:
        if not group.key:
            found.attributes = group.attributes
        found.faults += [Fault(_attributes_of(mark), what) for what in _images(found, group)]
    return found


def _node(source: Source, key: str, limits: Limits) -> Array | Group | None:
    """Read the metadata of an array or a group, and refuse images beyond the limits."""
    node = node_at(source, key, limits)
    if isinstance(node, Array) and len(node.shape) > 1:
        limits.check_image(source.where(key), *node.shape[:-3:-1])
    return node


def _marked(files: Sequence[str]) -> dict[str, str]:
    """Return the metadata file of every array and group by its folder, v3 before v2."""
    marked: dict[str, str] = {}
    for mark in reversed(MARKS):
        for file in files:
            folder, _, name = file.rpartition("/")
            if name == mark:
                marked[folder] = file
    return marked


def _attributes_of(mark: str) -> str:
    return mark.removesuffix(".zgroup") + ".zattrs" if mark.endswith(".zgroup") else mark


def _alone(array: Array) -> Stored:
    """Return an array as what its own metadata and its name say that it is."""
    name = array.key.rpartition("/")[2]
    axes = picture_axes(array.names, len(array.shape))
    return Stored(array, int(name) if name.isdecimal() else None, axes)


def _size_alone(arrays: dict[str, Stored]) -> None:
    """Give levels the scale that their sizes tell; the group's metadata may give a better one."""
    for key, stored in arrays.items():
        folder = key.rpartition("/")[0]
        first = arrays.get(f"{folder}/0".removeprefix("/"), stored)
        if stored.axes and first.axes:
            full, own = _size(first), _size(stored)
            scale = (full[0] / max(1, own[0]), full[1] / max(1, own[1]))
            arrays[key] = replace(stored, full=full, scale=scale)


def _size(stored: Stored) -> tuple[int, int]:
    y, x = stored.axes or (-2, -1)
    return stored.array.shape[x], stored.array.shape[y]


def _images(found: Structure, group: Group) -> Iterator[str]:
    """Check the images of a group; give what is wrong, and tell the arrays their places."""
    ome = group.attributes.get("ome", group.attributes)
    images = ome.get("multiscales") if isinstance(ome, Mapping) else None
    if images is None:
        return
    if not isinstance(images, list) or not images:
        yield "has multiscales that are no list of images"
        return
    for image in images:
        try:
            version = ome.get("version", image.get("version"))
            yield from _image(found, group.key, image, str(version))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            yield f"has multiscales that make no sense ({type(error).__name__}: {error})"


def _image(found: Structure, key: str, image: Mapping[str, Any], version: str) -> Iterator[str]:
    levels: list[Stored] = []
    names = [str(dataset["path"]) for dataset in image["datasets"]]
    for name in names:
        array = found.arrays.get(joined(key, name, key))
        if array is None:
            yield f"names a level {name!r}, which is no sound array"
            return
        levels.append(array)
    if not levels:
        yield "has an image without levels"
        return
    strict = version in _FORMATS
    if not strict:
        found.notes.append(f"it is OME-Zarr {version}, of which only the levels are checked")
    axes = _axis_names(image.get("axes"), levels[0])
    if strict and (wrong := _axes_fault(image.get("axes"), levels, version)):
        yield wrong
        return
    places = picture_axes(axes, len(axes))
    if places is None:
        yield "has an image of a single axis"
        return
    levels = [replace(level, axes=places) for level in levels]
    scales = [_scale(dataset) for dataset in image["datasets"]]
    if strict:
        yield from _scale_faults(image["datasets"], len(axes), names)
    yield from _level_faults(levels, names, axes)
    yield from _placed(found, levels, scales, names)


def _axis_names(given: Any, level: Stored) -> list[str]:
    """Return the names of the axes; before 0.4 they were texts, or none."""
    count = len(level.array.shape)
    if not isinstance(given, list):
        return list("tczyx"[-count:])
    return [str(axis["name"] if isinstance(axis, Mapping) else axis) for axis in given]


def _axes_fault(given: Any, levels: Sequence[Stored], version: str) -> str | None:
    """Return what is wrong with the axes of an image."""
    if not isinstance(given, list) or not all(isinstance(axis, Mapping) for axis in given):
        return "has no list of axes"
    names, kinds = [axis["name"] for axis in given], [axis.get("type") for axis in given]
    order = [_KINDS.get(str(kind), _KINDS["channel"]) for kind in kinds]
    if not _FEWEST <= len(names) <= _MOST or len(set(names)) < len(names):
        return f"has the axes {names}"
    if order != sorted(order) or kinds.count("space") not in (2, 3) or names[-2:] != ["y", "x"]:
        return f"has its axes in the order {names}, and time, channel, z, y, x is the right one"
    wrong = (_array_fault(level.array, names, version) for level in levels)
    return next(filter(None, wrong), None)


def _array_fault(array: Array, names: Sequence[str], version: str) -> str | None:
    """Return how an array contradicts the axes of its image."""
    if len(array.shape) != len(names):
        return f"has {len(names)} axes, and its array {array.key} has {len(array.shape)}"
    if array.names is not None and list(array.names) != names:
        return f"has the axes {names}, and its array {array.key} names others"
    if (array.codecs is None) != (_FORMATS[version] == 2):
        return f"is OME-Zarr {version}, and its array {array.key} is of another version of zarr"
    return None


def _scale(dataset: Mapping[str, Any]) -> list[float] | None:
    steps = [s for s in dataset.get("coordinateTransformations", ()) if s.get("type") == "scale"]
    return [float(value) for value in steps[0]["scale"]] if len(steps) == 1 else None


def _scale_faults(
    datasets: Sequence[Mapping[str, Any]], count: int, names: Sequence[str]
) -> Iterator[str]:
    for dataset, name in zip(datasets, names, strict=True):
        steps = dataset.get("coordinateTransformations") or []
        kinds = [step.get("type") for step in steps]
        if kinds not in (["scale"], ["scale", "translation"]):
            yield f"has a level {name} without one scale and at most one translation behind it"
            continue
        values = [[float(value) for value in step[step["type"]]] for step in steps]
        if any(len(of) != count or not all(map(math.isfinite, of)) for of in values):
            yield f"has a level {name} whose scale or translation is not one number an axis"
        elif min(values[0]) <= 0:
            yield f"has a level {name} whose scale is not above 0"


def _level_faults(
    levels: Sequence[Stored], names: Sequence[str], axes: Sequence[str]
) -> Iterator[str]:
    for (before, after), name in zip(pairwise(levels), names[1:], strict=True):
        large, small = _size(before), _size(after)
        if after.array.dtype != before.array.dtype:
            yield f"has a level {name} of {after.array.dtype} below one of {before.array.dtype}"
        shapes = zip(axes, before.array.shape, after.array.shape, strict=True)
        if any(axis not in ("x", "y", "z") and m != n for axis, m, n in shapes):
            yield f"has a level {name} with other bands or times than the one above"
        if small[0] > large[0] or small[1] > large[1] or small == large:
            yield f"has a level {name} that is not smaller than the one above"


def _placed(
    found: Structure,
    levels: Sequence[Stored],
    scales: Sequence[list[float] | None],
    names: Sequence[str],
) -> Iterator[str]:
    """Tell the arrays which levels they are; give the levels whose scale and size disagree."""
    full, first = _size(levels[0]), scales[0]
    for number, (level, own, name) in enumerate(zip(levels, scales, names, strict=True)):
        size, (y, x) = _size(level), level.axes or (-2, -1)
        ratio = (full[0] / size[0], full[1] / size[1])
        if first and own and _is_sound(first) and _is_sound(own):
            said = (own[x] / first[x], own[y] / first[y])
            if all(abs(f / s - n) < 1 for f, s, n in zip(full, said, size, strict=True)):
                ratio = said
            else:
                yield (
                    f"has a level {name} of {size[0]} x {size[1]} pixels, which its scale "
                    f"contradicts"
                )
        found.arrays[level.array.key] = replace(level, level=number, scale=ratio, full=full)


def _is_sound(scale: Sequence[float]) -> bool:
    return len(scale) > 1 and all(math.isfinite(value) and value > 0 for value in scale)
