"""Paint the layout of a synthetic slide, and write it as a sparse OME-Zarr 0.5 image.

The image is painted shard by shard; a coarser level is made from the four shards below it while
these are at hand. So memory doesn't grow with the image, glass costs nothing and isn't stored.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.random import default_rng
from PIL import Image

from tnet.datasets.slide_layout import Box, Layout
from tnet.datasets.texture import GLASS, PERIOD, RAGGED, Bytes, Floats, draw_object, textures

SHARD = PERIOD

_MICRONS = 0.25  # per pixel of level 0
_TILE = 512
_CHUNK = 256
_CELL = 64  # pixels of level 0 to a step of the maps
_PAD = 2  # steps around a map
_STEPS = _TILE // _CELL
_SMOOTH = np.float32(0.3)  # how ragged the border to the glass is, beside the others
_SURE = RAGGED + 30  # pixels from an outline where the answer can't change


def write_slide(folder: Path, layout: Layout) -> None:
    """Write the slide to ``folder``, which must not exist."""
    sizes = [layout.size]
    while sizes[-1] > _CHUNK:
        sizes.append(sizes[-1] // 2)
    folder.mkdir()
    (folder / "zarr.json").write_text(json.dumps(_group(len(sizes)), indent=1))
    levels = [_create(folder / str(level), size) for level, size in enumerate(sizes)]
    top = next(level for level, size in enumerate(sizes) if size <= SHARD)
    painter = _Painter(layout)
    image = _shard(painter, levels, top, 0, 0)
    assert image is not None  # every slide holds tissue
    for level in levels[top + 1 :]:
        image = halve(image)
        level.write(image).result()


def halve(image: Bytes) -> Bytes:
    """Return (channel, y, x) at half the size: the mean of every 2 x 2 pixels, rounded."""
    pairs = np.ascontiguousarray(image).view(np.uint16)  # two pixels side by side in each number
    total = (pairs & 255) + (pairs >> 8)
    return ((total[:, ::2] + total[:, 1::2] + 2) >> 2).astype(np.uint8)


def _shard(
    painter: "_Painter", levels: list[ts.TensorStore], level: int, row: int, column: int
) -> Bytes | None:
    """Write a shard and those below it; return its pixels, or None if it is all glass."""
    size = levels[level].shape[1]
    y, x = row * SHARD, column * SHARD
    if y >= size or x >= size:
        return None
    if level == 0:
        image = painter.paint(x, y)
    else:
        image = None
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            below = _shard(painter, levels, level - 1, 2 * row + i, 2 * column + j)
            if below is not None:
                if image is None:
                    image = _glass(min(SHARD, size - y), min(SHARD, size - x))
                top, left = i * SHARD // 2, j * SHARD // 2
                half = halve(below)
                image[:, top : top + half.shape[1], left : left + half.shape[2]] = half
    if image is not None:
        bottom, right = y + image.shape[1], x + image.shape[2]
        levels[level][:, y:bottom, x:right].write(image).result()
    return image


def _glass(height: int, width: int) -> Bytes:
    return np.full((3, height, width), GLASS, np.uint8)


@dataclass(frozen=True, slots=True)
class _Layer:
    """A texture, and a map of how many pixels a place is inside its outline (negative outside)."""

    texture: Bytes
    outline: Floats


class _Painter:
    """Paints any shard of level 0."""

    def __init__(self, layout: Layout) -> None:
        rng = default_rng([layout.seed, 2])
        self._stain = np.clip(rng.normal(1, 0.05) + rng.normal(0, 0.025, 3), 0.85, 1.12)
        steps = (np.arange(-_PAD, layout.size // _CELL + _PAD, dtype=np.float32) + 0.5) * _CELL
        x, y = steps, steps[:, None]
        shared = textures()
        tissue = layout.tissue(x, y).astype(np.float32)
        knots = rng.normal(0, 700, (layout.size // 1024 + 2,) * 2).astype(np.float32)
        strands = Image.fromarray(knots).resize((len(steps),) * 2, Image.Resampling.BICUBIC)
        suspicious = np.max([patch.inside(x, y) for patch in layout.patches], axis=0)
        self._tissue = tissue
        self._layers = [
            _Layer(self._stained(shared.loose), tissue),
            _Layer(self._stained(shared.dense), np.asarray(strands)),
            _Layer(self._stained(shared.patch), suspicious.astype(np.float32)),
        ]
        self._ragged = shared.ragged
        self._objects = [
            (spot.box, *self._object(layout.seed, number, kind, spot.box[2]))
            for number, (spot, kind) in enumerate(zip(layout.spots, layout.kinds, strict=True))
        ]

    def paint(self, x: int, y: int) -> Bytes | None:
        """Return the shard whose corner is (x, y), or None if it is all glass."""
        shard: Bytes | None = None
        for top in range(0, SHARD, _TILE):
            for left in range(0, SHARD, _TILE):
                inside = self._inside(self._tissue, x + left, y + top, _SMOOTH)
                if inside is not False:
                    shard = _glass(SHARD, SHARD) if shard is None else shard
                    tile = shard[:, top : top + _TILE, left : left + _TILE]
                    self._tile(tile, x + left, y + top, inside)
        if shard is not None:
            for box, colours, opacity in self._objects:
                _blend(shard, (box[0] - x, box[1] - y, *box[2:]), colours, opacity)
        return shard

    def _tile(self, tile: Bytes, x: int, y: int, tissue: Any) -> None:
        """Paint the layers over one tile that isn't all glass, in place."""
        top, left = y % PERIOD, x % PERIOD
        masks = [self._inside(layer.outline, x, y) for layer in self._layers[1:]]
        lowest = max((i for i, mask in enumerate(masks, 1) if mask is True), default=0)
        for layer, mask in list(zip(self._layers, [True, *masks], strict=True))[lowest:]:
            _cover(tile, layer.texture[:, top : top + _TILE, left : left + _TILE], mask)
        if tissue is not True:
            _cover(tile, np.uint8(GLASS), ~tissue)

    def _inside(self, outline: Floats, x: int, y: int, rough: float | np.float32 = 1.0) -> Any:
        """Return which pixels of a tile are inside: True for all, False for none, or a mask."""
        row, column = y // _CELL, x // _CELL
        window = outline[row : row + _STEPS + 2 * _PAD, column : column + _STEPS + 2 * _PAD]
        if window.min() > _SURE or window.max() < -_SURE:
            return bool(window.min() > 0)
        box = (_PAD, _PAD, _PAD + _STEPS, _PAD + _STEPS)
        fine = Image.fromarray(window).resize((_TILE, _TILE), Image.Resampling.BILINEAR, box)
        top, left = y % PERIOD, x % PERIOD
        return np.asarray(fine) > rough * self._ragged[top : top + _TILE, left : left + _TILE]

    def _stained(self, picture: Bytes) -> Bytes:
        """Return a texture in the stain of this slide; glass stays as it is."""
        values = GLASS - np.arange(256)
        tables = np.clip(np.rint(GLASS - values * self._stain[:, None]), 0, 255).astype(np.uint8)
        return np.stack([table[channel] for table, channel in zip(tables, picture, strict=True)])

    def _object(self, seed: int, number: int, kind: str, side: int) -> tuple[Floats, Floats]:
        colours, opacity = draw_object(default_rng([seed, 3, number]), kind, side)
        stain = self._stain.astype(np.float32)[:, None, None]
        return GLASS - (GLASS - colours) * stain, opacity


