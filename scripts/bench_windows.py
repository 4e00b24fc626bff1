"""What windows of a slide cost, from the disk and through a network; ``bench_io`` compares them."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tnet.scripts.bench_slide import say, slide

BATCH = 64
DELAY = 0.02  # seconds a request

_LEVELS = (0, 2, 4)
_TURNED = "tensorstore, bands last"
_LOSS = 16  # of 255, on average: what JPEG takes, and less than another place differs
_SMALLEST = 1024  # pixels a side of a level that windows are taken from

Ask = tuple[int, int, int]  # level, x and y in its pixels


@dataclass(frozen=True)
class Kind:
    """Windows to be read.

    Attributes:
        size: of the slide, pixels a side.
        side: of a window.
        step: which their places are multiples of.
        batch: how many are asked for at once.
        count: of windows in a round.
    """

    size: int
    side: int = 224
    step: int = 1
    batch: int = BATCH
    count: int = 4 * BATCH

    def asks(self, seed: int) -> list[Ask]:
        """Return windows anywhere on levels in turn."""
        import numpy as np

        rng = np.random.default_rng(seed)
        levels = levels_of(self.size)
        asks = []
        for number in range(self.count):
            level = levels[number % len(levels)]
            last = ((self.size >> level) - self.side) // self.step
            x, y = (int(place) * self.step for place in rng.integers(0, last + 1, 2))
            asks.append((level, x, y))
        return asks


@dataclass(frozen=True)
class Reader:
    """A way to read windows: one, or many at once where it has a way of its own for that."""

    one: Callable[[Ask, int], Any]
    many: Callable[[Sequence[Ask], int], Any] | None = None


def windows(folder: Path, size: int, repeats: int) -> dict[str, Any]:
    """Measure windows of a slide of ``size`` pixels a side, everything in its cache of files.

    Returns:
        ``milliseconds`` of CPU a window, by kind of window and reader; ``missing``;
        ``times_tensorstore``, ours in that of tensorstore, ``times_bands_last``, the same where
        it turns pixels as ours does, and ``times_faster`` than zarr-python, by kind of window.
    """
    tiff = slide(folder, size)
    stores = {codec: _store(folder, tiff, codec) for codec in ("lossless", "jpeg:85", "source")}
    files = {"driver": "file", "path": str(stores["lossless"])}
    readers = {
        "ours": _ours(stores["lossless"]),
        "tensorstore": _tensorstore(files, size),
        _TURNED: _tensorstore(files, size, bands_last=True),
        "zarr-python": _zarr_python(stores["lossless"]),
        "ours, jpeg:85": _ours(stores["jpeg:85"]),
        "ours, source": _ours(stores["source"]),
        "ours, TIFF": _ours(tiff),
    }
    missing = ["OpenSlide"]
    if find_spec("openslide") is not None:
        readers["OpenSlide"], missing = _openslide(tiff), []
    _check(readers, size)
    kinds = {
        f"{name}, {title}": Kind(size, side, step, batch)
        for name, side, step in (("224 unaligned", 224, 1), ("256 aligned", 256, 256))
        for title, batch in (("one at a time", 1), (f"batches of {BATCH}", BATCH))
    }
    spent: dict[str, dict[str, float]] = {title: {} for title in kinds}
    for taking_turns in _apart(readers):
        for title, kind in kinds.items():
            say(f"windows: {title}, by {', '.join(taking_turns)}")
            times = _in_turns(taking_turns, kind, repeats, time.process_time)
            spent[title] |= {reader: seconds / kind.count for reader, seconds in times.items()}
    return {
        "size": size,
        "milliseconds": {
            title: {reader: 1000 * seconds for reader, seconds in values.items()}
            for title, values in spent.items()
        },
        "missing": missing,
        "times_tensorstore": {k: v["ours"] / v["tensorstore"] for k, v in spent.items()},
        "times_bands_last": {k: v["ours"] / v[_TURNED] for k, v in spent.items()},
        "times_faster": {k: v["zarr-python"] / v["ours"] for k, v in spent.items()},
    }


def remote(folder: Path, size: int, repeats: int) -> dict[str, Any]:
    """Measure 64 windows at once from a web server with 20 ms a request.

    Returns:
        ``seconds`` by the clock on the wall, by reader; ``missing``.
    """
    store = _store(folder, slide(folder, size), "lossless")
    with _served(folder) as address:
        url = f"{address}/{store.name}"
        readers = {
            "ours": _ours(url, remote=True),
            "tensorstore": _tensorstore(
                {"driver": "http", "base_url": address, "path": f"/{store.name}"}, size
            ),
        }
        missing = []
        if find_spec("aiohttp") is not None and find_spec("fsspec") is not None:
            readers["zarr-python with fsspec"] = _zarr_python(url)
        else:
            missing.append("zarr-python with fsspec")
        say("windows through a network")
        _check(readers, size)
        spent = _in_turns(readers, Kind(size, count=BATCH), repeats, time.perf_counter)
    return {"size": size, "seconds": spent, "missing": missing}


def _apart(readers: dict[str, Reader]) -> list[dict[str, Reader]]:
    """Part the readers so that those of one cache are in different turns: each has all of it."""
    sharing = [name for name in readers if name.startswith("ours, ")]
    first = {name: reader for name, reader in readers.items() if name not in sharing}
    return [first, *({name: readers[name]} for name in sharing)]


def _in_turns(
    readers: dict[str, Reader], kind: Kind, repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Read the same windows with every reader, others in each round; return median seconds."""
    spent: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(repeats + 1):  # the first is not counted
        asks = kind.asks(number)
        for name, reader in readers.items():
            before = clock()
            for start in range(0, kind.count, kind.batch):
                _read(reader, asks[start : start + kind.batch], kind)
            if number > 0:
                spent[name].append(clock() - before)
    return {name: statistics.median(values) for name, values in spent.items()}


