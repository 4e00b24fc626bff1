"""Small image files of every kind that is read, written without the code under test."""

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[Any]
Writer = Callable[[Path, Pixels], Path]

WIDTH, HEIGHT = 301, 203


def truth(dtype: str = "uint8", bands: int = 3, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Pixels:
    """Return (height, width, bands): smooth waves, unlike in every band, with a little noise."""
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float64)
    waves = [
        np.sin(x / (23 + 5 * band) + band) + np.cos(y / (19 + 3 * band) - x / 61)
        for band in range(bands)
    ]
    noise = np.random.default_rng(bands).normal(0, 0.03, (size[1], size[0], bands))
    unit = np.clip((np.stack(waves, -1) + 2) / 4 + noise, 0, 1)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (unit * 100 - 50).astype(kind)
    top = min(np.iinfo(kind).max, 60000)
    return np.rint(unit * (top - 1) + 1).astype(kind)  # 0 is free to be nodata


def halves(pixels: Pixels, count: int) -> list[Pixels]:
    """Return the image and its successive 2 x 2 means, odd borders dropped."""
    levels = [pixels]
    for _ in range(count):
        last = levels[-1]
        even = last[: last.shape[0] // 2 * 2, : last.shape[1] // 2 * 2].astype(np.float64)
        mean = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
        levels.append((np.rint(mean) if pixels.dtype.kind in "ui" else mean).astype(pixels.dtype))
    return levels


def shares(start: float, step: float, count: int, side: int) -> Pixels:
    """Return the share of each source pixel in each output pixel's extent: (count, side)."""
    edges = start + step * np.arange(count + 1)
    pixel = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.clip(overlap, 0, None) / step


def area_means(pixels: Pixels, rows: Pixels, columns: Pixels) -> Pixels:
    """Return the mean of each output pixel's area, in float64, from its ``shares``."""
    return np.stack(
        [rows @ pixels[..., i].astype(np.float64) @ columns.T for i in range(pixels.shape[2])], -1
    )


def write_zarr(
    path: Path,
    pixels: Pixels,
    *,
    version: Literal[2, 3] = 3,
    shards: bool = False,
    planar: bool = False,
) -> Path:
    """Write one array, (y, x, c), or (c, y, x) if ``planar``."""
    chunks = (64, 64, pixels.shape[2])
    if planar:
        pixels, chunks = pixels.transpose(2, 0, 1), (pixels.shape[2], 64, 64)
    more: dict[str, Any] = {}
    if shards:
        more["shards"] = tuple(c * 2 if c == 64 else c for c in chunks)
    array = zarr.create_array(
        path, shape=pixels.shape, dtype=pixels.dtype, chunks=chunks, zarr_format=version, **more
    )
    array[...] = pixels
    return path


def write_ome_zarr(
    path: Path,
    pixels: Pixels,
    *,
    version: str = "0.5",
    levels: int = 3,
    axes: str = "cyx",
    mpp: float = 0.5,
    fill: int = 0,
) -> Path:
    """Write an OME-Zarr image with ``levels`` levels by 2 x 2 means; ``fill`` is not written."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for index, level in enumerate(halves(pixels, levels - 1)):
        stored = level.transpose(2, 0, 1)
        stored = stored[(None,) * (len(axes) - 3)]
        chunks = (*stored.shape[:-2], 64, 64)
        array = group.create_array(
            f"s{index}", shape=stored.shape, dtype=stored.dtype, chunks=chunks, fill_value=fill
        )
        array[...] = stored
        step = mpp * 2**index
        scale = [step if axis in "xy" else 1.0 for axis in axes]
        transforms = [{"type": "scale", "scale": scale}]
        datasets.append({"path": f"s{index}", "coordinateTransformations": transforms})
    kinds = {"t": "time", "c": "channel"}
    described = [
        {"name": a, "type": kinds.get(a, "space")} | ({"unit": "micrometer"} if a in "yx" else {})
        for a in axes
    ]
    image: dict[str, Any] = {"name": "image", "axes": described, "datasets": datasets}
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [image | {"version": "0.4"}]
    return path


def write_tiff(path: Path, pixels: Pixels, **how: Any) -> Path:
    """Write one page; ``how`` goes to tifffile."""
    colour = "rgb" if pixels.shape[2] == 3 and pixels.dtype == np.uint8 else "minisblack"
    options: dict[str, Any] = {"photometric": colour, "planarconfig": "contig"} | how
    if options["planarconfig"] == "separate":
        pixels = pixels.transpose(2, 0, 1)
    if pixels.shape[2] == 1:
        pixels, options["planarconfig"] = pixels[..., 0], None
    tifffile.imwrite(path, pixels, metadata=None, **options)
    return path


def write_levels(path: Path, levels: Sequence[Pixels], **how: Any) -> Path:
    """Write a tiled TIFF of these resolutions, whatever they show; ``how`` goes to tifffile."""
    options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"} | how
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(levels[0], subifds=len(levels) - 1, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, **options)
    return path


def write_tiff_pyramid(
    path: Path, pixels: Pixels, *, ome: bool, bigtiff: bool = False, **how: Any
) -> Path:
    """Write a tiled pyramid: an OME-TIFF with SubIFDs, or reduced pages one after another."""
    levels = halves(pixels, 2)
    options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"} | how
    with tifffile.TiffWriter(path, ome=ome, bigtiff=bigtiff) as tiff:
        if ome:
            place = {
                "axes": "YXS",
                "PhysicalSizeX": 0.25,
                "PhysicalSizeXUnit": "µm",
                "PhysicalSizeY": 0.25,
                "PhysicalSizeYUnit": "µm",
            }
            tiff.write(levels[0], subifds=len(levels) - 1, metadata=place, **options)
        else:
            tiff.write(levels[0], metadata=None, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, metadata=None, **options)
    return path


def write_geotiff(
    path: Path, pixels: Pixels, *, nodata: str | None = None, epsg: int = 32632
) -> Path:
    """Write a tiled GeoTIFF in UTM, 10 m a pixel, with one overview of odd size (scale 301/151)."""
    geokeys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, epsg)
    tags: list[tuple[Any, ...]] = [
        (33550, "d", 3, (10.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 5000000.0, 0.0), True),
        (34735, "H", len(geokeys), geokeys, True),
    ]
    if nodata is not None:
        tags.append((42113, "s", 0, nodata, True))
    height, width = pixels.shape[:2]
    across, down = -(-width // 2), -(-height // 2)
    coarse = area_means(
        pixels, shares(0, height / down, down, height), shares(0, width / across, across, width)
    )
    if nodata is not None:  # its means hold none
        coarse[coarse < pixels[pixels != float(nodata)].min() / 2] = float(nodata)
    options: dict[str, Any] = {
        "tile": (64, 64),
        "photometric": "minisblack",
        "planarconfig": "contig" if pixels.shape[2] > 1 else None,
        "metadata": None,
        "compression": "deflate",
    }
    coarse = coarse.astype(pixels.dtype)
    if pixels.shape[2] == 1:
        pixels, coarse = pixels[..., 0], coarse[..., 0]
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, extratags=tags, **options)
        tiff.write(coarse, subfiletype=1, **options)
    return path


def write_deep_png(path: Path, pixels: Pixels, orientation: int = 1) -> Path:
    """Write a PNG of 16 bits a band, which Pillow cannot."""
    data = bytes(imagecodecs.png_encode(pixels))
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(data[:33] + chunk + data[33:])
    return path


def write_picture(path: Path, pixels: Pixels, **how: Any) -> Path:
    """Write a PNG, JPEG, WebP or BMP, as the name says."""
    Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[..., 0]).save(path, **how)
    return path
