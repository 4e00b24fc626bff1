"""Where the files of a zarr store are: a folder that may not lead out of itself.

What metadata declares is not believed before its size and nesting are seen to be sane.
"""

import json
import os
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tnet.adapters.segments import File
from tnet.adapters.storage.seal import SEAL, read_seal
from tnet.errors import DataError, UnsupportedImage

DOCUMENT_BYTES = 2**23
DOCUMENT_DEPTH = 64
WHOLE_BYTES = 2**30  # of a file that is read as a whole

# How tensorstore begins to say that the network failed.
_NETWORK = ("ABORTED", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "UNAVAILABLE", "UNAUTHENTICATED")
_SEAL_FOLDER = SEAL.partition("/")[0]
_OPEN_FILES = 64  # of all stores at once
_TEXT_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)


class UnreachableError(DataError):
    """A store that the network does not lead to, or not now."""


class Source(Protocol):
    """The files of a store by key, their path inside it with "/" between."""

    @property
    def name(self) -> str:
        """What messages call the store."""

    @property
    def sealed(self) -> bool:
        """Whether the store says that it is complete."""

    @property
    def patience(self) -> float | None:
        """Seconds that a read through the network may take, None for a store on this machine."""

    def where(self, key: str) -> str:
        """Return the path or address of a key."""

    def document(self, key: str) -> dict[str, Any] | None:
        """Return a JSON document, None where there is no such file.

        Raises:
            UnsupportedImage: if it is larger or deeper than any metadata is, or lies elsewhere.
            DataError: if it is damaged.
        """

    def folders(self, key: str) -> list[str]:
        """Return the names of what may be arrays of a group."""

    def check(self, key: str) -> None:
        """Refuse what lies outside of the store, or is no file; there need not be one.

        Raises:
            UnsupportedImage: if it is such.
        """

    def stamp(self, key: str) -> tuple[int, ...] | None:
        """Return what tells a file from another one of its name; None if there is none.

        Over the network, where asking would cost a round trip, all are alike.
        """

    def read(self, key: str, start: int, count: int | None) -> bytes | None:
        """Return bytes of a file, None where there is no such file.

        Args:
            key: of the file.
            start: the first byte; below 0, counted from the end.
            count: how many; None reads up to the end.

        Raises:
            DataError: if it ends before, or is too large to be read as a whole.
            OSError: if the system refuses.
        """

    def spec(self, key: str) -> dict[str, Any]:
        """Return what tensorstore calls the folder of a key."""

    def close(self) -> None:
        """Let go of open files; a later read opens them again."""


