"""Links, written: the list of where an image's own tiles lie, checked against what readers see."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tnet.adapters.extras import extras_of
from tnet.adapters.limits import DEFAULT, Limits
from tnet.adapters.links.about import Origin, about_facts, origin_of
from tnet.adapters.links.chunking import Unlinkable, picture_chunks, tiff_chunks
from tnet.adapters.links.level import Chunks
from tnet.adapters.links.reading import (
    ATTRIBUTES,
    GROUP,
    REFERENCES,
    SCHEMA,
    Parts,
    is_link,
    read_about,
)
from tnet.adapters.links.references import packed
from tnet.adapters.opening import open_pyramid
from tnet.adapters.storage.layout import UNITS
from tnet.adapters.storage.replacing import check_replaceable
from tnet.adapters.storage.seal import read_seal
from tnet.adapters.storage.staging import discard, publish, restore, staged
from tnet.adapters.tiff import TiffPyramid, is_tiff, open_tiff
from tnet.errors import DataError, UnsupportedImage, UsageError
from tnet.facts import Facts
from tnet.geometry import Region
from tnet.pyramid import LevelPyramid, Pyramid

# A region of level-0 pixels, and its size in pixels of what is read.
Window = tuple[Region, tuple[int, int]]

_SIDE = 512  # of the windows that are compared, where a tile is larger
_STRIP = 2**22  # pixels of a picture that are compared at a time


@dataclass(frozen=True)
class Linked:
    """What came of linking.

    Attributes:
        outcome: "linked", or "already linked".
        levels: how many.
        chunks: how many references.
        size: bytes of the link.
    """

    outcome: str
    levels: int
    chunks: int
    size: int


def link(
    source: Path, destination: Path, *, overwrite: bool = False, limits: Limits = DEFAULT
) -> Linked:
    """Make a zarr group of references into an image file; no pixel is copied.

    Some tiles of every level are decoded both ways, and have to be equal.

    Args:
        source: a TIFF, a slide that is one, or a PNG, JPEG, WebP or BMP.
        destination: of the link, a folder; its parent is made.
        overwrite: replace another link or zarr store that stands there.
        limits: what the source may declare.

    Raises:
        UsageError: if something else stands at the destination.
        UnsupportedImage: if zarr cannot express how the source is stored.
        DataError: if the source cannot be read.
        BusyError: if another process is writing the destination.
        OSError: if the system refuses.
    """
    if (standing := linked_already(source, destination, overwrite)) is not None:
        return standing
    if source.is_dir():
        raise UnsupportedImage(
            f"{source} is a folder: only a file can be linked; copy a zarr store with "
            "`tnet convert`"
        )
    try:
        parts, attributes = _described(source, destination, limits)
    except Unlinkable as error:
        raise UnsupportedImage(
            f"{source} cannot be linked: {error}; copy its pixels with `tnet convert`"
        ) from error
    _write(destination, parts, attributes, overwrite)
    return _outcome("linked", destination, parts.levels)


def linked_already(source: Path, destination: Path, overwrite: bool = False) -> Linked | None:
    """Return what stands at the destination if it is a link to the source as it is now.

    Raises:
        UsageError: if it is something that must not be replaced.
    """
    restore(destination)
    if not os.path.lexists(destination):
        return None
    if is_link(destination):
        try:
            about = read_about(destination)
            file = Origin(**about["source"]).at(destination)
            if file.samefile(source):
                chunks = int(about["chunks"])
                size = _size(destination)
                return Linked("already linked", len(about["facts"]["levels"]), chunks, size)
        except (DataError, LookupError, TypeError, ValueError, OSError):
            pass  # a damaged link, or one to a file that was changed: not what is wanted
    if not overwrite:
        raise UsageError(
            f"{destination} exists already; name another one, or replace it with --overwrite"
        )
    check_replaceable(source, destination)
    return None


def _described(source: Path, destination: Path, limits: Limits) -> tuple[Parts, dict[str, Any]]:
    """Return what a link to a source consists of, and the attributes of its group."""
    with open_pyramid(source, limits=limits) as pyramid:
        assert isinstance(pyramid, LevelPyramid), "a file is read level by level"
        about = origin_of(source, destination)
        parts = _parts(source, pyramid, limits)
        attributes = _ome(source.stem, parts, extras_of(source, pyramid, limits).channels)
    attributes["tnet"] = {
        "schema": SCHEMA,
        "source": asdict(about),
        "chunks": sum(map(bool, (count for level in parts.levels for count in level.counts))),
        "facts": about_facts(parts.facts),
        "paint": parts.paint,
    }
    return parts, attributes


def _parts(source: Path, pyramid: LevelPyramid, limits: Limits) -> Parts:
    """Return what a link consists of, once its pixels have been seen to be the source's."""
    place, facts = source.resolve(), pyramid.facts
    if is_tiff(source):
        parts = Parts(place, *_tiff_levels(source, pyramid, limits), facts)
        _compare(pyramid, parts, _windows(pyramid, parts.levels))
        return parts
    if pyramid.format.startswith("OpenSlide"):
        raise Unlinkable("where its tiles lie only OpenSlide knows")
    try:
        parts = Parts(place, *picture_chunks(source, pyramid, alpha=False), facts)
        _compare(pyramid, parts, _strips(pyramid))
    except Unlinkable:
        parts = Parts(place, *picture_chunks(source, pyramid, alpha=True), facts)
        _compare(pyramid, parts, _strips(pyramid))
    return parts


