"""Images that are byte for byte the same, whatever their names."""

import hashlib
import os
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path

from tnet.datasets.abreast import side_by_side
from tnet.datasets.entries import Entry, together

_PIECE = 2**16  # bytes of a file that tell it from most others
_KEYED = 2**20  # bytes read at a time


def same_content(entries: Sequence[Entry]) -> tuple[tuple[Entry, ...], ...]:
    """Return the rows whose files are byte for byte the same, in groups of two or more.

    Sizes are compared first, then a few pieces of the files, and all bytes only of those that
    are still alike. Files that cannot be read are left out.
    """
    groups: list[list[Entry]] = [list(entries)]
    for key in (_outline, _size, _pieces, _bytes):
        alike = []
        for group in groups:
            keys = side_by_side(partial(_known, key), group)
            keyed = together(zip(keys, group, strict=True))
            alike += [same for same in keyed.values() if len(same) > 1]
        groups = alike
    return tuple(tuple(group) for group in groups)


def _known(key: Callable[[Path], Hashable], entry: Entry) -> Hashable:
    """Return the key of a row's file; one that cannot be read is like no other."""
    try:
        return key(entry.image)
    except OSError:
        return entry.image


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _outline(path: Path) -> Hashable:
    """Return the size of a file; of a folder names and sizes of what lies in it directly."""
    if not path.is_dir():
        return path.stat().st_size
    files = [file for file in path.iterdir() if file.is_file()]
    return tuple(sorted((file.name, file.stat().st_size) for file in files))


def _size(path: Path) -> Hashable:
    """Return the size of a file; of a folder names and sizes."""
    return tuple(
        (str(file.relative_to(path)), file.stat().st_size) if path.is_dir() else file.stat().st_size
        for file in _files(path)
    )


def _pieces(path: Path) -> Hashable:
    """Return a hash of the beginning, the middle and the end of every file."""
    digest = hashlib.sha256()
    for file in _files(path):
        with file.open("rb") as stream:
            length = stream.seek(0, os.SEEK_END)
            for start in (0, length // 2, max(0, length - _PIECE)):
                stream.seek(start)
                digest.update(stream.read(_PIECE))
    return digest.digest()


def _bytes(path: Path) -> Hashable:
    """Return a hash of all bytes."""
    digest = hashlib.sha256()
    for file in _files(path):
        with file.open("rb") as stream:
            while block := stream.read(_KEYED):
                digest.update(block)
    return digest.digest()
