"""OME-Zarr 0.4 and 0.5, and plain zarr arrays and groups: v2 and v3, sharded or not.

Metadata comes through zarr-python, pixels through tensorstore, which is several times faster.
What was never written reads as the array's fill value: sparse images are legal.
"""

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.array import default_background
from tnet.adapters.georeference import of_zarr, spacing_of, unit_of
from tnet.adapters.layers import (
    Layer,
    Layers,
    layer_of,
    level_scale,
    ome_layers,
    path_inside,
    plain_layers,
)
from tnet.background import BRIGHT
from tnet.errors import DataError, UnsupportedImage
from tnet.facts import representable
from tnet.pyramid import Facts, Level, LevelPyramid

Pixels = NDArray[Any]

CACHE_BYTES = 2**26
MARKS = ("zarr.json", ".zgroup", ".zarray")


class ZarrPyramid(LevelPyramid):
    """The arrays of a zarr store as levels."""

    def __init__(self, layers: Sequence[Layer], facts: Facts) -> None:
        super().__init__(facts)
        self._layers = tuple(layers)
        self._stores: dict[tuple[int, int], Callable[[Any], Pixels]] = {}

    def _fetch(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        layer = self._layers[level]
        window = {"x": slice(x, x + width), "y": slice(y, y + height), "c": slice(None)}
        where = tuple(window.get(axis, 0) for axis in layer.axes)
        try:
            pixels = self._store(level)(where)
        except Exception as error:  # codecs of foreign data fail in many ways
            raise DataError(
                f"{layer.path} has a damaged or unreadable chunk ({error}); write it again"
            ) from error
        kept = [axis for axis in layer.axes if axis in window]
        if "c" not in kept:
            pixels, kept = pixels[..., None], [*kept, "c"]
        return pixels.transpose([kept.index(axis) for axis in "yxc"])

    def _store(self, level: int) -> Callable[[Any], Pixels]:
        # A forked process cannot use what its parent has opened.
        key = (os.getpid(), level)
        if key not in self._stores:
            self._stores[key] = _pixels_of(self._layers[level])
        return self._stores[key]

    def close(self) -> None:
        """Let go of the arrays; a later read opens them again."""
        self._stores.clear()


def is_zarr(path: Path) -> bool:
    """Say whether a folder is a zarr group or array."""
    return path.is_dir() and any((path / mark).is_file() for mark in MARKS)


def open_zarr(path: Path) -> ZarrPyramid:
    """Open a zarr folder as an image.

    Of an OME-Zarr group, its first multiscale image (of a collection, the image "0"); of time and
    depth, the first entry. Of a plain group, its arrays of falling size. Of a plain array, two or
    three axes: named by dimension names where there are some; otherwise the bands are the last
    axis where it is no longer than the first, else the first.

    Raises:
        UnsupportedImage: if it is no zarr image, or of a kind that is not read.
        DataError: if its metadata is damaged.
    """
    import zarr

    if not is_zarr(path):
        raise UnsupportedImage(
            f"{path} is a folder without zarr metadata (zarr.json, .zgroup or .zarray); name an "
            "image file or a zarr folder"
        )
    try:
        node = zarr.open(path, mode="r")
        if isinstance(node, zarr.Array):
            single = Layers((layer_of(path, node, None),), (None,), None, False)
            return _assembled(path, single, dict(node.attrs))
        return _open_group(path, node)
    except DataError:
        raise
    except Exception as error:  # damaged metadata can break a parser in any way
        raise DataError(
            f"{path} cannot be opened as zarr ({type(error).__name__}: {error}); it is damaged or "
            "uses an extension that is not installed"
        ) from error


def _open_group(path: Path, group: Any) -> ZarrPyramid:
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    if "plate" in ome or "well" in ome:
        raise UnsupportedImage(f"{path} is a plate of many images; name one of the images in it")
    if "multiscales" in ome and "datasets" in ome["multiscales"][0]:
        layers = ome_layers(path, group, ome["multiscales"][0])
        return _assembled(path, layers, attributes)
    if "bioformats2raw.layout" in ome or (not list(group.array_keys()) and "0" in group):
        return _open_group(path / "0", group["0"])
    return _assembled(path, plain_layers(path, group), attributes)


def _assembled(path: Path, layers: Layers, attributes: dict[str, Any]) -> ZarrPyramid:
    """Put the facts together; attributes of the group win over those of the array."""
    first = layers.arrays[0]
    attributes = {**dict(first.array.attrs), **attributes}
    width, height = first.size("x"), first.size("y")
    bands, dtype = first.size("c"), np.dtype(first.array.dtype).newbyteorder("=")
    crs, transform, nodata = of_zarr(attributes, _grid_mapping(path, first, attributes))
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
        name=str(path),
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
        unwritten=float(first.array.fill_value or 0) if picture else None,
        notes=(f"it holds several planes ({', '.join(more)}); the first is read",) if more else (),
    )
    if any((a.size("c"), a.array.dtype) != (bands, first.array.dtype) for a in layers.arrays):
        raise UnsupportedImage(f"{path} has levels of unlike bands or types; write it anew")
    return ZarrPyramid(layers.arrays, facts)


def _background(
    array: Any, bands: int, attributes: dict[str, Any], nodata: float | None, picture: bool
) -> tuple[float, ...]:
    """Return what we wrote down when converting, else nodata, else the fill value.

    Converters leave the fill value at 0, which is not what surrounds the tissue of a slide: in a
    picture a dark one gives way to white.
    """
    own = attributes.get("tnet")
    declared = own.get("background") if isinstance(own, dict) else None
    if declared is not None and len(declared) == bands:
        return tuple(float(value) for value in declared)
    nodata = representable(nodata, np.dtype(array.dtype))
    fill = float(array.fill_value or 0)
    if nodata is None and picture and fill < BRIGHT:
        return default_background(bands, np.dtype(array.dtype), None)
    return (fill if nodata is None else nodata,) * bands


def _grid_mapping(path: Path, layer: Layer, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the CF variable that holds the coordinate reference system."""
    import zarr

    name = str(attributes.get("grid_mapping", "spatial_ref"))
    for folder in (path, layer.path.parent):
        if is_zarr(path_inside(folder, name)):
            return dict(zarr.open(folder / name, mode="r").attrs)
    return {}


@cache
def _context() -> tuple[Any, int]:
    """Return the cache and the threads that all zarr images share, and whose process they are."""
    import tensorstore

    context = tensorstore.Context(
        {
            "cache_pool": {"total_bytes_limit": CACHE_BYTES},
            "data_copy_concurrency": {"limit": max(2, os.cpu_count() or 1)},
        }
    )
    return context, os.getpid()


def _pixels_of(layer: Layer) -> Callable[[Any], Pixels]:
    """Return what reads a window of an array."""
    import tensorstore

    context, owner = _context()
    if owner != os.getpid():  # tensorstore would abort a process forked from one that used it
        return lambda where: np.asarray(layer.array[where])
    driver = "zarr3" if layer.array.metadata.zarr_format == 3 else "zarr"
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(layer.path.resolve())}}
    try:
        store = tensorstore.open(spec, read=True, context=context).result()
    except ValueError:  # zarr-python knows more codecs, the registered extensions among them
        return lambda where: np.asarray(layer.array[where])
    return lambda where: store[where].read().result()
