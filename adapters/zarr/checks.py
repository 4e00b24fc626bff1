"""What is checked of the files of an array before libraries read them that trust what they say."""

from tnet.adapters.storage.shards import ABSENT
from tnet.adapters.zarr.chunks import BLOSC_HEADER, MORE, shard_index
from tnet.adapters.zarr.layers import Layer
from tnet.adapters.zarr.metadata import Array
from tnet.adapters.zarr.sources import Source
from tnet.errors import DataError, UnsupportedImage


class FileCheck:
    """Looks once at each file of an array before others read it: is it inside, and no bomb?"""

    _MOST = 2**16  # files to be remembered

    def __init__(self, source: Source, layer: Layer) -> None:
        self._source = source
        self._layer = layer
        self._seen: set[tuple[int, int]] = set()
        axes, files = layer.axes, layer.array.files
        self._side = (files[axes.index("x")], files[axes.index("y")])
        count = layer.size("c") if "c" in axes else 1
        self._bands = range(-(-count // files[axes.index("c")]) if "c" in axes else 1)

    def __call__(self, x: int, y: int, width: int, height: int) -> None:
        """Check the files under a window.

        Raises:
            UnsupportedImage: if a link leads out of the store, or a chunk declares too much.
        """
        across, down = self._side
        for row in range(y // down, (y + height - 1) // down + 1):
            for column in range(x // across, (x + width - 1) // across + 1):
                if (row, column) not in self._seen:
                    self._look(row, column)

    def _look(self, row: int, column: int) -> None:
        for band in self._bands:
            numbers = {"c": band, "y": row, "x": column}
            place = [numbers.get(axis, 0) for axis in self._layer.axes]
            key = self._layer.array.file(place)
            self._source.check(key)
            if self._source.patience is None:  # over the network that would cost a round trip
                check_declared(self._source, self._layer.array, key)
        if len(self._seen) >= self._MOST:
            self._seen.clear()
        self._seen.add((row, column))


def check_declared(source: Source, array: Array, key: str) -> None:
    """Refuse a file with a chunk that would become larger than the array says.

    Of the codecs only Blosc takes memory for what its header declares, up to 2 GiB.

    Raises:
        UnsupportedImage: if there is one.
    """
    if array.outermost != "blosc":
        return
    try:
        starts = [0] if array.sharding is None else shard_index(source, array, key)[:, 0].tolist()
    except (DataError, OSError):  # reading will say what is wrong
        return
    worst = max((_declared(source, key, s) for s in starts if s != ABSENT), default=0)
    if worst > array.chunk_bytes + MORE:
        raise UnsupportedImage(
            f"{source.where(key)} holds a chunk that would take {worst} bytes instead of "
            f"{array.chunk_bytes}; make or download it again"
        )


def _declared(source: Source, key: str, start: int) -> int:
    """Return the bytes that a chunk of Blosc says it holds; 0 where that cannot be read."""
    try:
        header = source.read(key, start, BLOSC_HEADER)
    except (DataError, OSError, OverflowError):  # as above
        return 0
    return int.from_bytes((header or b"")[4:8], "little")
