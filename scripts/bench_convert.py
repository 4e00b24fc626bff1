"""What conversions cost, each in a process of its own; ``bench_io`` compares them.

python -m tnet.scripts.bench_convert KIND SOURCE DESTINATION
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tnet.scripts.bench_slide import TILE, say, slide

OURS = ("lossless", "jpeg:85", "source")
OTHERS = {"ome-zarr-py": "ome_zarr", "ngff-zarr": "ngff_zarr"}
COPY = "cp"
SYNCED = "cp, sync"  # a copy that has reached the disk, as a store has when it gets its name
_COPIES = {COPY: ["cp"], SYNCED: ["sh", "-c", 'cp "$0" "$1" && sync "$1"']}

_BLOCK = 2048  # that others read at once: whole tiles, in memory that they can afford


def conversions(folder: Path, size: int, repeats: int) -> dict[str, Any]:
    """Measure conversions of a slide of ``size`` pixels a side, and ours of one twice as wide.

    Returns:
        ``measured`` by kind: ``mpx`` per CPU-second, ``cpu`` and ``wall`` seconds, ``peak`` bytes;
        ``missing``, what is not installed; ``times_faster`` than the better of the others;
        ``memory_growth``, the peak of the image with 4 times as many pixels in that of this one.
    """
    source = slide(folder, size)
    missing = [name for name, module in OTHERS.items() if find_spec(module) is None]
    kinds = [*OURS, *(name for name in OTHERS if name not in missing)]
    measured = _in_turns(kinds, source, folder / "converted", repeats)
    for costs in measured.values():
        costs["mpx"] = size * size / 1e6 / max(costs["cpu"], 1e-9)
    larger = slide(folder, 2 * size)
    growth = {}
    for kind in OURS:
        say(f"conversion of an image 4 times as large: {kind}")
        peak = _child(kind, larger, folder / "converted")["peak"]
        growth[kind] = peak / measured[kind]["peak"]
    best = max((measured[name]["mpx"] for name in OTHERS if name in measured), default=None)
    return {
        "size": size,
        "file": source.stat().st_size,
        "measured": measured,
        "missing": missing,
        "memory_growth": growth,
        "times_faster": None if best is None else measured["lossless"]["mpx"] / best,
    }


def moving(folder: Path, size: int, repeats: int) -> dict[str, Any]:
    """Measure how tiles are moved, in turns with plain copies of the same file.

    Returns:
        by pixels a side, of slides of ``size``, twice and four times as wide: ``file``, its bytes,
        and ``ways`` to measure: ``again``, where what the round before wrote was deleted, so that
        the system has its memory at hand, and ``anew``, where everything that was written stays
        until the end, as for a user; this is left out where the disk has no room for it. Each has
        ``measured`` by kind, ``cpu`` and ``wall`` seconds and ``peak`` bytes, and ``times_copy``,
        CPU time in that of each way to copy.
    """
    results = {}
    kinds = [OURS[-1], *_COPIES]
    for side in (size, 2 * size, 4 * size):
        source = slide(folder, side)
        count = source.stat().st_size
        ways = {"again": _in_turns(kinds, source, folder / "converted", repeats)}
        if shutil.disk_usage(folder).free < count * (1 + repeats * len(kinds)):
            say(f"{side} pixels a side: the disk has no room to measure anew")
        else:
            with TemporaryDirectory(dir=folder) as kept:
                ways["anew"] = _in_turns(kinds, source, Path(kept), repeats, anew=True)
        results[str(side)] = {
            "file": count,
            "ways": {
                way: {"measured": measured, "times_copy": _times_copy(measured)}
                for way, measured in ways.items()
            },
        }
    return results


def _times_copy(costs: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return passthrough's CPU time in that of each way to copy."""
    return {copy: costs[OURS[-1]]["cpu"] / costs[copy]["cpu"] for copy in _COPIES}


def _in_turns(
    kinds: list[str], source: Path, destination: Path, repeats: int, *, anew: bool = False
) -> dict[str, dict[str, float]]:
    """Return the medians of what conversions cost.

    Args:
        kinds: of conversions.
        source: the image.
        destination: what each of them writes, in place of what the one before it wrote.
        repeats: how many rounds.
        anew: ``destination`` is a folder where each of them writes something of its own.
    """
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for number in range(repeats):
        for kind in kinds:
            say(f"conversion, round {number + 1} of {repeats}: {kind}")
            own = destination / f"{kind}-{number}" if anew else destination
            rounds[kind].append(_child(kind, source, own))
    return {kind: _medians(values) for kind, values in rounds.items()}


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

    import_module("xxhash")  # a library, too, which nothing else loads before it is needed
    with open_pyramid(source) as pyramid:
        pyramid.read(Region(0, 0, TILE, TILE), (TILE, TILE))
    return lambda: convert(source, destination, Wanted(codec=codec))


def _ome_zarr_py(source: Path, destination: Path) -> Callable[[], Any]:
    writer: Any = import_module("ome_zarr.writer")
    _lazy(source)[:, :TILE, :TILE].compute()

    def act() -> None:
        pixels = _lazy(source)
        writer.write_image(
            pixels,
            str(destination),
            axes="cyx",
            scale_factors=_factors(pixels.shape[1]),
            storage_options={"chunks": (3, TILE, TILE)},
        )

    return act


def _ngff_zarr(source: Path, destination: Path) -> Callable[[], Any]:
    ngff_zarr: Any = import_module("ngff_zarr")
    _lazy(source)[:, :TILE, :TILE].compute()

    def act() -> None:
        pixels = _lazy(source)
        image = ngff_zarr.to_ngff_image(pixels, dims=["c", "y", "x"])
        factors = _factors(pixels.shape[1])
        chunks = {"c": 3, "y": TILE, "x": TILE}
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
    return [2**n for n in range(1, side.bit_length()) if side >> n >= TILE]


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