def _cover(tile: Bytes, source: Any, mask: Any) -> None:
    """Copy ``source`` into the tile where ``mask`` says so: True, False or an array of these."""
    if mask is True:
        tile[:] = source
    elif mask is not False:
        tile ^= (tile ^ source) & (mask.view(np.uint8) * np.uint8(255))  # quicker than copyto


def _blend(image: Bytes, box: Box, colours: Floats, opacity: Floats) -> None:
    """Lay an object over the part of the image that its box covers, in place."""
    x, y, width, height = box
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, image.shape[2]), min(y + height, image.shape[1])
    if left >= right or top >= bottom:
        return
    window = image[:, top:bottom, left:right]
    share = opacity[top - y : bottom - y, left - x : right - x]
    ours = colours[:, top - y : bottom - y, left - x : right - x]
    window[:] = np.clip(np.rint(window * (1 - share) + ours * share), 0, 255).astype(np.uint8)


def _create(folder: Path, size: int) -> ts.TensorStore:
    """Create the array of one level."""
    side = min(SHARD, -(-size // _CHUNK) * _CHUNK)
    little = {"name": "bytes"}
    zstd = {"name": "zstd", "configuration": {"level": 1}}
    sharding = {
        "chunk_shape": [3, _CHUNK, _CHUNK],
        "codecs": [little, zstd],
        "index_codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "crc32c"},
        ],
    }
    metadata = {
        "shape": [3, size, size],
        "data_type": "uint8",
        "fill_value": GLASS,
        "dimension_names": ["c", "y", "x"],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, side, side]}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "metadata": metadata,
        "store_data_equal_to_fill_value": False,
    }
    one = {"limit": 1}
    context = ts.Context(
        {"data_copy_concurrency": one, "file_io_concurrency": one, "file_io_sync": False}
    )
    return ts.open(spec, create=True, context=context).result()


def _group(levels: int) -> dict[str, Any]:
    """Return the metadata of the image: OME-Zarr 0.5, and the colour of glass."""
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    datasets = []
    for level in range(levels):
        step, shift = _MICRONS * 2**level, _MICRONS * (2**level - 1) / 2
        transforms = [
            {"type": "scale", "scale": [1.0, step, step]},
            {"type": "translation", "translation": [0.0, shift, shift]},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    image = {"name": "slide", "axes": axes, "datasets": datasets, "type": "mean"}
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    channels = [
        {"label": label, "color": color, "window": window, "active": True}
        for label, color in (("R", "FF0000"), ("G", "00FF00"), ("B", "0000FF"))
    ]
    ome = {"version": "0.5", "multiscales": [image], "omero": {"channels": channels}}
    tnet = {"background": [GLASS] * 3}
    return {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome, "tnet": tnet}}
