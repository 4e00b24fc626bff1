"""What the metadata of zarr v2 and v3 says of an array or a group.

Read by us and not by a library: the levels of a remote image cannot be listed, JPEG chunks are
unknown to the libraries, and what a document declares is held against the limits first.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tnet.adapters.limits import Limits
from tnet.adapters.zarr.sources import Source, joined
from tnet.errors import DataError, UnsupportedImage

_MOST_AXES = 32
_AT_ONCE = 16  # documents asked for over the network
_INDEX_ENTRY = 16  # bytes of a shard's index for each chunk
_BITS = {2: ("<H", "<e"), 4: ("<I", "<f"), 8: ("<Q", "<d")}


@dataclass(frozen=True)
class Group:
    """A group.

    Attributes:
        key: of its folder in the store.
        attributes: of the user.
        listed: the paths that consolidated metadata names, if there is any.
    """

    key: str
    attributes: Mapping[str, Any]
    listed: tuple[str, ...]


@dataclass(frozen=True)
class Array:
    """An array.

    Attributes:
        key: of its folder in the store.
        shape: along its axes.
        chunks: shape of what is decoded at once.
        files: shape of what one file holds: a shard, or a chunk.
        dtype: in this machine's byte order.
        fill: the value of what was never written.
        names: of the axes, as far as it tells.
        attributes: of the user.
        codecs: of a chunk, as zarr v3 lists them; None of zarr v2.
        sharding: the configuration of the shards, None without.
        outermost: the codec that made the bytes of a chunk, its checksum left out; "" for none.
        prefix: of the files' keys, before the numbers of a chunk.
        separator: between these numbers.
    """

    key: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    files: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: float
    names: tuple[str | None, ...] | None
    attributes: Mapping[str, Any]
    codecs: tuple[Mapping[str, Any], ...] | None
    sharding: Mapping[str, Any] | None
    outermost: str
    prefix: str
    separator: str

    @property
    def document(self) -> str:
        """The key of its metadata."""
        return f"{self.key}/{'.zarray' if self.codecs is None else 'zarr.json'}".removeprefix("/")

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunks) * self.dtype.itemsize

    @property
    def per_file(self) -> tuple[int, ...]:
        """How many chunks a file holds along each axis."""
        return tuple(file // chunk for file, chunk in zip(self.files, self.chunks, strict=True))

    def file(self, place: Sequence[int]) -> str:
        """Return the key of the file at a place in the grid of files."""
        numbers = self.separator.join(map(str, place))
        return f"{self.key}/{self.prefix}{numbers}".removeprefix("/")


Node = Array | Group | None


def node_at(source: Source, key: str, limits: Limits) -> Node:
    """Return the array or the group at a key, None where there is neither.

    Raises:
        UnsupportedImage: if it is of a kind that is not read, or exceeds the limits.
        DataError: if its metadata is damaged.
    """
    try:
        node = _version_3(source, key) or _version_2(source, key)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{source.where(key)} cannot be opened as zarr, its metadata is damaged "
            f"({type(error).__name__}: {error}); make or download it again"
        ) from error
    if isinstance(node, Array):
        _check(source.where(key), node, limits)
    return node


def nodes_at(source: Source, keys: Sequence[str], limits: Limits) -> list[Node]:
    """Return what is at several keys, in order; asked for at once where the network is slow."""
    if source.patience is None or len(keys) < 2:
        return [node_at(source, key, limits) for key in keys]
    with ThreadPoolExecutor(min(_AT_ONCE, len(keys)), "tnet-metadata") as pool:
        return list(pool.map(lambda key: node_at(source, key, limits), keys))


def _version_3(source: Source, key: str) -> Node:
    document = source.document(joined(key, "zarr.json", source.name))
    if document is None:
        return None
    attributes = dict(document.get("attributes") or {})
    if document["node_type"] == "group":
        consolidated = document.get("consolidated_metadata") or {}
        return Group(key, attributes, tuple(consolidated.get("metadata") or ()))
    codecs = _codecs(document["codecs"])
    files = chunks = document["chunk_grid"]["configuration"]["chunk_shape"]
    if document["chunk_grid"]["name"] != "regular":
        raise UnsupportedImage(f"{source.where(key)} has chunks of many sizes; write it anew")
    sharding = None
    # With codecs around it, a shard is read as a whole.
    if len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed":
        sharding = dict(codecs[0]["configuration"])
        chunks, codecs = sharding["chunk_shape"], _codecs(sharding["codecs"])
        sharding["index_codecs"] = _codecs(sharding["index_codecs"])
    names = document.get("dimension_names")
    encoding = document["chunk_key_encoding"]
    default = encoding["name"] == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if default else ".")
    dtype = _dtype(source.where(key), document["data_type"])
    return Array(
        key=key,
        shape=_numbers(document["shape"]),
        chunks=_numbers(chunks),
        files=_numbers(files),
        dtype=dtype,
        fill=_fill(document.get("fill_value"), dtype),
        names=None if names is None else tuple(names),
        attributes=attributes,
        codecs=codecs,
        sharding=sharding,
        outermost=next((c["name"] for c in reversed(codecs) if c["name"] != "crc32c"), ""),
        prefix=f"c{separator}" if default else "",
        separator=separator,
    )


def _version_2(source: Source, key: str) -> Node:
    document = source.document(joined(key, ".zarray", source.name))
    if document is None and source.document(joined(key, ".zgroup", source.name)) is None:
        return None
    attributes = source.document(joined(key, ".zattrs", source.name)) or {}
    if document is None:
        listed = (source.document(joined(key, ".zmetadata", source.name)) or {}).get("metadata")
        folders = [name.rpartition("/")[0] for name in listed or () if name.endswith("/.zarray")]
        return Group(key, attributes, tuple(folders))
    chunks = _numbers(document["chunks"])
    dtype = _dtype(source.where(key), document["dtype"])
    return Array(
        key=key,
        shape=_numbers(document["shape"]),
        chunks=chunks,
        files=chunks,
        dtype=dtype,
        fill=_fill(document.get("fill_value"), dtype),
        names=None,
        attributes=attributes,
        codecs=None,
        sharding=None,
        outermost=str((document.get("compressor") or {}).get("id", "")),
        prefix="",
        separator=document.get("dimension_separator", "."),
    )


def _check(where: str, array: Array, limits: Limits) -> None:
    """Refuse shapes that contradict each other or the limits."""
    axes = len(array.shape)
    if not len(array.chunks) == len(array.files) == axes or axes > _MOST_AXES:
        raise DataError(f"{where} has chunks and axes of unlike number; make it again")
    if min((0, *array.shape)) < 0 or min((1, *array.chunks, *array.files)) < 1:
        raise DataError(f"{where} has a shape that makes no sense; make it again")
    if array.separator not in ("/", "."):
        raise DataError(f"{where} names its chunks in a way that makes no sense; make it again")
    if any(file % chunk for file, chunk in zip(array.files, array.chunks, strict=True)):
        raise DataError(f"{where} has shards that its chunks do not fill; make it again")
    shape = " x ".join(map(str, array.chunks))
    limits.check_piece(where, f"chunks of {shape} values", array.chunk_bytes)
    limits.check_piece(where, "shards of too many chunks", math.prod(array.per_file) * _INDEX_ENTRY)


def _codecs(values: Sequence[Any]) -> tuple[Mapping[str, Any], ...]:
    """Return codecs as names and configurations, which may be left out."""
    codecs: list[dict[str, Any]] = [
        {"name": value} if isinstance(value, str) else dict(value) for value in values
    ]
    for codec in codecs:
        codec["configuration"] = dict(codec.get("configuration") or {})
        if not isinstance(codec["name"], str):
            raise TypeError(f"a codec is called {codec['name']}")
    return tuple(codecs)


def _numbers(values: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(value) is int for value in values):
        raise TypeError(f"{values} are no whole numbers")
    return tuple(values)


def _dtype(where: str, name: Any) -> np.dtype[Any]:
    """Return the type of zarr's name, v3 ("uint8") or v2 ("<u2")."""
    try:
        if not isinstance(name, str):
            raise TypeError
        return np.dtype(name).newbyteorder("=")
    except TypeError as error:
        raise UnsupportedImage(
            f"{where} holds {name} values; convert it to integers or floats"
        ) from error


def _fill(value: Any, dtype: np.dtype[Any]) -> float:
    """Return a fill value; JSON spells what is not finite, or exact to the bit, as text."""
    if isinstance(value, str) and value.startswith("0x") and dtype.kind == "f":
        bits, floating = _BITS[dtype.itemsize]
        return float(struct.unpack(floating, struct.pack(bits, int(value, 16)))[0])
    if dtype.kind not in "uif":
        return 0.0
    return 0.0 if value is None else float(value)
