"""What is asked of the disk beyond plain files: many pieces in one write, and certainty."""

import errno
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_AT_ONCE = 8  # files that are waited for: a disk writes them together
_PIECES = 512  # at a time: systems take no more than 1024 at once
_DONTCACHE = 0x80  # RWF_DONTCACHE of Linux 6.14, which Python has no name for yet
_HERE = -1  # where the file's position is
_NO_WAY = (errno.EOPNOTSUPP, errno.EINVAL)  # of older systems, and of some file systems


def write_pieces(
    descriptor: int, pieces: Iterable[bytes | memoryview], *, cached: bool = True
) -> None:
    """Write pieces one after the other, however many the system takes at a time.

    Args:
        descriptor: of the file.
        pieces: what to write.
        cached: False lets the system forget them once they are on the disk, where it has a way to:
            it then needs no fresh memory for them, and throws nothing else out.

    Raises:
        OSError: if the system refuses.
    """
    waiting = [memoryview(piece) for piece in pieces if piece]
    start = 0
    while start < len(waiting):
        batch = waiting[start : start + _PIECES]
        written = _write(descriptor, batch, cached)
        for piece in batch:
            if written < len(piece):
                waiting[start] = piece[written:]
                break
            written -= len(piece)
            start += 1


def _write(descriptor: int, batch: Sequence[memoryview], cached: bool) -> int:
    """Write as many bytes as the system takes; return how many."""
    if not cached and sys.platform == "linux":
        try:
            return os.pwritev(descriptor, batch, _HERE, _DONTCACHE)
        except NotImplementedError:
            pass  # the C library has no such call
        except OSError as error:
            if error.errno not in _NO_WAY:
                raise
    return os.writev(descriptor, batch) if hasattr(os, "writev") else os.write(descriptor, batch[0])


def reserve(descriptor: int, offset: int, count: int) -> None:
    """Take room for bytes of a file that will be written, where the system has a way to do so.

    Raises:
        OSError: if the disk has no such room.
    """
    if count and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, offset, count)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def to_disk(path: Path) -> None:
    """Wait until a file or folder has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def all_to_disk(paths: Iterable[Path]) -> None:
    """Wait until files or folders have reached the disk, which takes many of them at once."""
    with ThreadPoolExecutor(_AT_ONCE, "tnet-disk") as pool:
        for _ in pool.map(to_disk, paths):
            continue


def remove(path: Path) -> None:
    """Delete a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
