"""A store in the making: written beside its destination, resumable, and renamed when whole.

Files are written under another name and renamed, and a journal lists each with its digest; what
the journal does not know is written again. The folder is locked while somebody works in it, by a
lock that the system lets go of when its holder dies.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tnet.adapters.storage.disk import all_to_disk, remove, to_disk, write_pieces
from tnet.adapters.storage.locking import HOLDER, LOCK, locked
from tnet.adapters.storage.seal import SEAL, Seal, Sealed, difference, digest_of, read_seal
from tnet.adapters.storage.shards import ShardFile
from tnet.errors import DataError

JOURNAL = "journal.jsonl"

_MOST_BYTES = 255  # that file systems take for a name


class Stage:
    """A folder in which a store grows; see ``staged``."""

    def __init__(self, destination: Path, done: dict[str, Sealed], journal: IO[bytes]) -> None:
        self.destination = destination
        self.folder = stage_of(destination)
        self._done = done
        self._journal = journal
        self._folders: set[Path] = set()  # that are made
        self.resumed = bool(done)

    @property
    def files(self) -> Mapping[str, Sealed]:
        """What is written so far."""
        return self._done

    def holds(self, name: str) -> bool:
        """Say whether a file is written."""
        return name in self._done

    def begin(self, name: str, count: int) -> ShardFile:
        """Return a shard to be written; ``finish`` ends it.

        Args:
            name: of its file in the store.
            count: how many chunks its grid has.

        Raises:
            OSError: if the system refuses.
        """
        return ShardFile(self._partial(name), count)

    def finish(self, name: str, shard: ShardFile) -> None:
        """Give a shard its name.

        Raises:
            OSError: if the system refuses.
        """
        self._keep(name, shard.path, shard.finish())

    def write(self, name: str, pieces: Sequence[bytes]) -> None:
        """Write a file of the store, all of it or nothing.

        Raises:
            OSError: if the system refuses.
        """
        partial = self._partial(name)
        with partial.open("wb", buffering=0) as file:
            write_pieces(file.fileno(), pieces)
        content = b"".join(pieces)
        self._keep(name, partial, Sealed(len(content), digest_of(content)))

    def _partial(self, name: str) -> Path:
        path = self.folder / f"{name}.partial"
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        return path

    def _keep(self, name: str, partial: Path, sealed: Sealed) -> None:
        partial.replace(self.folder / name)
        self.adopt(name, sealed)

    def adopt(self, name: str, sealed: Sealed) -> None:
        """Take up a file that stands in the stage already."""
        self._journal.write(_line(name, sealed))
        self._done[name] = sealed

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON file of the store."""
        self.write(name, [json.dumps(values, indent=1, ensure_ascii=False).encode()])

    def seal(self, source: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Bring everything to the disk, then write the seal.

        Raises:
            OSError: if the system refuses.
        """
        folders = [Path(folder) for folder, _, _ in os.walk(self.folder)]
        all_to_disk([*(self.folder / name for name in self._done), *folders])
        files = dict(sorted(self._done.items()))
        path = self.folder / SEAL
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_bytes(Seal(files, source, settings).to_bytes())
        to_disk(partial)
        partial.replace(path)
        to_disk(path.parent)
        to_disk(self.folder)


@contextmanager
def staged(destination: Path, identity: Mapping[str, Any], stamp: object) -> Iterator[Stage]:
    """Give the stage of a destination, with what an interrupted run of the same work left there.

    Afterwards the stage is still there; ``publish`` ends it.

    Args:
        destination: where the store shall stand.
        identity: what is made and from what; a stage of anything else is begun anew.
        stamp: what tells that the source has not changed since.

    Raises:
        BusyError: if another process works on it.
        OSError: if the system refuses.
    """
    folder = stage_of(destination)
    with locked(folder, destination):
        about = {"identity": identity, "stamp": stamp}
        first = json.dumps(about, sort_keys=True).encode() + b"\n"
        done = _recovered(folder, first)
        if done is None:
            _emptied(folder)
            done = {}
        partial = folder / f"{JOURNAL}.partial"
        partial.write_bytes(first + _boot() + b"".join(_line(*entry) for entry in done.items()))
        partial.replace(folder / JOURNAL)
        # One write a line: a line is in the file as a whole, or it is torn and does not count.
        with (folder / JOURNAL).open("ab", buffering=0) as journal:
            stage = Stage(destination, done, journal)
            try:
                yield stage
            finally:
                if not stage.files:
                    discard(folder)


def discard(folder: Path) -> None:
    """Delete a stage whose lock is held, as far as the system lets us; the lock goes last.

    Without it another process would begin in the folder while it is being deleted.
    """
    with suppress(OSError):
        _emptied(folder)
        unlock(folder)
        folder.rmdir()


def publish(destination: Path, overwrite: bool) -> None:
    """Rename a sealed stage to its destination.

    Args:
        destination: where the store shall stand.
        overwrite: put it in the place of what stands there.

    Raises:
        OSError: if the system refuses, or something stands there.
    """
    folder, aside = stage_of(destination), _aside(destination)
    (folder / JOURNAL).unlink(missing_ok=True)
    to_disk(folder)
    if overwrite and os.path.lexists(destination):
        destination.rename(aside)
    folder.rename(destination)
    unlock(destination)
    to_disk(destination.parent)
    if os.path.lexists(aside):
        remove(aside)


def unlock(store: Path) -> None:
    """Take the lock out of a store that has been published.

    Not before: another process would take the stage for what a killed one has left, and begin to
    work in it.
    """
    for name in (HOLDER, LOCK):
        (store / name).unlink(missing_ok=True)


def restore(destination: Path) -> None:
    """Put back what a publication that was killed halfway had put aside.

    Raises:
        BusyError: if another process works on the destination.
        OSError: if the system refuses.
    """
    aside = _aside(destination)
    if not os.path.lexists(aside):
        return
    with locked(stage_of(destination), destination):
        if os.path.lexists(destination):
            remove(aside)
        else:
            aside.rename(destination)
        if not {entry.name for entry in stage_of(destination).iterdir()} - {LOCK, HOLDER}:
            discard(stage_of(destination))


def stage_of(destination: Path) -> Path:
    """Return the folder in which a store grows."""
    return _beside(destination, "partial")


def _aside(destination: Path) -> Path:
    return _beside(destination, "replaced")


def _beside(destination: Path, suffix: str) -> Path:
    """Return a hidden folder beside a destination, whose name may be too long for a prefix."""
    name = f".{destination.name}.{suffix}"
    if len(os.fsencode(name)) > _MOST_BYTES:
        name = f".{digest_of(os.fsencode(destination.name))}.{suffix}"
    return destination.with_name(name)


def _recovered(folder: Path, first: bytes) -> dict[str, Sealed] | None:
    """Return what is written already, or None where a stage has to be begun anew."""
    try:
        lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return _sealed_already(folder, first)
    if len(lines) < 2 or lines[0] != first:
        return None
    # After the machine went down, what the journal says may never have reached the disk.
    certain = lines[1] == _boot()
    done = {}
    for line in lines[2:]:
        with suppress(ValueError, TypeError):
            name, size, digest = json.loads(line)
            file = Sealed(size, digest)
            there = _length(folder / name) == size
            if there and (certain or difference(folder, name, file) is None):
                done[name] = file
    return done


def _sealed_already(folder: Path, first: bytes) -> dict[str, Sealed] | None:
    """Return the files of a stage that was sealed, and killed before it was renamed."""
    try:
        seal = read_seal(folder)
    except DataError:
        return None
    if seal is None or json.loads(first)["identity"] != identity_of(seal):
        return None
    (folder / SEAL).unlink()
    return dict(seal.files)


def identity_of(seal: Seal) -> dict[str, Any]:
    """Return what a sealed store was made from, and how."""
    return {"source": dict(seal.source), "settings": dict(seal.settings)}


def _emptied(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name not in (LOCK, HOLDER):
            remove(entry)


def _boot() -> bytes:
    """Return a line that tells the runs of the machine apart, where the system has a name."""
    with suppress(OSError):
        text = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return json.dumps({"boot": text}).encode() + b"\n"
    return json.dumps({"boot": os.urandom(16).hex()}).encode() + b"\n"


def _line(name: str, file: Sealed) -> bytes:
    return json.dumps([name, file.size, file.xxh3]).encode() + b"\n"


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
