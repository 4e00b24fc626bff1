"""OME-Zarr 0.5: a heat map as an image, and the glimpses as its labels, in a store of its own.

It stands beside the source and lies over it: both have the same unit, and the translations say
where the first pixels' centres are. Nothing of the source is touched.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.drawing import level_colour
from tnet.adapters.exports.heat import Heat
from tnet.adapters.storage.layout import UNITS
from tnet.record import Walk

LABELS = "glimpses"
MARK = "tnet-export"  # the attribute by which a store of ours is known again

_CHUNK = 256
_NOTHING = 0  # the label where no glimpse is


def export(walk: Walk, heat: Heat) -> dict[str, bytes]:
    """Return the files of a store: a float32 pyramid, and the group ``labels/glimpses``.

    The label of a place is the number of its finest glimpse in the walk; 0, the first look, is
    everywhere else.
    """
    import zarr
    from zarr.storage import MemoryStore

    content: dict[str, Any] = {}
    store = MemoryStore(store_dict=content)
    maps = heat.levels(walk, _CHUNK)
    sizes = [(values.shape[1], values.shape[0]) for values in maps]
    said = {"image": walk.image, "kind": heat.kind, "shows": heat.title(walk), "model": walk.model}
    described: dict[str, Any] = {"version": "0.5"}
    described["multiscales"] = [_multiscale(walk, "heat map", sizes)]
    root = zarr.create_group(store, attributes={"ome": described, MARK: said})
    _write(root, maps, np.nan)
    labels = root.create_group("labels", attributes={"ome": {"version": "0.5", "labels": [LABELS]}})
    described = {
        "version": "0.5",
        "multiscales": [_multiscale(walk, LABELS, sizes)],
        "image-label": _label_facts(walk),
    }
    group = labels.create_group(LABELS, attributes={"ome": described})
    _write(group, [painted(walk, size) for size in sizes], _NOTHING)
    return {name: content[name].to_bytes() for name in sorted(content)}


def is_ours(folder: Path) -> bool:
    """Say whether a folder is a store that was exported here, which may be replaced."""
    try:
        attributes = json.loads((folder / "zarr.json").read_bytes())["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return not folder.is_symlink() and isinstance(attributes, dict) and MARK in attributes


def painted(walk: Walk, size: tuple[int, int]) -> NDArray[np.unsignedinteger[Any]]:
    """Return the number of the finest glimpse of each pixel, (height, width).

    A pixel is a glimpse's if at least half of each of its sides is; the smallest glimpse has the
    pixel of its centre.

    Args:
        walk: the record.
        size: width and height of the labels.
    """
    kind = np.uint16 if len(walk.glimpses) <= np.iinfo(np.uint16).max else np.uint32
    labels = np.zeros((size[1], size[0]), dtype=kind)
    order = sorted(range(1, len(walk.glimpses)), key=lambda i: walk.glimpses[i].level)
    for index in order:
        region = walk.glimpses[index].region
        rows = _pixels(region.y, region.height, size[1] / walk.height, size[1])
        columns = _pixels(region.x, region.width, size[0] / walk.width, size[0])
        labels[rows, columns] = index
    return labels


def _pixels(start: float, length: float, scale: float, count: int) -> slice:
    """Return which pixels of an axis a glimpse has."""
    first, last = round(start * scale), round((start + length) * scale)
    if last <= first:
        first = int((start + length / 2) * scale)
        last = first + 1
    return slice(min(max(first, 0), count), min(max(last, 0), count))


def _write(group: Any, levels: Sequence[NDArray[Any]], fill: float) -> None:
    for number, values in enumerate(levels):
        array = group.create_array(
            str(number),
            shape=values.shape,
            dtype=values.dtype,
            chunks=tuple(min(_CHUNK, side) for side in values.shape),
            fill_value=fill,
            dimension_names=["y", "x"],
        )
        array[:] = values


def _multiscale(walk: Walk, name: str, sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Return OME-Zarr's description of the levels, in the source's unit."""
    x, y = walk.spacing or (1.0, 1.0)
    unit = UNITS.get(walk.unit or "") if walk.spacing else None
    datasets = []
    for number, (wide, high) in enumerate(sizes):
        across, down = walk.width / wide, walk.height / high
        # As in the source, the first pixel of level 0 has its centre at zero.
        shift = [y * (down - 1) / 2, x * (across - 1) / 2]
        steps = [
            {"type": "scale", "scale": [y * down, x * across]},
            {"type": "translation", "translation": shift},
        ]
        datasets.append({"path": str(number), "coordinateTransformations": steps})
    axes = [{"name": axis, "type": "space"} | ({"unit": unit} if unit else {}) for axis in "yx"]
    return {"name": name, "axes": axes, "datasets": datasets}


def _label_facts(walk: Walk) -> dict[str, Any]:
    """Return the colour and the numbers of each label."""
    colours, properties = [], []
    for index, glimpse in enumerate(walk.glimpses):
        if index == 0:
            continue
        colours.append({"label-value": index, "rgba": [*level_colour(glimpse.level), 255]})
        worth = zip(walk.classes, glimpse.contributions, strict=True)
        properties.append(
            {
                "label-value": index,
                "level": glimpse.level,
                "probability": glimpse.probability,
                "weight": glimpse.weight,
            }
            | {f"contribution {name}": value for name, value in worth}
        )
    found = {"source": {"image": "../../"}}
    # An empty list would not be valid.
    return found | ({"colors": colours, "properties": properties} if colours else {})
