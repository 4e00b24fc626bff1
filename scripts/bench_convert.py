"""What conversions cost, each in a process of its own; ``bench_io`` compares them.

python -m tnet.scripts.bench_convert KIND SOURCE DESTINATION
python -m tnet.scripts.bench_convert slide PIXELS DESTINATION
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OURS = ("lossless", "jpeg:85", "source")
OTHERS = {"ome-zarr-py": "ome_zarr", "ngff-zarr": "ngff_zarr"}
COPY = "cp"
SYNCED = "cp, sync"  # a copy that has reached the disk, as a store has when it gets its name
_COPIES = {COPY: ["cp"], SYNCED: ["sh", "-c", 'cp "$0" "$1" && sync "$1"']}

_SLIDE = "slide"
_TILE = 256
_PERIOD = 2048  # pixels after which the picture repeats itself
_BLOCK = 2048  # that others read at once: whole tiles, in memory that they can afford


def conversions(folder: Path, size: int, repeats: int) -> dict[str, Any]:
    """Measure conversions of a slide of ``size`` pixels a side, and ours of one twice as wide.

    Returns:
        ``measured`` by kind: ``mpx`` per CPU-second, ``cpu`` and ``wall`` seconds, ``peak`` bytes;
        ``missing``, what is not installed; ``times_faster`` than the better of the others;
        ``times_copy``, passthrough's CPU time in that of plain copies; ``larger``, the costs of
        the image with 4 times as many pixels, in one run; ``memory_growth``, its peak in that of
        the other.
    """
    source = slide(folder, size)
    missing = [name for name, module in OTHERS.items() if find_spec(module) is None]
    kinds = [*OURS, *_COPIES, *(name for name in OTHERS if name not in missing)]
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for number in range(repeats):
        for kind in kinds:
            say(f"conversion, round {number + 1} of {repeats}: {kind}")
            rounds[kind].append(_child(kind, source, folder / "converted"))
    measured = {kind: _medians(values) for kind, values in rounds.items()}
    for costs in measured.values():
        costs["mpx"] = size * size / 1e6 / max(costs["cpu"], 1e-9)
    larger = slide(folder, 2 * size)
    large = {}
    for kind in (*OURS, *_COPIES):
        say(f"conversion of an image 4 times as large: {kind}")
        large[kind] = _child(kind, larger, folder / "converted")
    best = max((measured[name]["mpx"] for name in OTHERS if name in measured), default=None)
    return {
        "size": size,
        "file": source.stat().st_size,
        "measured": measured,
        "missing": missing,
        "larger": large,
        "memory_growth": {kind: large[kind]["peak"] / measured[kind]["peak"] for kind in OURS},
        "times_faster": None if best is None else measured["lossless"]["mpx"] / best,
        "times_copy": {c: measured["source"]["cpu"] / measured[c]["cpu"] for c in _COPIES},
        "larger_times_copy": {c: large["source"]["cpu"] / large[c]["cpu"] for c in _COPIES},
    }


def slide(folder: Path, size: int) -> Path:
    """Return a made-up slide, written by a process of its own.

    What a process has once taken counts as the peak of those that it starts.
    """
    path = folder / f"slide{size}.tif"
    if not path.exists():
        say(f"writing a slide of {size} x {size} pixels")
        command = [sys.executable, "-m", "tnet.scripts.bench_convert", _SLIDE, str(size), str(path)]
        subprocess.run(command, check=True)
    return path


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def _medians(values: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(value[name] for value in values) for name in values[0]}


def _child(kind: str, source: Path, destination: Path) -> dict[str, float]:
    """Run a conversion in a process of its own and return its costs."""
    if destination.is_dir():
        shutil.rmtree(destination)
    destination.unlink(missing_ok=True)
    ours = [sys.executable, "-m", "tnet.scripts.bench_convert", kind]
    command = _COPIES.get(kind, ours)
    before = time.perf_counter()
    with subprocess.Popen(
        [*command, source, destination], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        assert child.stdout is not None
        said = child.stdout.read().decode()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"{kind} failed: {said[-2000:]}")
    if kind in _COPIES:
        costs = {"cpu": used.ru_utime + used.ru_stime, "wall": time.perf_counter() - before}
    else:  # which leaves out what it took to load the libraries
        costs = json.loads(said.splitlines()[-1])
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return costs | {"peak": float(peak)}


def work(kind: str, source: Path, destination: Path) -> None:
    """Convert, and print what it cost."""
    make = {"ome-zarr-py": _ome_zarr_py, "ngff-zarr": _ngff_zarr}.get(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # others' advice to their users
        act = make(source, destination) if make else _ours(kind, source, destination)
        cpu, wall = time.process_time(), time.perf_counter()
        act()
        spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    print(json.dumps(spent))


def _ours(codec: str, source: Path, destination: Path) -> Callable[[], Any]:
    from tnet.adapters.opening import open_pyramid
    from tnet.adapters.storage.conversion import convert
    from tnet.adapters.storage.wanted import Wanted
    from tnet.geometry import Region

    with open_pyramid(source) as pyramid:
        pyramid.read(Region(0, 0, _TILE, _TILE), (_TILE, _TILE))
    return lambda: convert(source, destination, Wanted(codec=codec))


def _ome_zarr_py(source: Path, destination: Path) -> Callable[[], Any]:
    writer: Any = import_module("ome_zarr.writer")
    _lazy(source)[:, :_TILE, :_TILE].compute()

    def act() -> None:
        pixels = _lazy(source)
        writer.write_image(
            pixels,
            str(destination),
            axes="cyx",
            scale_factors=_factors(pixels.shape[1]),
            storage_options={"chunks": (3, _TILE, _TILE)},
        )

    return act


def _ngff_zarr(source: Path, destination: Path) -> Callable[[], Any]:
    ngff_zarr: Any = import_module("ngff_zarr")
    _lazy(source)[:, :_TILE, :_TILE].compute()

    def act() -> None:
        pixels = _lazy(source)
        image = ngff_zarr.to_ngff_image(pixels, dims=["c", "y", "x"])
        factors = _factors(pixels.shape[1])
        chunks = {"c": 3, "y": _TILE, "x": _TILE}
        # The fastest of its ways to make means.
        way = ngff_zarr.Methods.DASK_BIN_SHRINK
        levels = ngff_zarr.to_multiscales(image, factors, method=way, chunks=chunks)
        ngff_zarr.to_ngff_zarr(str(destination), levels, version="0.5")

    return act


def _lazy(source: Path) -> Any:
    """Return level 0 of a TIFF as a dask array (c, y, x), as their manuals have it."""
    import tifffile
    import zarr

    dask: Any = import_module("dask.array")
    array = zarr.open(tifffile.imread(source, aszarr=True, level=0), mode="r")
    return dask.from_array(array, chunks=(_BLOCK, _BLOCK, 3)).transpose(2, 0, 1)


def _factors(side: int) -> list[int]:
    """Return the steps of levels down to one tile."""
    return [2**n for n in range(1, side.bit_length()) if side >> n >= _TILE]


def write_slide(path: Path, size: int) -> None:
    """Write a made-up slide as a pyramid of JPEG tiles (quality 85, 0.25 µm a pixel).

    Its tissue takes as many bytes as real tissue does; a quarter is glass. It repeats itself, so
    that each tile is compressed once and a slide of any size takes seconds.

    Args:
        path: of the TIFF.
        size: pixels a side.
    """
    import numpy as np
    import tifffile

    tissue = _tissue(_PERIOD)
    half = _PERIOD // 2
    glass = np.random.default_rng(1).normal(240, 1.5, (half, half, 3))
    tissue[half:, half:] = np.clip(glass, 0, 255)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        side = size
        while side >= _TILE:
            tiff.write(
                _tiles(tissue, side),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(_TILE, _TILE),
                compression="jpeg",
                photometric="ycbcr",
                subsampling=(2, 2),
                subfiletype=0 if side == size else 1,
                resolution=(40000.0, 40000.0),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
            side //= 2
            tissue = _halved(tissue)


def _tiles(period: Any, side: int) -> Iterator[bytes]:
    """Give the tiles of a level, row by row."""
    import imagecodecs
    import numpy as np

    count = len(period) // _TILE
    cut = [
        [period[y : y + _TILE, x : x + _TILE] for x in range(0, len(period), _TILE)]
        for y in range(0, len(period), _TILE)
    ]
    made = [
        [bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), 85)) for tile in row]
        for row in cut
    ]
    across = -(-side // _TILE)
    for row in range(across):
        for column in range(across):
            yield made[row % count][column % count]


def _halved(period: Any) -> Any:
    """Return what repeats itself one level higher, at least a tile of it."""
    import numpy as np
    from PIL import Image

    half = np.asarray(Image.fromarray(period).reduce(2))
    return half if len(half) >= _TILE else np.tile(half, (2, 2, 1))


def _tissue(side: int) -> Any:
    """Return coloured clouds of every size down to grains of two pixels: (side, side, 3) uint8."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    total = np.full((side, side, 3), (175.0, 120.0, 165.0), np.float32)
    for cell, weight in ((256, 27), (64, 23), (16, 23), (6, 21), (3, 12)):
        count = -(-side // cell)
        grey = rng.normal(0, weight, (count, count)).astype(np.float32)
        for band, colour in enumerate((1.0, 0.9, 0.6)):
            coarse = grey + colour * rng.normal(0, weight, grey.shape).astype(np.float32)
            cloud = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
            total[..., band] += np.asarray(cloud)
    return np.clip(total, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    if sys.argv[1] == _SLIDE:
        write_slide(Path(sys.argv[3]), int(sys.argv[2]))
    else:
        work(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
