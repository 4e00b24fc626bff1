"""One writer for a folder, by a lock that the system lets go of when its holder dies."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tnet.errors import TNetError

try:
    import fcntl
except ImportError:  # not on Windows, where two converters on one destination are not told apart
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"
HOLDER = "holder"


class BusyError(TNetError):
    """A destination that another process is writing."""

    exit_code = 5


@contextmanager
def locked(folder: Path, destination: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made.

    Args:
        folder: to be written.
        destination: what it is to become, for messages.

    Raises:
        BusyError: if another process holds it.
        OSError: if the system refuses.
    """
    while (lock := _acquired(folder, destination)) is None:
        continue
    with lock:
        yield


def _acquired(folder: Path, destination: Path) -> IO[bytes] | None:
    """Return the lock, held, or None where the folder was published in between."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = (folder / LOCK).open("ab")
    except FileNotFoundError:
        return None
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_same(lock, folder / LOCK):
            (folder / HOLDER).write_text(f"process {os.getpid()} on {socket.gethostname()}")
            return lock
    except BlockingIOError as error:
        lock.close()
        raise BusyError(_busy(folder, destination)) from error
    lock.close()
    return None


def _busy(folder: Path, destination: Path) -> str:
    try:
        holder = (folder / HOLDER).read_text()
    except OSError:
        holder = "another process"
    return f"{destination} is being written by {holder}; wait for it, or stop it"


def _is_same(file: IO[bytes], path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
