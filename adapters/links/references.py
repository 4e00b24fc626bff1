"""Where the chunks of an image lie in another file: kerchunk's list of references, version 1.

The list is a zarr v2 group in one JSON document, which zarr-python reads through fsspec.
"""

import bz2
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import add
from typing import Any

import numpy as np

from tnet.adapters.limits import Limits, readable
from tnet.adapters.links.level import Chunks
from tnet.errors import UnsupportedImage

_KINDS = "uif"
_URL = "{{u}}"  # kerchunk's way to name the file once
_REFERENCE_BYTES = 400  # of memory that a chunk takes while the list is read
_JSON_FACTOR = 16  # bytes of memory that a byte of JSON may take


def packed(attributes: Mapping[str, Any], levels: Sequence[Chunks], file: str) -> bytes:
    """Return the list of references as a file: JSON in bzip2.

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

    Args:
        name: of the link, for messages.
        content: of the file.
        length: of the file that is referred to, in bytes.
        limits: what may be declared.

    Raises:
        UnsupportedImage: if it needs more memory than the limits allow.
        ValueError, KeyError, TypeError: if it makes no sense, or reaches beyond its file.
    """
    refs = json.loads(_decompressed(name, content, limits))["refs"]
    levels: list[Chunks] = []
    count = 2  # .zgroup and .zattrs
    while f"{len(levels)}/.zarray" in refs:
        number = len(levels)
        level, used = _level(name, refs, number, length, limits)
        count += used + 2
        levels.append(level)
    if count != len(refs):
        raise ValueError(f"it lists {len(refs)} entries where {count} have a place")
    return levels


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


def _level(
    name: str, refs: Mapping[str, Any], number: int, length: int, limits: Limits
) -> tuple[Chunks, int]:
    """Return a level, and how many references it has."""
    axes = json.loads(refs[f"{number}/.zattrs"])["_ARRAY_DIMENSIONS"]
    empty = _empty_level(name, json.loads(refs[f"{number}/.zarray"]), tuple(axes), limits)
    across, down = empty.grid
    if across * down * empty.planes * _REFERENCE_BYTES > limits.memory:
        raise UnsupportedImage(
            f"{name} says that it consists of {across * down * empty.planes} chunks, too many for "
            f"the memory limit of {readable(limits.memory)}; raise it with --max-memory"
        )
    start, left_out = f"{number}/", (_URL, 0, 0)
    found = [refs.get(start + key, left_out) for key in empty.keys()]  # noqa: SIM118 - no dict
    listed = sum(entry is not left_out for entry in found)
    if set(map(len, found)) != {3} or {entry[0] for entry in found} != {_URL}:
        raise ValueError(f"a chunk of level {number} lies in another file, or in none")
    offsets, counts = tuple(entry[1] for entry in found), tuple(entry[2] for entry in found)
    if {*map(type, offsets), *map(type, counts)} != {int}:
        raise ValueError(f"a chunk of level {number} lies nowhere")
    if min(offsets) < 0 or listed != sum(map(bool, counts)) or min(counts) < 0:
        raise ValueError(f"a chunk of level {number} lies nowhere in the file")
    if max(map(add, offsets, counts)) > length:
        raise ValueError(f"a chunk of level {number} lies beyond the end of the file")
    limits.check_piece(name, "compressed chunks", max(counts))
    return replace(empty, offsets=offsets, counts=counts), listed


def _empty_level(
    name: str, stored: Mapping[str, Any], axes: tuple[str, ...], limits: Limits
) -> Chunks:
    """Return a level without its references from its .zarray."""
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
    return level
