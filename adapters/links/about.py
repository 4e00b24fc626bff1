"""What a link says of itself: which file it points to, and the facts of the image in it."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from tnet.errors import DataError
from tnet.facts import Facts, Level

AGAIN = "link it again with `tnet link --overwrite`"

_HEAD = 2**16


@dataclass(frozen=True)
class Origin:
    """The file that a link points to, and how it was when it was linked.

    Attributes:
        relative: its path from the link's folder, None where there is none (another drive).
        absolute: its path.
        size: in bytes.
        mtime_ns: when it was changed last.
        head: SHA-256 of its first 64 KiB, in hex.
    """

    relative: str | None
    absolute: str
    size: int
    mtime_ns: int
    head: str

    def at(self, link: Path) -> Path:
        """Return where the file is now: from the link's folder, else where it was.

        Raises:
            DataError: if it is gone or was changed; the text says how.
        """
        places = [Path(self.absolute)]
        if self.relative is not None:
            places.insert(0, Path(os.path.normpath(link.resolve() / self.relative)))
        there = [place for place in places if place.is_file()]
        if not there:
            raise DataError(
                f"{link} points to {self.absolute}, which is not there (moved?); link it again "
                "with `tnet link`"
            )
        faults = {place: self._fault(place) for place in there}
        for place, fault in faults.items():
            if fault is None:
                return place
        raise DataError(f"{link} points to {there[0]}, {faults[there[0]]} since; {AGAIN}")

    def _fault(self, place: Path) -> str | None:
        status = place.stat()
        if status.st_size != self.size:
            return f"whose size has changed from {self.size} to {status.st_size} bytes"
        if status.st_mtime_ns != self.mtime_ns:
            return (
                f"which was linked as of {_time(self.mtime_ns)} and was written to at "
                f"{_time(status.st_mtime_ns)}"
            )
        return None if head_of(place) == self.head else "whose first bytes have changed"


def origin_of(source: Path, link: Path) -> Origin:
    """Return the file as it is now, as a link at that place names it."""
    absolute = source.resolve()
    try:
        relative = Path(os.path.relpath(absolute, link.resolve())).as_posix()
    except ValueError:  # on another drive
        relative = None
    status = absolute.stat()
    head = head_of(absolute)
    return Origin(relative, str(absolute), status.st_size, status.st_mtime_ns, head)


def head_of(path: Path) -> str:
    """Return the SHA-256 of the first 64 KiB of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.sha256(file.read(_HEAD)).hexdigest()


def about_facts(facts: Facts) -> dict[str, Any]:
    """Return facts as JSON has them, numbers that JSON does not know as text."""
    values = asdict(facts) | {"dtype": facts.dtype.str}
    del values["name"]
    for name in ("nodata", "unwritten", "background"):
        values[name] = _texts(values[name])
    return values


def _texts(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_texts(inner) for inner in value]
    return value if value is None or np.isfinite(value) else str(float(value))


def facts_of(path: Path, said: Mapping[str, Any]) -> Facts:
    """Return facts from what ``about_facts`` made of them."""
    levels = tuple(
        Level(
            int(level["width"]),
            int(level["height"]),
            float(level["scale_x"]),
            float(level["scale_y"]),
            _pair(level["tile"], int),
        )
        for level in said["levels"]
    )
    return Facts(
        name=str(path),
        format=f"link to {said['format']}",
        levels=levels,
        bands=int(said["bands"]),
        dtype=np.dtype(str(said["dtype"])),
        background=tuple(float(value) for value in said["background"]),
        spacing=_pair(said["spacing"], float),
        unit=said["unit"],
        crs=said["crs"],
        transform=None if said["transform"] is None else tuple(map(float, said["transform"])),
        nodata=None if said["nodata"] is None else float(said["nodata"]),
        unwritten=None if said["unwritten"] is None else float(said["unwritten"]),
        notes=tuple(map(str, said["notes"])),
    )


def _pair(values: Any, kind: Any) -> Any:
    if values is None:
        return None
    first, second = values
    return kind(first), kind(second)


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9).astimezone().isoformat(" ", "milliseconds")