def _tiff_levels(
    source: Path, pyramid: Pyramid, limits: Limits
) -> tuple[tuple[Chunks, ...], dict[str, Any] | None]:
    """Return the levels of a TIFF, and what paints them."""
    if isinstance(pyramid, TiffPyramid):
        return tiff_chunks(source, pyramid, pyramid.levels, limits)
    with open_tiff(source, limits) as tiff:  # stored turned, or of a slide that OpenSlide reads
        if not isinstance(tiff, TiffPyramid):
            raise Unlinkable("it is stored turned")
        return tiff_chunks(source, tiff, pyramid.levels, limits)


def _compare(source: Pyramid, parts: Parts, windows: Iterator[Window]) -> None:
    """Read windows both ways.

    Raises:
        Unlinkable: if the pixels differ.
    """
    try:
        link = parts.pyramid()
    except DataError:
        raise
    except ValueError as error:
        raise Unlinkable(f"its levels are put together in another way ({error})") from error
    with link:
        for region, size in windows:
            seen = source.read(region, size)
            try:
                found = link.read(region, size)
            except DataError as error:
                raise Unlinkable(f"a piece of it is not of the kind it says ({error})") from error
            if not np.array_equal(seen, found, equal_nan=seen.dtype.kind == "f"):
                raise Unlinkable("its pixels would look different")


def _strips(picture: Pyramid) -> Iterator[Window]:
    """Give all of a picture in strips."""
    rows = max(1, _STRIP // picture.width)
    for top in range(0, picture.height, rows):
        size = (picture.width, min(rows, picture.height - top))
        yield Region(0, top, *size), size


def _windows(source: Pyramid, levels: tuple[Chunks, ...]) -> Iterator[Window]:
    """Give tiles at the ends and in the middle of every level, and one that was left out."""
    for level, chunks in zip(source.levels, levels, strict=True):
        across, down = chunks.grid
        count = across * down
        left_out = chunks.counts.index(0) % count if 0 in chunks.counts else 0
        for index in sorted({0, count // 2, count - 1, left_out}):
            x, y = index % across * chunks.tile[0], index // across * chunks.tile[1]
            width = min(chunks.tile[0], level.width - x, _SIDE)
            height = min(chunks.tile[1], level.height - y, _SIDE)
            across_0, down_0 = level.scale_x, level.scale_y
            region = Region(x * across_0, y * down_0, width * across_0, height * down_0)
            yield region, (width, height)


def _ome(name: str, parts: Parts, channels: Any) -> dict[str, Any]:
    """Return OME-Zarr's description of the levels.

    Axes are in the order of the arrays; where a tile holds all bands, they come last.
    """
    facts, axes = parts.facts, parts.levels[0].axes
    x, y = facts.spacing or (1.0, 1.0)
    known = UNITS.get(facts.unit or "") if facts.spacing else None
    unit = {"unit": known} if known else {}
    kinds = {"c": {"type": "channel"}, "x": {"type": "space"} | unit, "y": {"type": "space"} | unit}
    datasets = []
    for number, level in enumerate(facts.levels):
        steps = {"c": 1.0, "x": x * level.scale_x, "y": y * level.scale_y}
        scale = [{"type": "scale", "scale": [steps[axis] for axis in axes]}]
        datasets.append({"path": str(number), "coordinateTransformations": scale})
    image = {
        "version": "0.4",
        "name": name,
        "axes": [{"name": axis} | kinds[axis] for axis in axes],
        "datasets": datasets,
    }
    attributes: dict[str, Any] = {"multiscales": [image]}
    if channels and parts.paint is None and "c" in axes:
        attributes["omero"] = {"channels": [_channel(channel, facts) for channel in channels]}
    return attributes


def _channel(channel: Any, facts: Facts) -> dict[str, Any]:
    top = np.iinfo(facts.dtype).max if facts.dtype.kind in "ui" else 1
    return {
        "label": channel.name,
        "color": channel.colour or "FFFFFF",
        "active": True,
        "window": {"start": 0, "end": int(top), "min": 0, "max": int(top)},
    }


def _write(destination: Path, parts: Parts, attributes: dict[str, Any], overwrite: bool) -> None:
    """Write the files of a link beside its place, and rename their folder when all are there."""
    others = {name: value for name, value in attributes.items() if name != "tnet"}
    content = packed(others, parts.levels, parts.source.as_posix())
    about = attributes["tnet"]["source"]
    identity = {
        "source": {"name": parts.source.name, "size": about["size"], "head": about["head"]},
        "settings": {"link": SCHEMA},
    }
    destination.parent.mkdir(parents=True, exist_ok=True)
    with staged(destination, identity, about["mtime_ns"]) as stage:
        try:
            stage.write(REFERENCES, [content])
            stage.write_json(GROUP, {"zarr_format": 2})
            stage.write_json(ATTRIBUTES, attributes)
            stage.seal(**identity)
            publish(destination, overwrite)
        except BaseException:  # made anew in a second, it is not worth keeping
            discard(stage.folder)
            raise


def _outcome(outcome: str, destination: Path, levels: tuple[Chunks, ...]) -> Linked:
    chunks = sum(sum(map(bool, level.counts)) for level in levels)
    return Linked(outcome, len(levels), chunks, _size(destination))


def _size(destination: Path) -> int:
    """Return the bytes of a link, as its seal has them."""
    seal = read_seal(destination)
    return 0 if seal is None else sum(file.size for file in seal.files.values())
