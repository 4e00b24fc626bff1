"""Links: a zarr group of references into an image file, read at the speed of the file itself.

A link is a folder of four small files. It holds no pixels, and reads the file that it names: open
no link of somebody whom you would not let name a file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tnet.adapters.limits import DEFAULT, Limits, OverLimit
from tnet.adapters.links.about import AGAIN, Origin, facts_of
from tnet.adapters.links.level import Chunks
from tnet.adapters.links.references import unpacked
from tnet.adapters.pages import Paint, painting
from tnet.adapters.segments import File
from tnet.adapters.storage.seal import SEAL, difference, read_seal
from tnet.adapters.tiff import TiffPyramid
from tnet.errors import DataError
from tnet.facts import Facts

REFERENCES = "references.json.bz2"
GROUP = ".zgroup"
ATTRIBUTES = ".zattrs"
FILES = (GROUP, ATTRIBUTES, REFERENCES, SEAL)
SCHEMA = "tnet.link/1"

_MOST_ATTRIBUTES = 2**24  # bytes


@dataclass(frozen=True)
class Parts:
    """What a link consists of, read and checked."""

    source: Path
    levels: tuple[Chunks, ...]
    paint: Mapping[str, Any] | None
    facts: Facts

    def pyramid(self) -> TiffPyramid:
        """Open the file that the link points to.

        Raises:
            ValueError: if the levels contradict the facts.
        """
        paint, bands, dtype = _paint(self.paint, self.levels[0])
        sizes = [(level.width, level.height) for level in self.levels]
        kinds = {(n.planes * n.samples, n.dtype.newbyteorder("=")) for n in self.levels}
        if sizes != [(level.width, level.height) for level in self.facts.levels]:
            raise ValueError("its levels are not those that it speaks of")
        if len(kinds) > 1 or (bands, dtype) != (self.facts.bands, self.facts.dtype):
            raise ValueError("its values are not those that it speaks of")
        pages = [[level.page()] for level in self.levels]
        return TiffPyramid(File(self.source), pages, paint, self.facts)


def is_link(path: Path) -> bool:
    """Say whether a folder is a link."""
    return (path / REFERENCES).is_file()


def source_of(path: Path) -> Path:
    """Return the file that a link points to.

    Raises:
        DataError: if the link is damaged, or its file is gone or was changed.
    """
    return Origin(**read_about(path)["source"]).at(path)


def open_link(path: Path, limits: Limits = DEFAULT) -> TiffPyramid:
    """Open a link; the pixels come from the file that it points to.

    Raises:
        DataError: if the link is damaged, or its file is gone or was changed.
        UnsupportedImage: if it declares more than the limits allow.
    """
    return _checked(path, limits)[1]


def _checked(path: Path, limits: Limits) -> tuple[Parts, TiffPyramid]:
    """Return what a link consists of, and its file, opened."""
    try:
        parts = read_link(path, limits)
        return parts, parts.pyramid()
    except DataError:
        raise
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.strerror:  # of the system, not of a decoder
            said = f"{path} cannot be read ({error.strerror}: {error.filename})"
            raise DataError(said) from error
        raise DataError(f"{path} is a damaged link ({error}); {AGAIN}") from error


def check_link(path: Path, deep: bool, limits: Limits = DEFAULT) -> list[str]:
    """Return the faults of a link, each as a sentence; none means that it is whole.

    Args:
        path: of the link.
        deep: decode every chunk too. That finds what cannot be decoded; a file that was changed
            without its size and time showing it may still decode, to other pixels.
        limits: what it may declare.
    """
    try:
        parts, pyramid = _checked(path, limits)
    except OverLimit:
        raise
    except DataError as error:
        return [str(error)]
    pyramid.close()
    if not deep:
        return []
    file = File(parts.source)
    try:
        numbers = range(len(parts.levels))
        return [fault for number in numbers for fault in _undecoded(parts, number, file)]
    finally:
        file.close()


def _undecoded(parts: Parts, number: int, file: File) -> list[str]:
    """Return which chunks of a level cannot be decoded, and why."""
    level = parts.levels[number]
    page, (across, down) = level.page(), level.grid
    faults = []
    for index, (offset, count) in enumerate(zip(level.offsets, level.counts, strict=True)):
        if count == 0:
            continue
        try:
            page.decode(file.read(offset, count), index)
        except Exception as error:  # decoders of foreign data fail in many ways
            row, column = index // across % down, index % across
            x, y = column * level.tile[0], row * level.tile[1]
            right, bottom = (
                min(x + level.tile[0], level.width),
                min(y + level.tile[1], level.height),
            )
            faults.append(
                f"{parts.facts.name}: level {number}, x {x} to {right - 1}, y {y} to {bottom - 1} "
                f"cannot be decoded from {parts.source} ({error}); restore that file and link anew"
            )
    return faults


def read_link(path: Path, limits: Limits = DEFAULT) -> Parts:
    """Read and check the files of a link.

    Raises:
        DataError: as ``open_link``.
        ArithmeticError, LookupError, RecursionError, TypeError, ValueError, OSError: if they make
            no sense.
    """
    about = read_about(path)
    source = Origin(**about["source"]).at(path)
    file = path / REFERENCES
    limits.check_whole(str(path), "its list of references is that long", file.stat().st_size)
    content = file.read_bytes()
    levels = unpacked(str(path), content, source.stat().st_size, limits)
    return Parts(source, tuple(levels), about["paint"], facts_of(path, about["facts"]))


def read_about(path: Path) -> dict[str, Any]:
    """Return what a link says of itself, once its seal has shown that it is whole.

    Raises:
        DataError: if one of its files is missing or damaged, or of a version that is not known.
        LookupError, TypeError, ValueError, OSError: if it makes no sense.
    """
    seal = read_seal(path)
    if seal is None:
        raise DataError(f"{path} is a link without {SEAL}, so it is not whole; {AGAIN}")
    for name in FILES[:-1]:
        if fault := difference(path, name, seal.files[name]):
            raise DataError(f"{path}: its {name} {fault}; {AGAIN}")
    file = path / ATTRIBUTES
    if file.stat().st_size > _MOST_ATTRIBUTES:
        raise DataError(f"{file} is too large for the attributes of a link; {AGAIN}")
    about: dict[str, Any] = json.loads(file.read_bytes())["tnet"]
    if about["schema"] != SCHEMA:
        raise DataError(
            f"{path} is a link of a kind that is not known ({about['schema']}); {AGAIN}"
        )
    return about


def _paint(
    said: Mapping[str, Any] | None, level: Chunks
) -> tuple[Paint | None, int, np.dtype[Any]]:
    """Return what makes plain pixels of stored ones, and their bands and dtype."""
    bands, dtype = level.samples * level.planes, level.dtype.newbyteorder("=")
    if said is None:
        return None, bands, dtype
    palette = None if said["colormap"] is None else np.asarray(said["colormap"], np.uint16)
    if palette is not None and (palette.ndim, len(palette)) != (2, 3):
        raise ValueError("its palette holds no colours")
    page = SimpleNamespace(
        dtype=dtype,
        photometric=int(said["photometric"]),
        bitspersample=int(said["bitspersample"]),
        extrasamples=[int(kind) for kind in said["extrasamples"]],
        colormap=palette,
    )
    paint, bands, dtype, _ = painting(page, bands)
    return paint, bands, dtype
