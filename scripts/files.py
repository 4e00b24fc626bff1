"""What is written into the folder of results, so that a run may end at any moment."""

import errno
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tnet.adapters.exports.table import csv_cell, csv_line
from tnet.errors import DataError, TNetError, UsageError

if TYPE_CHECKING:
    from tnet.model import TNet
    from tnet.pyramid import Pyramid
    from tnet.record import Walk
    from tnet.scripts.inputs import Source
    from tnet.scripts.insets import Inside
    from tnet.scripts.output import Result

_BEFORE = ("image", "walk", "outcome", "label", "confidence")
_AFTER = ("glimpses", "pixels", "share", "seconds", "width", "height", "mpp", "error", "notes")


# What the system says where something else is in a file's or a folder's place.
IN_PLACE = (FileExistsError, IsADirectoryError, NotADirectoryError)


class OutputError(TNetError):
    """A result that cannot be written: the disk is full, or it is forbidden."""

    exit_code = 6


class PlaceError(OutputError):
    """A result whose place is taken by something else; the user can name another one."""

    exit_code = 2


@dataclass(frozen=True)
class Extras:
    """What is written beside the walks.

    Attributes:
        overlay: longer side of the overlays' image in pixels; None draws none.
        pixels: whether to keep what was looked at.
        inside: what is drawn inside every glimpse; None draws nothing.
    """

    overlay: int | None = None
    pixels: bool = False
    inside: "Inside | None" = None

    @property
    def views(self) -> bool:
        """Whether the views are wanted that the network was given."""
        return self.pixels or self.inside is not None


class Files:
    """A folder of results: predictions.csv and walks/NAME.json.

    Beside them, as wished: overlays/NAME.png, pixels/NAME.npz, attention/NAME/GLIMPSE.png.

    Args:
        folder: it and its sub-folders are made.
        paths: of the images; each gets a name for its files.
        model: that walks.
        extras: what is written beside the walks.

    Raises:
        UsageError: if the folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        paths: "Sequence[Source]",
        model: "TNet",
        extras: Extras,
    ) -> None:
        from tnet.scripts.inputs import output_names

        self._folder = folder
        self._model = model
        self.extras = extras
        self._names = dict(zip(paths, output_names(paths), strict=True))
        self._started = False
        try:
            wanted = {
                "walks": True,
                "overlays": extras.overlay is not None,
                "pixels": extras.pixels,
                "attention": extras.inside is not None,
            }
            for name in (name for name, there in wanted.items() if there):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the folder {folder} cannot be made ({error.strerror or error}); "
                "name another with --out"
            ) from error

    def write_walk(
        self, path: "Source", walk: "Walk", pyramid: "Pyramid", result: "Result"
    ) -> "Result":
        """Write down what came of an image; return its result with what is to be said of it.

        What an earlier run wrote of the image goes away first: it belongs to another walk.

        Args:
            path: of the image.
            walk: over it.
            pyramid: the image; where views are wanted, one that remembers them.
            result: what came of it.

        Raises:
            DataError: if the walk holds what JSON does not know.
            OutputError: if a file cannot be written.
        """
        name = self._names[path]
        try:
            text = walk.to_json(indent=1)
        except ValueError as error:
            raise DataError(f"{path}: its walk cannot be written as JSON ({error})") from error
        self._clear(name)
        write_file(self._folder / "walks" / f"{name}.json", text)
        notes = list(result.notes)
        if self.extras.views:
            notes += self._write_views(name, walk, pyramid)
        if self.extras.overlay is not None:
            try:
                picture = drawn(walk, pyramid, self.extras.overlay)
            except Exception as error:
                notes.append(f"its overlay could not be drawn: {error}")
            else:
                write_file(self._folder / "overlays" / f"{name}.png", picture)
        return replace(result, walk=f"walks/{name}.json", notes=tuple(notes))

    def _clear(self, name: str) -> None:
        """Take away what an earlier run wrote beside an image's walk."""
        insets = self._folder / "attention" / name
        old = [self._folder / "overlays" / f"{name}.png", self._folder / "pixels" / f"{name}.npz"]
        for file in [*old, *insets.glob("[0-9]*.png")]:
            # Where a file is in the folder's place, there is nothing of an earlier run.
            with writing(file), suppress(NotADirectoryError):
                file.unlink(missing_ok=True)
        with suppress(OSError):  # there is none, or it holds what is not ours
            insets.rmdir()

    def _write_views(self, name: str, walk: "Walk", pyramid: "Pyramid") -> list[str]:
        """Write the views that the network was given, and what lies inside; return notes."""
        from tnet.replaying import pixels_of

        seen = pixels_of(self._model, walk, pyramid)
        if self.extras.pixels:
            write_file(self._folder / "pixels" / f"{name}.npz", seen.to_bytes())
        if self.extras.inside is None:
            return []
        try:
            pictures = self.extras.inside.draw(self._model, walk, seen, pyramid)
        except Exception as error:
            return [f"its attention could not be drawn: {error}"]
        if not pictures:
            why = ", for no class was predicted" if walk.label is None else ""
            return [f"nothing is drawn inside its glimpses{why}"]
        folder = self._folder / "attention" / name
        with writing(folder):
            folder.mkdir(exist_ok=True)
        for glimpse, picture in pictures.items():
            write_file(folder / f"{glimpse}.png", picture)
        return []

    def add(self, result: "Result") -> None:
        """Add an image's row to the table; the first one replaces the table of an earlier run.

        Raises:
            OutputError: if it cannot be written.
        """
        path = self._folder / "predictions.csv"
        row = csv_row(result, self._model.classes)
        if self._started:
            _append(path, row)
            return
        write_file(path, csv_header(self._model.classes) + row)
        self._started = True


