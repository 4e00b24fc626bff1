"""Where the chunks of an image lie in another file: kerchunk's list of references, version 1.

The list is a zarr v2 group in one JSON document, which zarr-python reads through fsspec.
"""

import bz2
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.limits import Limits, readable
from tnet.adapters.links.level import Chunks
from tnet.errors import UnsupportedImage

_KINDS = "uif"
_URL = "{{u}}"  # kerchunk's way to name the file once
_DIGITS = b"0123456789"
_SPACED = bytes(byte if byte in _DIGITS else ord(" ") for byte in range(256))
_REFERENCE_BYTES = 128  # of memory that the place of a chunk takes
_JSON_FACTOR = 16  # bytes of memory that a byte of JSON may take


def packed(attributes: Mapping[str, Any], levels: Sequence[Chunks], file: str) -> bytes:
    """Return the list of references as a file: JSON in bzip2, chunks last and in their order.

    Args:
        attributes: of the group.
        levels: the arrays "0", "1", ...
        file: the address of the file that they refer to, for other readers.
    """
    about = {".zgroup": {"zarr_format": 2}, ".zattrs": attributes}
    for number, level in enumerate(levels):
        about[f"{number}/.zarray"] = level.metadata()
        about[f"{number}/.zattrs"] = {"_ARRAY_DIMENSIONS": list(level.axes)}
    lines = [f"{json.dumps(key)}:{json.dumps(_compact(value))}" for key, value in about.items()]
    # The space makes bzip2's result smaller by a hundredth.
    lines += [
        f'"{number}/{key}":["{_URL}", {offset},{count}]'
        for number, level in enumerate(levels)
        for key, offset, count in zip(level.keys(), level.offsets, level.counts, strict=True)
        if count
    ]
    start = f'{{"version":1,"templates":{_compact({"u": file})},"refs":{{'
    return bz2.compress(f"{start}{','.join(lines)}}}}}".encode())


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def unpacked(name: str, content: bytes, length: int, limits: Limits) -> list[Chunks]:
    """Return the levels that a list of references describes.

    A list of a hundred thousand tiles takes most of the time that opening a link does, so its
    entries are read as one table of numbers: only as ``packed`` writes them, and in its order.

    Args:
        name: of the link, for messages.
        content: of the file.
        length: of the file that is referred to, in bytes.
        limits: what may be declared.

    Raises:
        UnsupportedImage: if it needs more memory than the limits allow.
        ValueError, KeyError, TypeError: if it makes no sense, or reaches beyond its file.
    """
    text = _decompressed(name, content, limits)
    # What is said of the arrays comes first. Inside of a JSON text no quote stands like this.
    first = text.rfind(b',"', 0, max(0, text.find(b':["{{u}}"')))
    about, entries = (text, b"") if first < 0 else (text[:first] + b"}}", text[first + 1 :])
    refs = json.loads(about)["refs"]
    levels: list[Chunks] = []
    while f"{len(levels)}/.zarray" in refs:
        levels.append(_empty_level(name, refs, len(levels), limits))
    if len(refs) != 2 + 2 * len(levels):  # .zgroup, .zattrs, and two for each level
        raise ValueError(f"it lists {len(refs)} entries where {2 + 2 * len(levels)} have a place")
    table = _table(entries, len(levels[0].axes))
    if len(table) and not 0 <= table[:, 0].min() <= table[:, 0].max() < len(levels):
        raise ValueError("it lists chunks of levels that it does not have")
    levels = [
        _placed(level, number, table[table[:, 0] == number, 1:], length)
        for number, level in enumerate(levels)
    ]
    limits.check_piece(name, "compressed chunks", int(table[:, -1].max(initial=0)))
    return levels


