"""Writing pieces: all of them, in order, whatever a system takes at once or has no way to do."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tnet.adapters.storage.disk import write_pieces


def written(path: Path, pieces: Sequence[bytes], cached: bool) -> bytes:
    """Write pieces, then more of them, and return what the file holds."""
    with path.open("wb", buffering=0) as file:
        write_pieces(file.fileno(), pieces, cached=cached)
        write_pieces(file.fileno(), [b"end"])
    return path.read_bytes()


@given(pieces=st.lists(st.binary(max_size=9), max_size=20), cached=st.booleans())
def test_pieces_lie_one_after_the_other(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], cached: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces"
    assert written(path, pieces, cached) == b"".join(pieces) + b"end"


@pytest.mark.parametrize("cached", [True, False])
def test_more_pieces_than_a_system_takes_at_once(tmp_path: Path, cached: bool) -> None:
    pieces = [number.to_bytes(2, "big") for number in range(3000)]
    assert written(tmp_path / "many", pieces, cached) == b"".join(pieces) + b"end"


@pytest.mark.skipif(not hasattr(os, "pwritev"), reason="this system has no pwritev")
@pytest.mark.parametrize(
    "answer",
    [OSError(errno.EOPNOTSUPP, "no"), OSError(errno.EINVAL, "no"), NotImplementedError()],
    ids=["file system", "system", "C library"],
)
def test_where_there_is_no_way_past_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Exception
) -> None:
    def refuse(*_: object) -> int:
        raise answer

    monkeypatch.setattr(os, "pwritev", refuse)
    assert written(tmp_path / "file", [b"one", b"two"], cached=False) == b"onetwoend"


@pytest.mark.skipif(not hasattr(os, "pwritev"), reason="this system has no pwritev")
def test_a_full_disk_is_said_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    monkeypatch.setattr("tnet.adapters.storage.disk.sys.platform", "linux")
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "file", [b"one"], cached=False)


@pytest.mark.skipif(not hasattr(os, "pwritev"), reason="this system has no pwritev")
def test_what_a_system_writes_half_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_bytes(descriptor: int, pieces: Sequence[memoryview], *_: object) -> int:
        return os.write(descriptor, pieces[0][:2])

    monkeypatch.setattr(os, "pwritev", two_bytes)
    monkeypatch.setattr(os, "writev", two_bytes)
    for cached in (True, False):
        found = written(tmp_path / "file", [b"abc", b"", b"defgh"], cached)
        assert found == b"abcdefghend"
