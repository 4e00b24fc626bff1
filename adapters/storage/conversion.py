"""Any image to an OME-Zarr 0.5 store: streamed, resumable, sealed."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tnet.adapters.opening import open_pyramid
from tnet.adapters.storage.filling import fill
from tnet.adapters.storage.seal import read_seal
from tnet.adapters.storage.staging import identity_of, publish, restore, staged
from tnet.adapters.storage.wanted import Wanted
from tnet.errors import DataError, UsageError
from tnet.pyramid import Pyramid

Told = Callable[[int], None]

VERSION = 1  # of the way stores are made: another one's unfinished stores are begun anew

_SAMPLE = 2**14  # bytes
_SAMPLES = 17


@dataclass(frozen=True)
class Converted:
    """What came of a conversion.

    Attributes:
        outcome: "converted", "resumed", or "already converted".
        megapixels: of level 0.
        levels: how many.
        size: bytes of the store.
    """

    outcome: str
    megapixels: float
    levels: int
    size: int


def convert(
    source: Path, destination: Path, wanted: Wanted | None = None, told: Told = lambda _: None
) -> Converted:
    """Convert an image into a zarr store.

    The store grows in a hidden folder beside its destination and is renamed when it is whole; what
    an interrupted run has made is used by the next one, whose result is the same to the byte.

    Args:
        source: any image that ``open_pyramid`` reads.
        destination: the store, a folder; its parent is made.
        wanted: how.
        told: called with the number of level-0 pixels that are done since last time.

    Raises:
        UsageError: if something else stands at the destination.
        DataError: if the source cannot be read or stored so, or changes meanwhile.
        BusyError: if another process is writing the destination.
        SpaceError: if the disk has not enough room.
        OSError: if the system refuses.
    """
    wanted = wanted or Wanted()
    with open_pyramid(source, mpp=wanted.mpp, limits=wanted.limits) as pyramid:
        identity, stamp = identity_with(source, wanted), _stamp(source)
        destination.parent.mkdir(parents=True, exist_ok=True)
        restore(destination)
        if (finished := _finished(destination, identity, wanted.overwrite)) is not None:
            return _outcome("already converted", pyramid, destination, finished)
        with staged(destination, identity, stamp) as stage:
            # Another process may have finished it just before the lock was free.
            if (finished := _finished(destination, identity, wanted.overwrite)) is not None:
                return _outcome("already converted", pyramid, destination, finished)
            resumed = stage.resumed
            levels = fill(stage, source, pyramid, wanted, told)
            if _stamp(source) != stamp:
                raise DataError(f"{source} changed while it was converted; run the command again")
            stage.seal(**identity)
            publish(destination, wanted.overwrite)
    return _outcome("resumed" if resumed else "converted", pyramid, destination, levels)


def identity_with(source: Path, wanted: Wanted) -> dict[str, dict[str, Any]]:
    """Return what a store is made from, and how, as its seal has it."""
    settings = {"codec": wanted.codec, "associated": wanted.associated, "version": VERSION}
    if wanted.mpp is not None:
        settings["mpp"] = wanted.mpp
    return {"source": source_identity(source), "settings": settings}


def source_identity(source: Path) -> dict[str, Any]:
    """Return name and size of a source, and a digest of its beginning, its end and samples between.

    Of a zarr folder, that of its metadata; of a slide of several files, that of the one named.
    """
    first = source
    if source.is_dir():
        names = ("zarr.json", ".zattrs", ".zarray")
        first = next((source / name for name in names if (source / name).is_file()), source)
    size = first.stat().st_size
    digest = hashlib.sha256()
    with first.open("rb") as file:
        for number in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE) * number // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    return {"name": source.name, "size": size, "sample": digest.hexdigest()}


def _stamp(source: Path) -> list[int]:
    """Return what changes when a source does."""
    about = source.stat()
    return [about.st_size, about.st_mtime_ns]


def _finished(destination: Path, identity: dict[str, Any], overwrite: bool) -> int | None:
    """Return the number of levels if the destination is what is wanted already.

    Raises:
        UsageError: if it is something else, and not to be replaced.
    """
    if overwrite or not os.path.lexists(destination):
        return None
    try:
        seal = read_seal(destination) if destination.is_dir() else None
    except DataError:
        seal = None
    if seal is not None and identity_of(seal) == identity:
        return sum(name.count("/") == 1 and name[0].isdecimal() for name in seal.files)
    made = ""
    if seal is not None:
        made = f", made from {seal.source.get('name')} with --codec {seal.settings.get('codec')}"
    raise UsageError(
        f"{destination} exists already{made}; name another one, or replace it with --overwrite"
    )


def _outcome(outcome: str, pyramid: Pyramid, destination: Path, levels: int) -> Converted:
    seal = read_seal(destination)
    size = sum(file.size for file in seal.files.values()) if seal else 0
    return Converted(outcome, pyramid.width * pyramid.height / 1e6, levels, size)
