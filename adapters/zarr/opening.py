"""OME-Zarr 0.4 and 0.5, and plain zarr arrays and groups: v2 and v3, sharded or not.

What was never written reads as the array's fill value, because sparse images are legal; but a
store that is sealed says that it is complete, and there a missing chunk is damage.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tnet.adapters.array import default_background
from tnet.adapters.georeference import of_zarr, spacing_of, unit_of
from tnet.adapters.limits import DEFAULT, Limits
from tnet.adapters.storage.seal import SEAL
from tnet.adapters.zarr.layers import Layers, layer_of, level_scale, ome_layers, plain_layers
from tnet.adapters.zarr.metadata import Array, Group, node_at, nodes_at
from tnet.adapters.zarr.sources import Folder, Source, joined
from tnet.adapters.zarr.stored import ZarrPyramid
from tnet.background import BRIGHT
from tnet.errors import DataError, UnsupportedImage
from tnet.facts import representable
from tnet.pyramid import Facts, Level

Attributes = Mapping[str, Any]

MARKS = ("zarr.json", ".zgroup", ".zarray")

_MOST_NESTED = 8  # groups in groups


def is_zarr(path: Path) -> bool:
    """Say whether a folder is a zarr group or array."""
    return path.is_dir() and any((path / mark).is_file() for mark in MARKS)


def open_zarr(path: Path, limits: Limits = DEFAULT) -> ZarrPyramid:
    """Open a zarr folder as an image.

    Raises:
        UnsupportedImage: if it is no zarr image, of a kind that is not read, or larger than the
            limits allow.
        DataError: if its metadata is damaged.
    """
    if not is_zarr(path):
        raise UnsupportedImage(
            f"{path} is a folder without zarr metadata (zarr.json, .zgroup or .zarray); name an "
            "image file or a zarr folder"
        )
    # A level alone is still a part of its store: its seal and its place on the ground lie above.
    # But a store that is sealed is one of its own, whatever collection it lies in.
    root, key = (path.resolve() if path.name in ("", "..") else path), ""
    while root.name not in ("", "..") and not root.is_symlink() and is_zarr(root.parent):
        if (root / SEAL).exists():
            break
        root, key = root.parent, f"{root.name}/{key}".rstrip("/")
    return open_store(Folder(root), limits, key)


def open_store(source: Source, limits: Limits, key: str = "") -> ZarrPyramid:
    """Open a zarr store as an image, or what lies at a key inside it.

    Of an OME-Zarr group, its first multiscale image (of a collection, the image "0"); of time and
    depth, the first entry. Of a plain group, its arrays of falling size. Of a plain array, two or
    three axes: named by dimension names where there are some; otherwise the bands are the last
    axis where it is no longer than the first, else the first.

    Raises:
        UnsupportedImage: if it is no zarr image, of a kind that is not read, or larger than the
            limits allow.
        DataError: if its metadata is damaged.
    """
    try:
        return _opened(source, key, limits)
    except DataError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{source.name} cannot be opened as zarr, its metadata makes no sense "
            f"({type(error).__name__}: {error}); make or download it again"
        ) from error


def _opened(source: Source, key: str, limits: Limits) -> ZarrPyramid:
    node, where = node_at(source, key, limits), source.where(key)
    if isinstance(node, Array):
        layers = Layers((layer_of(source, key, node, None),), (None,), None, False)
        return _assembled(source, key, layers, {}, limits)
    if node is None:
        raise UnsupportedImage(f"{where} holds no zarr metadata; name a zarr array or group")
    ome = node.attributes.get("ome", node.attributes)
    if "plate" in ome or "well" in ome:
        raise UnsupportedImage(f"{where} is a plate of many images; name one of the images in it")
    if "multiscales" in ome and "datasets" in ome["multiscales"][0]:
        layers = ome_layers(source, key, ome["multiscales"][0], limits)
        return _assembled(source, key, layers, node.attributes, limits)
    first = joined(key, "0", source.name)
    if "bioformats2raw.layout" in ome or isinstance(node_at(source, first, limits), Group):
        if key.count("/") >= _MOST_NESTED:
            raise UnsupportedImage(f"{source.name} is a group in a group in a group; name an image")
        return _opened(source, first, limits)
    return _assembled(source, key, plain_layers(source, node, limits), node.attributes, limits)


def _assembled(
    source: Source, key: str, layers: Layers, attributes: Attributes, limits: Limits
) -> ZarrPyramid:
    """Put the facts together; attributes of the group win over those of the array."""
    first, name = layers.arrays[0], source.where(key)
    for layer in layers.arrays:
        limits.check_image(source.where(layer.array.key), layer.size("x"), layer.size("y"))
    attributes = {**first.array.attributes, **attributes}
    width, height = first.size("x"), first.size("y")
    bands, dtype = first.size("c"), first.array.dtype
    crs, transform, nodata = of_zarr(attributes, _grid_mapping(source, key, attributes, limits))
    spacing, unit = layers.sizes[0], layers.unit
    if spacing == (1.0, 1.0) and unit is None:
        spacing = None  # a size in nothing says nothing
    if transform and spacing is None:
        spacing, unit = spacing_of(transform), unit_of(crs)
    levels = tuple(
        Level(
            layer.size("x"),
            layer.size("y"),
            *level_scale(layer, (width, height), layers.sizes[0], own),
            layer.tile(),
        )
        for layer, own in zip(layers.arrays, layers.sizes, strict=True)
    )
    more = [f"{n} along {a}" for a, n in zip(first.axes, first.array.shape, strict=True)
            if a not in "xyc" and n > 1]  # fmt: skip
    # Coloured bytes without a place on the ground: a picture, as in the other formats.
    picture = bands == 3 and dtype == np.uint8 and crs is None and transform is None
    facts = Facts(
        name=name,
        format="OME-Zarr" if layers.ome else "zarr",
        levels=levels,
        bands=bands,
        dtype=dtype,
        background=_background(first.array, bands, attributes, nodata, picture),
        spacing=spacing,
        unit=unit if spacing else None,
        crs=crs,
        transform=transform,
        nodata=nodata,
        unwritten=first.array.fill if picture else None,
        notes=(f"it holds several planes ({', '.join(more)}); the first is read",) if more else (),
    )
    if any((a.size("c"), a.array.dtype) != (bands, dtype) for a in layers.arrays):
        raise UnsupportedImage(f"{name} has levels of unlike bands or types; write it anew")
    return ZarrPyramid(source, layers.arrays, facts)


def _background(
    array: Array, bands: int, attributes: Attributes, nodata: float | None, picture: bool
) -> tuple[float, ...]:
    """Return what we wrote down when converting, else nodata, else the fill value.

    Converters leave the fill value at 0, which is not what surrounds the tissue of a slide: in a
    picture a dark one gives way to white.
    """
    own = attributes.get("tnet")
    declared = own.get("background") if isinstance(own, dict) else None
    if declared is not None and len(declared) == bands:
        return tuple(float(value) for value in declared)
    nodata = representable(nodata, array.dtype)
    fill = array.fill
    if nodata is None and picture and fill < BRIGHT:
        return default_background(bands, array.dtype, None)
    return (fill if nodata is None else nodata,) * bands


def _grid_mapping(source: Source, key: str, attributes: Attributes, limits: Limits) -> Attributes:
    """Return the attributes of the CF variable that holds the coordinate reference system."""
    name = str(attributes.get("grid_mapping", "spatial_ref"))
    folders = dict.fromkeys((key, key.rpartition("/")[0]))
    keys = [joined(folder, name, source.name) for folder in folders]
    return next((node.attributes for node in nodes_at(source, keys, limits) if node), {})