def _read(reader: Reader, asks: Sequence[Ask], kind: Kind) -> Any:
    if kind.batch > 1 and reader.many is not None:
        return reader.many(asks, kind.side)
    return [reader.one(ask, kind.side) for ask in asks]


def levels_of(size: int) -> list[int]:
    """Return the levels that windows are taken from, for a slide of ``size`` pixels a side."""
    return [level for level in _LEVELS if size >> level >= _SMALLEST]


def _check(readers: dict[str, Reader], size: int) -> None:
    """Make sure that all show the same picture, and those of the same store the same pixels."""
    import numpy as np

    kind = Kind(size, count=2 * len(_LEVELS))
    asks = kind.asks(99)
    wanted = [np.asarray(pixels).astype(int) for pixels in _read(readers["ours"], asks, kind)]
    for name, reader in readers.items():
        exact = not name.startswith(("ours,", "OpenSlide"))
        for pixels, ask in zip(wanted, asks, strict=True):
            found = np.asarray(reader.one(ask, kind.side))
            if found.shape[0] == 3:
                found = found.transpose(1, 2, 0)
            difference = np.abs(found[..., :3] - pixels).mean()
            if difference > (0 if exact else _LOSS):
                raise RuntimeError(f"{name} reads something else at {ask}: {difference:.2f} off")


def _store(folder: Path, tiff: Path, codec: str) -> Path:
    """Return a conversion of a slide."""
    from tnet.adapters.storage.conversion import convert
    from tnet.adapters.storage.wanted import Wanted

    path = folder / f"{tiff.stem}-{codec.replace(':', '')}.zarr"
    convert(tiff, path, Wanted(codec=codec))
    return path


def _ours(source: Path | str, **how: Any) -> Reader:
    from tnet.adapters import open_pyramid
    from tnet.geometry import Region

    pyramid = open_pyramid(source, **how)

    def region(ask: Ask, side: int) -> Region:
        level, x, y = ask
        return Region(x << level, y << level, side << level, side << level)

    return Reader(
        lambda ask, side: pyramid.read(region(ask, side), (side, side)),
        lambda asks, side: pyramid.read_many([region(a, side) for a in asks], (side, side)),
    )


def _tensorstore(kvstore: dict[str, Any], size: int, bands_last: bool = False) -> Reader:
    """Return bare tensorstore with the cache, the threads and the trust in it that ours has.

    Pixels come as they are stored, (bands, height, width), or with ``bands_last`` as ours do.
    """
    import tensorstore

    from tnet.adapters.zarr.windows import shared_context

    context = tensorstore.Context(shared_context()[0].spec)
    arrays = {}
    for level in levels_of(size):
        path = f"{kvstore['path'].rstrip('/')}/{level}/"
        spec = {
            "driver": "zarr3",
            "kvstore": kvstore | {"path": path},
            "recheck_cached_data": "open",
            "recheck_cached_metadata": "open",
        }
        arrays[level] = tensorstore.open(spec, read=True, context=context).result()

    def begin(ask: Ask, side: int) -> Any:
        level, x, y = ask
        window = arrays[level][:, y : y + side, x : x + side]
        return window.transpose([1, 2, 0]).read(order="C") if bands_last else window.read()

    return Reader(
        lambda ask, side: begin(ask, side).result(),
        lambda asks, side: [task.result() for task in [begin(ask, side) for ask in asks]],
    )


def _zarr_python(store: Path | str) -> Reader:
    import zarr

    group = zarr.open_group(store, mode="r")
    arrays: dict[int, Any] = {}

    def one(ask: Ask, side: int) -> Any:
        level, x, y = ask
        if level not in arrays:
            arrays[level] = group[str(level)]
        return arrays[level][:, y : y + side, x : x + side]

    def many(asks: Sequence[Ask], side: int) -> Sequence[Any]:
        with ThreadPoolExecutor(len(asks)) as pool:
            return list(pool.map(lambda ask: one(ask, side), asks))

    return Reader(one, many if isinstance(store, str) else None)


def _openslide(tiff: Path) -> Reader:
    import numpy as np
    import openslide

    slide = openslide.OpenSlide(tiff)

    def one(ask: Ask, side: int) -> Any:
        level, x, y = ask
        return np.asarray(slide.read_region((x << level, y << level), level, (side, side)))

    return Reader(one)


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serve a folder by a process of its own; give its address."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    command = [sys.executable, "-m", "tnet.scripts.bench_server", str(folder), str(DELAY)]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()