def drawn(walk: "Walk", pyramid: "Pyramid", size: int = 1024) -> bytes:
    """Return the picture of a walk as a PNG file."""
    from tnet.adapters.overlay import draw_walk

    file = io.BytesIO()
    draw_walk(walk, pyramid, size).save(file, "PNG")
    return file.getvalue()


def csv_header(classes: Sequence[str]) -> str:
    """Return the names of the columns, with one ``p_CLASS`` a class.

    ``walk`` is the file of the image's walk, relative to the table's folder, and empty where the
    image failed; ``notes`` are joined with "; ".
    """
    return csv_line([*_BEFORE, *(f"p_{name}" for name in classes), *_AFTER])


def csv_row(result: "Result", classes: Sequence[str]) -> str:
    """Return a result as one row.

    A text that starts with =, +, - or @ gets a leading ', or a spreadsheet would take it for a
    formula. What is not known, and what is not a number, is empty.
    """
    values = result.to_dict() | {"notes": "; ".join(result.notes)}
    probabilities = [result.probabilities.get(name) for name in classes]
    before, after = ([csv_cell(values.get(name)) for name in names] for names in (_BEFORE, _AFTER))
    return csv_line([*before, *map(csv_cell, probabilities), *after])


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system refuses while a file or folder is written into an OutputError."""
    try:
        yield
    except IN_PLACE as error:
        raise PlaceError(
            f"{path} cannot be written, for something else is in its place ({error.strerror}); "
            "name another one"
        ) from error
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror or error})") from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and rename it, so that none is ever half-written.

    Raises:
        OutputError: if it cannot be written.
    """
    partial = path.with_name(f".{os.getpid()}.partial")
    try:
        with writing(path):
            partial.write_bytes(_encoded(content))
            partial.replace(path)
    finally:
        # Where the folder cannot be written to there is nothing to take away either.
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _append(path: Path, text: str) -> None:
    """Add whole lines to a file: all of them or, on a full disk, none.

    Raises:
        OutputError: if they cannot be written.
    """
    content = _encoded(text)
    with writing(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        if file.write(content) < len(content):
            file.truncate(before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _encoded(content: str | bytes) -> bytes:
    return content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
