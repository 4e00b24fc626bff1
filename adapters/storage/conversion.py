"""Any image to an OME-Zarr 0.5 store: streamed, resumable, sealed."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tnet.adapters.opening import open_pyramid
from tnet.adapters.storage.codecs import SOURCE
from tnet.adapters.storage.filling import fill, keeps_levels
from tnet.adapters.storage.replacing import check_replaceable
from tnet.adapters.storage.seal import Seal, read_seal
from tnet.adapters.storage.staging import identity_of, publish, restore, staged, unlock
from tnet.adapters.storage.wanted import Wanted
from tnet.errors import DataError, UsageError
from tnet.pyramid import Pyramid

Told = Callable[[int], None]

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
        identity, stamp = _identity(source, pyramid, wanted), _stamp(source)
        destination.parent.mkdir(parents=True, exist_ok=True)
        restore(destination)
        if (finished := _finished(source, destination, identity, wanted.overwrite)) is not None:
            return _outcome("already converted", pyramid, destination, finished)
        with staged(destination, identity, stamp) as stage:
            # Another process may have finished it just before the lock was free.
            if (finished := _finished(source, destination, identity, wanted.overwrite)) is not None:
                return _outcome("already converted", pyramid, destination, finished)
            resumed = stage.resumed
            levels = fill(stage, source, pyramid, wanted, told)
            if _stamp(source) != stamp:
                raise DataError(f"{source} changed while it was converted; run the command again")
            stage.seal(**identity)
            publish(destination, wanted.overwrite)
    return _outcome("resumed" if resumed else "converted", pyramid, destination, levels)


def version_of(codec: str) -> int:
    """Return the version of the way in which stores of a codec are made.

    Unfinished stores of another one are begun anew, and finished ones are not repaired.
    """
    return 3 if codec == SOURCE else 1


def _identity(source: Path, pyramid: Pyramid, wanted: Wanted) -> dict[str, dict[str, Any]]:
    """Return what a store is made from, and how, as its seal has it."""
    settings = {
        "codec": wanted.codec,
        "associated": wanted.associated,
        "version": version_of(wanted.codec),
    }
    if wanted.mpp is not None:
        settings["mpp"] = wanted.mpp
    if wanted.codec != SOURCE and keeps_levels(pyramid, wanted):
        settings["levels"] = wanted.levels
    return {"source": source_identity(source), "settings": settings}


def source_identity(source: Path) -> dict[str, Any]:
    """Return name and size of a source, and a digest of samples of it, its ends among them.

    Of a folder, and of a slide in several files, the names and sizes of all files count, and
    samples of some.
    """
    files = files_of(source)
    digest = hashlib.sha256()
    sizes = [file.stat().st_size for file in files]
    if len(files) > 1:
        for file, size in zip(files, sizes, strict=True):
            digest.update(f"{file.relative_to(source.parent)} {size}\n".encode())
    for number in range(_SAMPLES):
        part = number / (_SAMPLES - 1)
        chosen = round(part * (len(files) - 1))
        with files[chosen].open("rb") as opened:
            opened.seek(int(max(0, sizes[chosen] - _SAMPLE) * part))
            digest.update(opened.read(_SAMPLE))
    return {"name": source.name, "size": sum(sizes), "sample": digest.hexdigest()}


def files_of(source: Path) -> list[Path]:
    """Return the files that an image consists of, sorted: one, unless it is a folder or MRXS."""
    folder = source.with_suffix("") if source.suffix.lower() == ".mrxs" else source
    inside = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return inside if source.is_dir() else [source, *inside]


def _stamp(source: Path) -> list[int]:
    """Return what changes when a source does: its size, and when it was last written to.

    Raises:
        DataError: if it is no longer there.
    """
    try:
        about = [file.stat() for file in files_of(source)]
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror or error})") from error
    return [sum(each.st_size for each in about), max(each.st_mtime_ns for each in about)]


def _finished(
    source: Path, destination: Path, identity: dict[str, Any], overwrite: bool
) -> int | None:
    """Return the number of levels if the destination is what is wanted already.

    Raises:
        UsageError: if it is something else, and not to be replaced.
        DataError: if it is damaged.
    """
    if not os.path.lexists(destination):
        return None
    if overwrite:
        check_replaceable(source, destination)
        return None
    try:
        seal = read_seal(destination) if destination.is_dir() else None
    except DataError:
        seal = None
    if seal is not None and identity_of(seal) == identity:
        hurt = next((name for name in seal.files if not _is_there(destination, seal, name)), None)
        if hurt is not None:
            raise DataError(
                f"{destination} was converted before and is damaged since: its {hurt} is not what "
                "it was; run `tnet verify --repair SOURCE` on it, or replace it with --overwrite"
            )
        unlock(destination)  # where it was killed between its last two steps
        return sum(name.count("/") == 1 and name[0].isdecimal() for name in seal.files)
    made = ""
    if seal is not None:
        made = f", made from {seal.source.get('name')} with --codec {seal.settings.get('codec')}"
    raise UsageError(
        f"{destination} exists already{made}; name another one, or replace it with --overwrite"
    )


def _is_there(store: Path, seal: Seal, name: str) -> bool:
    """Say whether a file has the size that the seal says; looking closer is verifying."""
    try:
        return (store / name).stat().st_size == seal.files[name].size
    except OSError:
        return False


def _outcome(outcome: str, pyramid: Pyramid, destination: Path, levels: int) -> Converted:
    seal = read_seal(destination)
    size = sum(file.size for file in seal.files.values()) if seal else 0
    return Converted(outcome, pyramid.width * pyramid.height / 1e6, levels, size)
