"""Which images a command line means: files, folders, patterns, addresses, and lists of them."""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from tnet.errors import UsageError

_ZARR = ".zarr"
_UNFINISHED = ".partial"
_MOST_BYTES = 255 - len(".json")  # what file systems take, less the longest suffix of ours


class Url(str):
    """The address of an image elsewhere, as given; a Path would swallow one of its slashes."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The last part of the address, as a file's name is of its path."""
        place = re.split("[?#]", self.partition("://")[2])[0]
        return place.rstrip("/").rpartition("/")[2]


Source: TypeAlias = Path | Url


def find_images(arguments: Iterable[str]) -> list[Source]:
    """Return the images that the arguments name, in their order, each path once.

    An argument is a file, a zarr folder (one image), a folder (the images in it, sorted, without
    those of its subfolders), a glob pattern (likewise), ``@list.txt``, or an address such as
    https://host/image.zarr. A file that is named outright is returned whether it exists or not:
    that it cannot be read is told of it alone.

    Raises:
        UsageError: if a folder, a pattern or a list holds no image, or a list cannot be read.
    """
    found: dict[str, Source] = {}
    for argument in arguments:
        named = _listed(argument) if argument.startswith("@") else _expanded(argument, Path())
        for source in named:
            found.setdefault(_key(source), source)
    return list(found.values())


def _key(source: Source) -> str:
    return source if isinstance(source, Url) else os.path.normpath(source.absolute())


def output_names(paths: Iterable[Source]) -> list[str]:
    """Return a name for each image's own files: without folder and known suffix, all different.

    The second image of a name becomes NAME-2, and so on; case is no difference. A name that is
    too long for a file with a suffix is cut at its end.
    """
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    names = []
    for path in paths:
        stem = _stem(path)
        number = numbers.get(stem.casefold(), 0) + 1
        name = _cut(stem, "" if number == 1 else f"-{number}")
        while name.casefold() in taken:
            number += 1
            name = _cut(stem, f"-{number}")
        numbers[stem.casefold()] = number
        taken.add(name.casefold())
        names.append(name)
    return names


def _cut(stem: str, number: str) -> str:
    """Return a stem and its number, in no more bytes than a file's name may have."""
    room = _MOST_BYTES - len(number)
    encoded = stem.encode("utf-8", "surrogateescape")
    if len(encoded) > room:
        stem = encoded[:room].decode("utf-8", "ignore")
    return stem + number


def _stem(path: Source) -> str:
    from tnet.adapters import SUFFIXES

    name = path.name if isinstance(path, Url) or path.name else path.absolute().name
    if Path(name).suffix.lower() in SUFFIXES:
        name = Path(name).stem
    if name.lower().endswith(".ome"):
        name = name[: -len(".ome")]
    return name or "image"


def _listed(argument: str) -> list[Source]:
    """Return what a text file lists, one path a line, relative to the file's folder."""
    file = Path(argument[1:])
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(f"the list {file} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the list {file} is not a text file in UTF-8") from error
    entries = [line.strip() for line in lines]
    named = [
        path
        for entry in entries
        if entry and not entry.startswith("#")
        for path in _expanded(entry, file.parent)
    ]
    if not named:
        raise UsageError(f"the list {file} names no images; write one path a line")
    return named


def _expanded(argument: str, folder: Path) -> list[Source]:
    """Return what an argument, relative to a folder, stands for."""
    from tnet.adapters import is_image, is_url

    if not argument:
        raise UsageError("the name of an image is empty; name a file, a folder or a pattern")
    if is_url(argument):
        return [Url(argument)]
    path = folder / argument
    if _exists(path):
        if not path.is_dir() or is_image(path) or path.suffix.lower() == _ZARR:
            return [path]
        return [*_images(path.iterdir(), f"the folder {path}")]
    if glob.has_magic(argument):
        pattern = f"{glob.escape(str(folder))}/{argument}" if folder.parts else argument
        matches = map(Path, glob.iglob(pattern, recursive=True))  # noqa: PTH207 - may be absolute
        whole = (path for path in matches if not any(map(is_image, path.parents)))
        return [*_images(whole, f"the pattern {argument}")]
    return [path]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long, or forbidden: the reader will say so
        return False


def _images(candidates: Iterable[Path], where: str) -> list[Path]:
    from tnet.adapters import is_image

    try:
        # A folder that is called a zarr and is none shall be told of, not passed over.
        found = sorted(
            path
            for path in candidates
            if (is_image(path) or path.suffix.lower() == _ZARR) and path.suffix != _UNFINISHED
        )
    except OSError as error:
        raise UsageError(f"{where} cannot be read ({error.strerror or error})") from error
    if not found:
        raise UsageError(
            f"{where} holds no images that are read here; name files, or a zarr folder"
        )
    return found
