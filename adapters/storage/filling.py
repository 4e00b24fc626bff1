"""All that a store holds: levels encoded or moved, the pictures and the facts beside them."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tnet.adapters.array import open_array
from tnet.adapters.associated import associated_of
from tnet.adapters.extras import extras_of
from tnet.adapters.interleaving import planar
from tnet.adapters.limits import Limits
from tnet.adapters.opening import open_pyramid
from tnet.adapters.segments import File
from tnet.adapters.storage import description
from tnet.adapters.storage.building import Builder, Read
from tnet.adapters.storage.codecs import LOSSLESS, SOURCE, Codec, Jpeg, codec_for
from tnet.adapters.storage.layout import CHUNK, Layout, Part, level_sizes, shard_size
from tnet.adapters.storage.moving import move
from tnet.adapters.storage.passthrough import jpeg_levels, layout_of
from tnet.adapters.storage.shards import read_index
from tnet.adapters.storage.space import check_space, expected_bytes
from tnet.adapters.storage.staging import Stage
from tnet.adapters.storage.wanted import OWN, Wanted
from tnet.adapters.tiff import TiffPyramid, is_tiff
from tnet.errors import DataError, UnsupportedImage
from tnet.facts import Level
from tnet.geometry import Region
from tnet.halving import halvings
from tnet.pyramid import Pyramid

Pixels = NDArray[Any]
Told = Callable[[int], None]

SOURCE_QUALITY = 90  # of levels that a source of JPEG tiles lacks


def fill(
    stage: Stage,
    source: Path,
    pyramid: Pyramid,
    wanted: Wanted,
    told: Told,
) -> int:
    """Write all files of a store but its seal; those that the stage holds stay as they are.

    Args:
        stage: where they go.
        source: the file.
        pyramid: its image.
        wanted: how.
        told: called with the number of level-0 pixels that are done since last time.

    Returns:
        the number of levels.

    Raises:
        DataError: if the source cannot be read, or stored so.
        SpaceError: if the disk has not enough room.
        OSError: if the system refuses.
    """
    extras = extras_of(source, pyramid, wanted.limits)
    threads = wanted.threads or os.cpu_count() or 1
    if wanted.codec == SOURCE:
        layouts = _moved(stage, source, pyramid, wanted.limits, threads, told)
    else:
        layouts = _encoded(stage, pyramid, wanted, threads, told)
    description.write_beside(stage, pyramid, extras.icc)
    if wanted.associated:
        for name, picture in associated_of(source, wanted.limits).items():
            _write_picture(stage, f"associated/{name}", picture)
    attributes = description.image_attributes(
        source.stem,
        layouts,
        pyramid,
        extras.channels,
        _coarsest(stage, layouts[-1]),
        means=not keeps_levels(pyramid, wanted),
    )
    # The group's own metadata comes last: before it there is no image in the folder.
    _write_json(stage, description.GROUP, description.group(attributes))
    return len(layouts)


def keeps_levels(pyramid: Pyramid, wanted: Wanted) -> bool:
    """Say whether coarser levels of a file are kept, and not all are means."""
    return len(pyramid.levels) > 1 and (wanted.codec == SOURCE or wanted.levels == OWN)


def _encoded(
    stage: Stage,
    pyramid: Pyramid,
    wanted: Wanted,
    threads: int,
    told: Told,
) -> list[Layout]:
    """Write all levels through a codec."""
    codec = codec_for(wanted.codec, pyramid.bands, pyramid.dtype)
    kept = pyramid.levels if keeps_levels(pyramid, wanted) else pyramid.levels[:1]
    runs: list[tuple[Level, list[Layout]]] = []
    number = 0
    for level, below in zip(kept, [*kept[1:], None], strict=True):
        count = None if below is None else 1 + halvings(level, below, math.inf)
        runs.append((level, layouts_of(pyramid, codec, level, number, count)))
        number += len(runs[-1][1])
    layouts = [layout for _, made in runs for layout in made]
    check_space(stage, expected_bytes(layouts, _level(pyramid, kept[0])))
    _describe(stage, pyramid, layouts)
    # The finest comes last: it takes the longest, and its pixels are those that are told of.
    for level, made in reversed(runs):
        tell = told if level is kept[0] else _quiet
        Builder(stage, made, _level(pyramid, level), pyramid.nodata, threads, tell).build()
    return layouts


def _describe(stage: Stage, pyramid: Pyramid, layouts: Sequence[Layout]) -> None:
    """Write the metadata of levels."""
    for layout in layouts:
        attributes = description.level_attributes(pyramid, layout)
        _write_json(stage, f"{layout.path}/{description.GROUP}", layout.metadata(attributes))


def _moved(
    stage: Stage,
    source: Path,
    pyramid: Pyramid,
    limits: Limits,
    threads: int,
    told: Told,
) -> list[Layout]:
    """Move the JPEG tiles of all levels, and make the coarser levels that the file lacks."""
    fill = _fill(pyramid)
    if not (source.is_file() and is_tiff(source)):
        raise UnsupportedImage(f"{source} is no TIFF, so it has no JPEG tiles; leave --codec out")
    # A pyramid that was put together by another reader may show other pixels than the tiles do.
    with (
        nullcontext(pyramid)
        if isinstance(pyramid, TiffPyramid)
        else open_pyramid(source, reader="tiff", limits=limits)
    ) as tiff:
        levels = jpeg_levels(source, 0 if tiff.nodata is None else tiff.nodata, limits)
        sizes = [(tiles.width, tiles.height) for tiles in levels]
        if sizes != [(level.width, level.height) for level in tiff.levels]:
            raise UnsupportedImage(f"{source} has levels of several kinds; leave --codec out")
        if sizes[0] != (pyramid.width, pyramid.height):
            raise UnsupportedImage(
                f"{source} is put together by its scanner's own rules; leave --codec out"
            )
        layouts = [
            layout_of(tiles, number, level, fill)
            for number, (tiles, level) in enumerate(zip(levels, tiff.levels, strict=True))
        ]
        check_space(stage, sum(int(tiles.counts.sum()) for tiles in levels))
        _describe(stage, pyramid, layouts)
        file = File(source)
        try:
            move(file, list(zip(levels, layouts, strict=True)), stage, threads, told)
        finally:
            file.close()
        return layouts + _completed(stage, tiff, layouts[-1], threads)


def _completed(stage: Stage, tiff: Pyramid, last: Layout, threads: int) -> list[Layout]:
    """Write the levels below the coarsest one of a file; return how they are laid out."""
    level, codec = tiff.levels[-1], Jpeg(tiff.bands, SOURCE_QUALITY)
    first, *below = layouts_of(tiff, codec, level, int(last.path))
    if below:
        layouts = [replace(first, path="source"), *below]
        read = _level(tiff, level)
        _describe(stage, tiff, below)
        Builder(stage, layouts, read, tiff.nodata, threads, _quiet, first=1).build()
    return below


def layouts_of(
    pyramid: Pyramid, codec: Codec, level: Level, number: int = 0, count: int | None = None
) -> list[Layout]:
    """Return how a level and those that are made of it are laid out.

    Args:
        pyramid: the image.
        codec: of the chunks.
        level: of the image.
        number: of the first one in the store.
        count: how many; None is as many as it takes to come down to one chunk.
    """
    chunk = (CHUNK, CHUNK)
    return [
        Layout(
            path=str(number + times),
            shape=(pyramid.bands, height, width),
            dtype=pyramid.dtype,
            chunk=chunk,
            shard=shard_size((width, height), pyramid.bands, pyramid.dtype, chunk),
            codec=codec,
            fill=_fill(pyramid),
            scale=(level.scale_x * 2**times, level.scale_y * 2**times),
        )
        for times, (width, height) in enumerate(level_sizes(level.width, level.height, count))
    ]


def _fill(pyramid: Pyramid) -> float:
    return pyramid.background[0] if pyramid.nodata is None else pyramid.nodata


def _level(pyramid: Pyramid, level: Level) -> Read:
    """Return what reads pixels of a level as they are, (bands, height, width)."""

    # Through a pyramid of this level alone, where its pixels are those of level 0.
    def read(part: Part) -> Pixels:
        sx, sy = level.scale_x, level.scale_y
        region = Region(part.x * sx, part.y * sy, part.width * sx, part.height * sy)
        try:
            pixels = pyramid.read(region, (part.width, part.height))
        except OSError as error:
            raise DataError(f"{pyramid.name} cannot be read ({error.strerror or error})") from error
        return planar(pixels)

    return read


def _write_picture(stage: Stage, path: str, picture: Pixels) -> None:
    """Write a picture that came with a slide as an image of its own."""
    pyramid = open_array(picture, path)
    codec = codec_for(LOSSLESS, pyramid.bands, pyramid.dtype)
    layouts = [
        replace(layout, path=f"{path}/{layout.path}")
        for layout in layouts_of(pyramid, codec, pyramid.levels[0])
    ]
    _describe(stage, pyramid, layouts)
    Builder(stage, layouts, _level(pyramid, pyramid.levels[0]), None, 1, _quiet).build()
    inside = [replace(layout, path=layout.path.rpartition("/")[2]) for layout in layouts]
    attributes = description.image_attributes(
        path.rpartition("/")[2], inside, pyramid, (), _coarsest(stage, layouts[-1])
    )
    _write_json(stage, f"{path}/{description.GROUP}", description.group(attributes))


def _coarsest(stage: Stage, layout: Layout) -> Pixels:
    """Return the pixels of a level of one chunk, as stored; of a larger one, its first chunk."""
    down, across = layout.chunks
    path = stage.folder / layout.key(0, 0)
    offset, length = map(int, read_index(path, down * across)[0])
    with path.open("rb") as file:
        file.seek(offset)
        chunk = layout.codec.decode(file.read(length), layout.chunk_shape)
    return chunk[:, : layout.shape[1], : layout.shape[2]]


def _write_json(stage: Stage, name: str, values: Mapping[str, Any]) -> None:
    if not stage.holds(name):
        stage.write_json(name, values)


def _quiet(_: int) -> None:
    """Tell nobody of pixels beside those of level 0."""
