"""How a pyramid is laid out in a store: levels, chunks, shards, and the metadata that tells so.

Source: OME-Zarr 0.5 and the zarr v3 core specification; the sizes were measured.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tnet.adapters.storage.codecs import Codec

CHUNK = 256
SHARD = 4096
SHARD_BYTES = 2**28  # decoded; shards of images with many bands are smaller

UNITS = {
    "µm": "micrometer", "nm": "nanometer", "mm": "millimeter", "cm": "centimeter",
    "metre": "meter", "foot": "foot",
}  # fmt: skip
_DTYPES = {"f": "float", "u": "uint", "i": "int"}


@dataclass(frozen=True)
class Part:
    """A rectangle of a level in its pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Layout:
    """One level: an array (bands, height, width) in shards of chunks.

    Attributes:
        path: of the array inside the store.
        shape: bands, height, width.
        dtype: of the values.
        chunk: height and width of a chunk.
        shard: height and width of a shard, multiples of the chunk's.
        codec: of the chunks.
        fill: the value of what nobody wrote; nothing is left unwritten by us.
        scale: level-0 pixels per pixel, across and down.
    """

    path: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    chunk: tuple[int, int]
    shard: tuple[int, int]
    codec: Codec
    fill: float
    scale: tuple[float, float]

    @property
    def grid(self) -> tuple[int, int]:
        """How many shards there are, down and across."""
        _, height, width = self.shape
        return -(-height // self.shard[0]), -(-width // self.shard[1])

    @property
    def chunks(self) -> tuple[int, int]:
        """How many chunks a shard has, down and across."""
        return self.shard[0] // self.chunk[0], self.shard[1] // self.chunk[1]

    @property
    def chunk_shape(self) -> tuple[int, int, int]:
        """Bands, height and width of a chunk."""
        return (self.shape[0], *self.chunk)

    def key(self, row: int, column: int) -> str:
        """Return the file of a shard inside the store."""
        return f"{self.path}/c/0/{row}/{column}"

    def part(self, row: int, column: int) -> Part:
        """Return the pixels of a shard, those beyond the level left out."""
        y, x = row * self.shard[0], column * self.shard[1]
        _, height, width = self.shape
        return Part(x, y, min(self.shard[1], width - x), min(self.shard[0], height - y))

    def shard_of(self, part: Part) -> tuple[int, int]:
        """Return row and column of the shard in which a part begins."""
        return part.y // self.shard[0], part.x // self.shard[1]

    def number_of(self, part: Part) -> int:
        """Return the place in its shard's index of the chunk in which a part begins."""
        row = part.y % self.shard[0] // self.chunk[0]
        return row * self.chunks[1] + part.x % self.shard[1] // self.chunk[1]

    def metadata(self, attributes: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the array's zarr.json."""
        bands = self.shape[0]
        inner = {
            "chunk_shape": list(self.chunk_shape),
            "codecs": self.codec.metadata(),
            "index_codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": data_type(self.dtype),
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [bands, *self.shard]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": fill_value(self.fill, self.dtype),
            "codecs": [{"name": "sharding_indexed", "configuration": inner}],
            "attributes": attributes or {},
            "dimension_names": ["c", "y", "x"],
            "storage_transformers": [],
        }


def level_sizes(width: int, height: int, count: int | None = None) -> list[tuple[int, int]]:
    """Return width and height of every level, each half of the one above, rounded up.

    Args:
        width: of the first.
        height: of the first.
        count: how many there are; None is as many as it takes to come down to one chunk.
    """
    sizes = [(width, height)]
    while len(sizes) < count if count is not None else max(sizes[-1]) > CHUNK:
        across, down = sizes[-1]
        sizes.append((-(-across // 2), -(-down // 2)))
    return sizes


def shard_size(
    size: tuple[int, int], bands: int, dtype: np.dtype[Any], chunk: tuple[int, int], times: int = 1
) -> tuple[int, int]:
    """Return height and width of the shards of a level: whole chunks, no larger than the level.

    Args:
        size: width and height of the level.
        bands: values per pixel.
        dtype: of the values.
        chunk: height and width of a chunk.
        times: how much longer than usual a side may be.
    """
    side = times * SHARD
    while side > CHUNK and side * side * bands * dtype.itemsize > SHARD_BYTES:
        side //= 2
    height, width = (
        min(max(1, side // step), -(-length // step)) * step
        for step, length in zip(chunk, (size[1], size[0]), strict=True)
    )
    return height, width


def data_type(dtype: np.dtype[Any]) -> str:
    """Return zarr's name of a dtype."""
    return f"{_DTYPES[dtype.kind]}{8 * dtype.itemsize}"


def fill_value(value: float, dtype: np.dtype[Any]) -> float | int | str:
    """Return a fill value as zarr's JSON has it."""
    if dtype.kind != "f":
        return int(value)
    if np.isfinite(value):
        return float(value)
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def multiscales(
    name: str,
    layouts: list[Layout],
    spacing: tuple[float, float] | None,
    unit: str | None,
    means: bool,
) -> dict[str, Any]:
    """Return OME-Zarr's description of the levels.

    Args:
        name: of the image.
        layouts: the levels, finest first.
        spacing: size of a level-0 pixel, x and y; None makes it 1, in no unit.
        unit: of the spacing, left out where OME-Zarr does not know it.
        means: whether every level is the mean of the one above.
    """
    x, y = spacing or (1.0, 1.0)
    known = UNITS.get(unit or "") if spacing else None
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space"} | ({"unit": known} if known else {}) for axis in "yx"]
    datasets = []
    for layout in layouts:
        across, down = layout.scale
        # The first pixel's centre moves by half of what was averaged.
        shift = [0.0, y * (down - 1) / 2, x * (across - 1) / 2]
        datasets.append(
            {
                "path": layout.path,
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, y * down, x * across]},
                    {"type": "translation", "translation": shift},
                ],
            }
        )
    how = {"type": "mean"} if means else {}
    return {"name": name, "axes": axes, "datasets": datasets, **how}
