"""A hurt store made whole again from what it was made from, to the byte.

What is hurt is made anew beside the store, held against the seal, and renamed into its place file
by file: whatever happens meanwhile, the store is never worse than it was.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from tnet.adapters.limits import DEFAULT, Limits
from tnet.adapters.links.reading import is_link
from tnet.adapters.opening import open_pyramid
from tnet.adapters.storage.conversion import source_identity, version_of
from tnet.adapters.storage.disk import remove, to_disk
from tnet.adapters.storage.filling import fill
from tnet.adapters.storage.findings import Report
from tnet.adapters.storage.inferring import settings_of
from tnet.adapters.storage.listing import listed, names_others, owner_of, strangers
from tnet.adapters.storage.seal import SEAL, Seal, difference, read_seal
from tnet.adapters.storage.staging import Stage, discard, staged
from tnet.adapters.storage.wanted import MEAN, OWN, Wanted
from tnet.errors import DataError, UsageError

Told = Callable[[int], None]

_AGREE = 0.5  # of a store's sound shards, with a source that no seal names


def check_source(store: Path, source: Path) -> None:
    """Make sure that a store can be repaired from a source, as far as that is known beforehand.

    Raises:
        UsageError: if the source is not what the store was made from.
        DataError: if the store is none that can be repaired.
    """
    if not source.exists():
        raise UsageError(f"{source} does not exist; name with --repair what {store} was made from")
    if is_link(store):
        raise DataError(f"{store} is a link and holds nothing to repair; link the image again")
    try:
        seal = read_seal(store)
    except DataError:
        return
    if seal is None:
        return
    if names_others(seal):
        raise DataError(f"{store}: its seal names files outside of it; delete and convert it again")
    if seal.settings.get("version") != version_of(str(seal.settings.get("codec"))):
        raise DataError(f"{store} was made by another version of TNet; delete and convert it again")
    _compare(store, source, seal)


def _compare(store: Path, source: Path, seal: Seal) -> None:
    """Make sure that a source is what a seal names.

    Raises:
        UsageError: if it is not.
    """
    found = source_identity(source)
    if {**found, "name": seal.source.get("name")} != dict(seal.source):
        raise UsageError(
            f"{source} is not what {store} was made from ({seal.source.get('name')}, "
            f"{seal.source.get('size')} bytes); name that with --repair"
        )
    if found != dict(seal.source):
        raise UsageError(
            f"{store} was made from {source} when that was called {seal.source.get('name')}; give "
            "it that name again, or a link of that name to it"
        )


def source_in(folder: Path, store: Path) -> Path:
    """Return the file of a folder that a store was made from, by the name in its seal.

    Raises:
        DataError: if the store has no seal that can be read.
    """
    try:
        seal = read_seal(store)
    except DataError:
        seal = None
    if seal is None:
        raise DataError(f"{store} has no sound seal to name its source; name the file itself")
    return folder / PurePosixPath(str(seal.source.get("name"))).name


def repair(
    report: Report,
    source: Path,
    *,
    threads: int | None = None,
    limits: Limits = DEFAULT,
    told: Told = lambda _: None,
) -> tuple[str, ...]:
    """Repair a store; check it again afterwards.

    Args:
        report: of its check.
        source: what it was made from.
        threads: that read and encode; None is one a core.
        limits: of what the source may declare.
        told: called with the number of level-0 pixels that are done since last time.

    Returns:
        what is to be said of it; files that could not be made anew as they were are left alone.

    Raises:
        UsageError: if the source is not what the store was made from.
        DataError: if the source cannot be read, or the store is none that can be repaired.
        BusyError: if another process is writing the store.
        SpaceError: if the disk has not enough room.
        OSError: if the system refuses.
    """
    check_source(report.store, source)
    if not report.sealed:
        raise DataError(
            f"{report.store} has no seal, and only what `tnet convert` has made can be repaired; "
            "make it again"
        )
    store = report.store.resolve()
    try:
        seal = read_seal(store)
    except DataError:
        seal = None
    with _scratch(store, source) as stage:
        if seal is None:
            seal = _sealed_anew(stage, report, store, source, threads, limits, told)
            hurt = [n for n, file in seal.files.items() if difference(store, n, file)]
        else:
            hurt = _hurt(report, seal)
            _adopt(stage, store, seal, hurt)
            _fill(stage, source, seal.settings, threads, limits, told)
        left = [name for name in hurt if stage.files.get(name) != seal.files[name]]
        _place(stage, store, [name for name in hurt if name not in left], left)
        for fault in strangers(listed(store), seal)[0]:
            if fault.extra:
                remove(store / fault.file)
        if not left and (stage.folder / SEAL).exists():
            _place(stage, store, [SEAL], [])
    if not left:
        return ()
    said = (
        f"{len(left)} files made anew from {source} are not what they were, because other versions "
        f"of libraries write other bytes; delete {report.store} and convert the image again"
    )
    return (said,)


@contextmanager
def _scratch(store: Path, source: Path) -> Iterator[Stage]:
    """Give an empty stage beside a store, which nobody else writes meanwhile; take it away."""
    # The time makes it unlike every stage that is left of a conversion or a killed repair.
    about = {"repair": str(source)}
    with staged(store, about, time.time_ns()) as stage:
        try:
            yield stage
        finally:
            discard(stage.folder)


def _hurt(report: Report, seal: Seal) -> list[str]:
    """Return the files of a store that have to be made anew."""
    faults = {fault.file for fault in report.faults}
    parents = ((name, map(str, PurePosixPath(name).parents)) for name in seal.files)
    return [name for name, above in parents if name in faults or not faults.isdisjoint(above)]


def _adopt(stage: Stage, store: Path, seal: Seal, hurt: Iterable[str]) -> None:
    """Put the whole shards into the stage; what is made of a hurt one is made anew with it.

    All other files are small and made anew: what makes them looks at no more than one of them.
    """
    gone = set(hurt)
    for name, file in seal.files.items():
        if name in gone or not _level(name, seal):
            continue
        path = stage.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(store / name, path)
        except OSError:  # a disk that knows no second name for a file
            shutil.copyfile(store / name, path)
        stage.adopt(name, file)


def _level(name: str, seal: Seal) -> bool:
    """Say whether a file is a shard of a level."""
    return owner_of(name, seal) != name and PurePosixPath(owner_of(name, seal)).name.isdecimal()


def _sealed_anew(
    stage: Stage,
    report: Report,
    store: Path,
    source: Path,
    threads: int | None,
    limits: Limits,
    told: Told,
) -> Seal:
    """Make all of a store again, and its seal; the settings are those that its arrays show.

    Raises:
        DataError: if that is another store.
    """
    with open_pyramid(source, limits=limits) as pyramid:
        settings = settings_of(store, pyramid.spacing)
    _fill(stage, source, settings, threads, limits, told)
    stage.seal(source_identity(source), settings)
    seal = read_seal(stage.folder)
    assert seal is not None, "it was written just now"
    hurt = {fault.file for fault in report.faults}
    sound = [name for name in seal.files if _level(name, seal) and name not in hurt]
    same = sum(difference(store, name, seal.files[name]) is None for name in sound)
    if not same or same < _AGREE * len(sound):
        raise DataError(
            f"{store} cannot be repaired: its seal is lost, and of its {len(sound)} sound shards "
            f"{same} are what {source} gives; name what it was made from, or convert that again"
        )
    return seal


def _fill(
    stage: Stage,
    source: Path,
    settings: Mapping[str, Any],
    threads: int | None,
    limits: Limits,
    told: Told,
) -> None:
    wanted = Wanted(
        codec=str(settings["codec"]),
        levels=OWN if settings.get("levels") == OWN else MEAN,
        mpp=settings.get("mpp"),
        associated=bool(settings["associated"]),
        limits=limits,
        threads=threads,
    )
    with open_pyramid(source, mpp=wanted.mpp, limits=limits) as pyramid:
        fill(stage, source, pyramid, wanted, told)


def _place(stage: Stage, store: Path, names: Iterable[str], left: Iterable[str]) -> None:
    """Rename files into their places; a link to a folder goes when all under it are there."""
    needed = {str(parent) for name in left for parent in PurePosixPath(name).parents}
    for name in names:
        parents = [str(parent) for parent in PurePosixPath(name).parents][-2::-1]
        blocked = [folder for folder in parents if _is_no_folder(store / folder)]
        if not needed.isdisjoint(blocked):
            continue
        for folder in blocked:
            remove(store / folder)
        _replace(stage.folder / name, store / name)


def _is_no_folder(path: Path) -> bool:
    return path.is_symlink() or (path.exists() and not path.is_dir())


def _replace(new: Path, old: Path) -> None:
    """Rename a file into the place of another, for good."""
    to_disk(new)
    old.parent.mkdir(parents=True, exist_ok=True)
    if old.is_dir() and not old.is_symlink():
        remove(old)
    new.replace(old)
    to_disk(old.parent)