class _OpenFiles:
    """The files that were read last, of all stores, so that many stores do not hold too many."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[object, str], File] = OrderedDict()
        self.unlock()

    def get(self, owner: object, key: str, make: Callable[[], File]) -> File:
        """Return a file of a store, opening it by ``make`` where it is not open."""
        with self._lock:
            file = self._files.get((owner, key))
        file = file or make()
        with self._lock:
            self._files[owner, key] = file
            self._files.move_to_end((owner, key))
            # Who still reads from the oldest keeps it open; nobody does, and it closes itself.
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
        return file

    def forget(self, owner: object) -> None:
        """Let go of the files of a store."""
        with self._lock:
            for key in [key for key in self._files if key[0] is owner]:
                del self._files[key]

    def unlock(self) -> None:
        """Forget who holds the lock: in a forked process that thread does not exist."""
        # A store may be collected, and its files forgotten, while this thread is in here.
        self._lock = threading.RLock()


_FILES = _OpenFiles()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_FILES.unlock)


class Folder:
    """A store in a folder of this machine.

    Args:
        path: of the folder.
        checked: whether a seal is read and held against the metadata.

    Raises:
        DataError: if the store is sealed, and its seal or its metadata is damaged.
    """

    patience = None

    def __init__(self, path: Path, checked: bool = True) -> None:
        self.name = str(path)
        self._path = path
        self._root = path.resolve()
        self._text = str(self._root)
        self._token = object()  # names the store among the open files without keeping it
        weakref.finalize(self, _FILES.forget, self._token)
        seal = read_seal(path) if checked else None
        self.sealed = seal is not None
        if seal is not None:
            seal.check_metadata(path)

    def where(self, key: str) -> str:
        """Return the path of a key."""
        return str(self._path / key)

    def document(self, key: str) -> dict[str, Any] | None:
        """Return a JSON document, None where there is no such file."""
        path = self._root / key
        if not path.is_file():
            return None
        self.check(key)
        if path.stat().st_size > DOCUMENT_BYTES:
            raise too_large(self.where(key))
        return parsed(path.read_bytes(), self.where(key))

    def folders(self, key: str) -> list[str]:
        """Return the names of the folders in a folder."""
        folders = {entry.name for entry in os.scandir(self._root / key) if entry.is_dir()}
        return sorted(folders - {_SEAL_FOLDER})

    def check(self, key: str) -> None:
        """Refuse what lies outside of the store, or is no file; there need not be one."""
        real = Path(os.path.realpath(self._root / key))
        if not real.is_relative_to(self._root):
            raise UnsupportedImage(
                f"{self.where(key)} is a link that leads outside of itself ({self.name}); put what "
                "it leads to in its place"
            )
        # Of a folder nothing would be read, as if it were not there, and of a pipe for ever.
        if real.exists() and not real.is_file():
            raise UnsupportedImage(f"{self.where(key)} is no file; make the store again")

    def stamp(self, key: str) -> tuple[int, ...] | None:
        """Return what tells a file from another one of its name; None if there is none."""
        try:
            # Every read asks: joining text takes a tenth of the time of joining paths.
            status = os.stat(f"{self._text}/{key}")  # noqa: PTH116
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    def read(self, key: str, start: int, count: int | None) -> bytes | None:
        """Return bytes of a file, None where there is no such file."""
        try:
            file = self._file(key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if count is None and file.size > WHOLE_BYTES:
            raise too_large(self.where(key), WHOLE_BYTES)
        first = start if start >= 0 else max(0, file.size + start)
        return file.read(first, file.size - first if count is None else count)

    def _file(self, key: str) -> File:
        def opened() -> File:
            self.check(key)
            return File(self._root / key)

        return _FILES.get(self._token, key, opened)

    def spec(self, key: str) -> dict[str, Any]:
        """Return what tensorstore calls the folder of a key."""
        return {"driver": "file", "path": (self._root / key).as_posix() + "/"}

    def close(self) -> None:
        """Let go of open files; a later read opens them again."""
        _FILES.forget(self._token)


def joined(key: str, name: str, store: str) -> str:
    """Return the key of what a document at ``key`` calls ``name``.

    Raises:
        UnsupportedImage: if that would lie outside of the store.
    """
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise UnsupportedImage(
            f"{store} names a level outside of itself ({name!r}); mend its paths"
        )
    return "/".join(part for part in (*key.split("/"), *parts) if part not in ("", "."))


def parsed(content: bytes, where: str) -> dict[str, Any]:
    """Return a JSON document, having counted its brackets.

    Raises:
        UnsupportedImage: if it is nested deeper than any metadata is.
        DataError: if it is no JSON object.
    """
    depth = 0
    for match in _TEXT_OR_BRACKET.finditer(content):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(match[0], 0)
        if depth > DOCUMENT_DEPTH:
            raise UnsupportedImage(
                f"{where} is nested deeper than {DOCUMENT_DEPTH} brackets, as no metadata is; "
                "make it again"
            )
    try:
        document = json.loads(content)
        if not isinstance(document, dict):
            raise TypeError(f"a {type(document).__name__} instead of an object")
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{where} cannot be opened as zarr metadata ({error}); make or download it again"
        ) from error
    return document


def too_large(where: str, most: int = DOCUMENT_BYTES) -> UnsupportedImage:
    """Return what is wrong with a file that has more than ``most`` bytes."""
    return UnsupportedImage(
        f"{where} is larger than the {most // 2**20} MiB that such a file may have; make it again"
    )


def cause_of(error: Exception) -> str:
    """Return what a library says of a failure, without what only its makers need."""
    text = " ".join(str(error).partition(" [")[0].split())
    return text or type(error).__name__


def is_of_network(error: Exception) -> bool:
    """Say whether it is the network that failed, not the data."""
    return isinstance(error, TimeoutError | UnreachableError) or str(error).startswith(_NETWORK)


def unreachable(name: str, error: Exception) -> DataError:
    """Return a failure of the network in words."""
    if isinstance(error, UnreachableError):
        return error
    cause = "no answer in time" if isinstance(error, TimeoutError) else cause_of(error)
    return UnreachableError(
        f"{name} cannot be reached ({cause}); check the address and the network, and try again"
    )
