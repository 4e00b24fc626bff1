"""Whether a store is whole: nothing missing, nothing changed, nothing added to its arrays.

A sealed store is held against its seal, file by file; where one differs, its chunks are decoded to
find those that are hurt. Without a seal there is only the structure, and what decodes.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from tnet.adapters.limits import DEFAULT, Limits, OverLimit
from tnet.adapters.links.reading import check_link, is_link
from tnet.adapters.storage.decoding import Checker, Decoded, has_checksums, places
from tnet.adapters.storage.findings import Fault, Report, Stored
from tnet.adapters.storage.listing import Listing, listed, names_others, owner_of, strangers
from tnet.adapters.storage.seal import SEAL, Seal, difference, new_digest, read_seal
from tnet.adapters.storage.structure import MARKS, Structure, structure_of
from tnet.adapters.zarr.sources import Folder
from tnet.errors import DataError

Told = Callable[[int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")

_AT_ONCE = 4096  # files that wait for a thread
_MOST_MISSING = 1000  # that are told of one by one


def verify(
    store: Path,
    *,
    threads: int | None = None,
    limits: Limits = DEFAULT,
    told: Told = lambda _: None,
) -> Report:
    """Check a store, or a link; nothing is written.

    Args:
        store: its folder.
        threads: that read; None is one a core.
        limits: of what may be declared and decoded.
        told: called with the number of bytes that were looked at since last time.
    """
    if not store.is_dir():
        what = "is no folder, and a store is one" if store.exists() else "does not exist"
        return _unreadable(store, f"{what}; check the name")
    try:
        if is_link(store):
            return _of_link(store, limits)
        listing = listed(store)
        seal, broken = _seal(store)
        if seal is None and not broken and not any(mark in listing.files for mark in MARKS):
            return _unreadable(store, "holds no zarr metadata; name the folder of a store")
        source = Folder(store, checked=False)
        pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, "tnet-verify")
        try:
            structure = structure_of(source, list(listing.files), limits)
            check = _Check(source, store, listing, structure, pool, told)
            return check.sealed(seal) if seal is not None else check.unsealed(broken)
        finally:
            pool.shutdown(cancel_futures=True)
            source.close()
    except OverLimit as error:
        return _unreadable(store, str(error))
    except OSError as error:
        return _unreadable(store, f"cannot be read ({error.strerror or error})")


def size_of(store: Path) -> int:
    """Return how many bytes of a store there are to look at."""
    try:
        return 0 if is_link(store) else sum(listed(store).files.values())
    except OSError:
        return 0


class _Check:
    """The check of one store."""

    def __init__(
        self,
        source: Folder,
        store: Path,
        listing: Listing,
        structure: Structure,
        pool: ThreadPoolExecutor,
        told: Told,
    ) -> None:
        self._store = store
        self._listing = listing
        self._structure = structure
        self._pool = pool
        self._told = told
        self._source = source

    def sealed(self, seal: Seal) -> Report:
        """Hold the store against its seal."""
        faults, notes = strangers(self._listing, seal)
        hurt = {}
        for name, what in self._each(list(seal.files), partial(self._difference, seal)):
            self._told(self._listing.files.get(name, 0))
            if what is not None:
                hurt[name] = what
        whole = not any(PurePosixPath(name).name == MARKS[0] for name in hurt)
        for _, found in self._each(list(hurt), lambda name: self._located(name, hurt[name], seal)):
            faults += found
        if whole:
            faults += self._structure.faults
        return self._report(True, faults, [*notes, *(self._structure.notes if whole else ())])

    def _difference(self, seal: Seal, name: str) -> str | None:
        return difference(self._store, name, seal.files[name])

    def _located(self, name: str, what: str, seal: Seal) -> list[Fault]:
        """Return the faults of a hurt file: of all of it, or of its hurt chunks."""
        stored = self._structure.arrays.get(owner_of(name, seal))
        place = None if stored is None else stored.place(name)
        if stored is None or place is None:
            return [Fault(name, what)]
        if name not in self._listing.files:
            return [stored.fault(place, what)]
        decoded = Checker(self._source, stored).file(place)
        if decoded.faults:
            return [Fault(f.file, f"{what} and {f.what}", f.level, f.part, f.region)
                    for f in decoded.faults]  # fmt: skip
        with (self._store / name).open("rb") as file:
            digest = hashlib.file_digest(file, new_digest).hexdigest()
        other = next((n for n, file in seal.files.items() if file.xxh3 == digest), None)
        if other is not None:
            return [stored.fault(place, f"holds what belongs into {other}")]
        if not decoded.tight:
            return [Fault(name, f"{what}, but only in bytes that belong to no chunk")]
        return [stored.fault(place, "was written anew: it is sound, but not what was sealed")]

    def unsealed(self, broken: str | None) -> Report:
        """Decode all that is stored.

        Args:
            broken: what is wrong with the seal of a store that was complete; None without one.
        """
        broken = broken or _lost(self._structure)
        faults = [Fault(SEAL, broken)] if broken else []
        faults += [fault for fault in self._structure.faults if fault.file != SEAL]
        notes = [*self._structure.notes]
        if not broken:
            notes.append("it has no seal, so only what can be decoded is known to be there")
        arrays = self._structure.arrays.values()
        count = sum(stored.count for stored in arrays)
        missing = count - sum(self._decoded(stored, faults) for stored in arrays)
        if broken:
            faults += [fault for stored in arrays for fault in self._missing(stored)]
        elif missing:
            what = f"{missing} of {count} chunks are not stored and read as the fill value"
            faults.append(Fault("", f"no seal: {what}"))
        if not all(map(has_checksums, arrays)):
            notes.append("its chunks have no checksums: damage that still decodes goes unseen")
        return self._report(bool(broken), faults, notes)

    def _decoded(self, stored: Stored, faults: list[Fault]) -> int:
        """Decode the files of an array; return how many chunks are stored."""
        checker, count = Checker(self._source, stored), 0
        key = stored.array.key
        names = {
            name: place
            for name in self._listing.files
            if (not key or name.startswith(f"{key}/")) and (place := stored.place(name)) is not None
        }

        def work(name: str) -> Decoded:
            return checker.file(names[name])

        for name, decoded in self._each(list(names), work):
            self._told(self._listing.files[name])
            faults += decoded.faults
            count += decoded.chunks
        return count

    def _missing(self, stored: Stored) -> list[Fault]:
        """Return which files of an array of a complete store are missing, or the first of them."""
        found: list[Fault] = []
        for place in places(stored.grid):
            if stored.file(place) not in self._listing.files:
                found.append(stored.fault(place, "is missing"))
            if len(found) == _MOST_MISSING:
                break
        return found

    def _each(
        self, items: list[Item], work: Callable[[Item], Result]
    ) -> Iterator[tuple[Item, Result]]:
        """Do the work of every item in the pool, a bounded number at a time."""
        for start in range(0, len(items), _AT_ONCE):
            some = items[start : start + _AT_ONCE]
            yield from zip(some, self._pool.map(work, some), strict=True)

    def _report(self, sealed: bool, faults: Iterable[Fault], notes: Iterable[str]) -> Report:
        sizes = self._listing.files.values()
        return Report(self._store, sealed, len(sizes), sum(sizes), tuple(faults), tuple(notes))


def _seal(store: Path) -> tuple[Seal | None, str | None]:
    """Return the seal of a store, or what is wrong with it; neither where it has none."""
    try:
        seal = read_seal(store)
    except DataError:
        return None, "is damaged, so what it vouched for is only decoded"
    if seal is None:
        return None, "is missing" if (store / SEAL).parent.exists() else None
    if names_others(seal):
        return None, "names files outside of the store"
    return seal, None


def _lost(structure: Structure) -> str | None:
    """Return what is wrong if a store without a seal must have had one."""
    own = structure.attributes.get("tnet")
    made_by_us = isinstance(own, dict) and "spacing" in own
    return "is missing, and the store was made with one" if made_by_us else None


def _of_link(store: Path, limits: Limits) -> Report:
    sizes = [file.stat().st_size for file in store.rglob("*") if file.is_file()]
    faults = [Fault("", what) for what in check_link(store, deep=True, limits=limits)]
    return Report(store, True, len(sizes), sum(sizes), tuple(faults))


def _unreadable(store: Path, what: str) -> Report:
    said = what if str(store) in what else f"{store} {what}"
    return Report(store, faults=(Fault("", said),), readable=False)