def _table(entries: bytes, axes: int) -> NDArray[np.int64]:
    """Return a row a chunk: its level, its place along each axis, offset and length."""
    count = entries.count(b":")
    # Without its digits, every entry looks the same.
    same = b",".join([b'"/%s":["%s", ,]' % (b"." * (axes - 1), _URL.encode())] * count)
    if entries.translate(None, _DIGITS) != (same + b"}}" if count else b""):
        raise ValueError("a chunk lies in another file, or nowhere")
    numbers = np.fromstring(entries.translate(_SPACED), np.int64, sep=" ")
    return numbers.reshape(count, 3 + axes)


def _placed(level: Chunks, number: int, table: NDArray[np.int64], length: int) -> Chunks:
    """Return a level with its references; rows are place along the axes, offset and length."""
    across, down = level.grid
    sides = {"y": down, "x": across, "c": level.planes}
    grid = tuple(sides[axis] for axis in level.axes)
    places, starts, sizes = table[:, :-2].T, table[:, -2], table[:, -1]
    # Raises ValueError for a place outside of the grid.
    index = np.ravel_multi_index(tuple(places), grid) if len(table) else places[0]
    if (np.diff(index) <= 0).any():
        raise ValueError(f"chunks of level {number} are out of order")
    if (sizes < 1).any() or (starts > length - sizes).any():
        raise ValueError(f"a chunk of level {number} lies beyond the end of the file")
    offsets, counts = np.zeros((2, across * down * level.planes), np.int64)
    offsets[index], counts[index] = starts, sizes
    return replace(level, offsets=tuple(offsets.tolist()), counts=tuple(counts.tolist()))


def _decompressed(name: str, content: bytes, limits: Limits) -> bytes:
    most = limits.memory // _JSON_FACTOR
    decompressor = bz2.BZ2Decompressor()
    text = decompressor.decompress(content, max_length=most + 1)
    if len(text) > most:
        raise UnsupportedImage(
            f"{name} holds a list of references of more than {readable(most)}, a sixteenth of the "
            "memory limit; raise the limit with --max-memory"
        )
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("its list of references does not end where it should")
    return text


def _empty_level(name: str, refs: Mapping[str, Any], number: int, limits: Limits) -> Chunks:
    """Return a level without its references from its .zarray and .zattrs."""
    stored = json.loads(refs[f"{number}/.zarray"])
    axes = tuple(json.loads(refs[f"{number}/.zattrs"])["_ARRAY_DIMENSIONS"])
    shape, chunk = (
        {"c": 1} | {axis: int(n) for axis, n in zip(axes, stored[key], strict=True)}
        for key in ("shape", "chunks")
    )
    dtype = np.dtype(str(stored["dtype"]))
    if (stored["zarr_format"], stored["order"]) != (2, "C") or dtype.kind not in _KINDS:
        raise ValueError(f"it holds an array of another kind ({dtype})")
    if min(chunk.values()) < 1 or shape["c"] < 1 or shape["c"] % chunk["c"]:
        raise ValueError("its chunks have an impossible shape")
    limits.check_image(name, shape["x"], shape["y"])
    pieces = f"chunks of {chunk['x']} x {chunk['y']} pixels"
    limits.check_piece(name, pieces, chunk["x"] * chunk["y"] * chunk["c"] * dtype.itemsize)
    level = Chunks(
        width=shape["x"],
        height=shape["y"],
        tile=(chunk["x"], chunk["y"]),
        samples=chunk["c"],
        planes=shape["c"] // chunk["c"],
        dtype=dtype,
        compressor=stored["compressor"],
        filters=tuple(stored["filters"] or ()),
        empty=float(stored["fill_value"]),
        offsets=(),
        counts=(),
    )
    if level.axes != axes:
        raise ValueError(f"its axes are {', '.join(axes)}")
    across, down = level.grid
    if across * down * level.planes * _REFERENCE_BYTES > limits.memory:
        raise UnsupportedImage(
            f"{name} says that it consists of {across * down * level.planes} chunks, too many for "
            f"the memory limit of {readable(limits.memory)}; raise it with --max-memory"
        )
    return level
