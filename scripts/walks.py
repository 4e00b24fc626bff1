"""Which saved walks a command line means, and the images that they went over."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tnet.errors import DataError, TNetError, UsageError

if TYPE_CHECKING:
    from tnet.pyramid import Pyramid
    from tnet.record import Walk

_FOLDER = "walks"
_NEAR = 3  # how many folders above a walk an image may lie, if it isn't where it was


def find_walks(arguments: Iterable[Path]) -> list[Path]:
    """Return the files of the walks that the arguments name, in their order, each once.

    An argument is a file, or a folder: one that ``tnet classify --out`` wrote, or its sub-folder
    of walks.

    Raises:
        UsageError: if there is no such file, or a folder holds no walks.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        found.update(dict.fromkeys(_named(argument)))
    return list(found)


def home_of(argument: Path) -> Path:
    """Return the folder beside whose walks results are written: a folder itself, or a file's."""
    return argument if argument.is_dir() else argument.parent


def _named(argument: Path) -> list[Path]:
    try:
        if not argument.is_dir():
            return [argument]
        files = walks_in(argument)
    except OSError as error:
        raise UsageError(f"{argument} cannot be read ({error.strerror or error})") from error
    if not files:
        raise UsageError(
            f"{argument} holds no walks; name a folder that `tnet classify --out` wrote, or a walk"
        )
    return files


def walks_in(folder: Path) -> list[Path]:
    """Return the files of a folder's walks, or of its sub-folder's, sorted; no hidden ones."""
    inside = folder / _FOLDER
    return sorted((inside if inside.is_dir() else folder).glob("[!.]*.json"))


def read_walk(path: Path) -> "Walk":
    """Return a saved walk.

    Raises:
        UsageError: if there is none in this file.
    """
    from tnet.record import Walk

    try:
        return Walk.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: this is not a walk: not a text in UTF-8") from error
    except DataError as error:
        raise UsageError(f"{path}: {error}") from error


def image_file(name: str, file: Path, folder: Path | None = None) -> Path | None:
    """Return the file of a walk's image, or None.

    A walk holds the path as it was given when it was made, which may be relative to another
    folder, or the results may have been moved together with the images. So it is looked for in
    ``folder``, where the walk says, relative to each folder above the walk, and by the end of its
    path near the walk.

    Args:
        name: of the image, as in the walk.
        file: of the walk.
        folder: given by the user.
    """
    from tnet.adapters import is_url

    if is_url(name):
        return None
    path, above = Path(name), list(file.resolve().parents)
    ends = [Path(*path.parts[-count:]) for count in (3, 2, 1) if count <= len(path.parts)]
    places = [] if folder is None else [folder / end for end in reversed(ends)]
    places += [path, *(parent / path for parent in above)]
    places += [parent / end for parent in above[:_NEAR] for end in ends]
    return next((place for place in places if _exists(place)), None)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds what no name may hold
        return False


def image_of(walk: "Walk", file: Path, folder: Path | None) -> "Pyramid":
    """Open the image that a walk went over.

    Args:
        walk: names it, as it was named then.
        file: of the walk.
        folder: where to look for the image first.

    Raises:
        TNetError: if it is not found, or has another size.
    """
    from tnet.adapters import open_pyramid

    found = image_file(walk.image, file, folder)
    if found is None:
        raise DataError(f"{walk.image} was not found; name the folder where it is with --images")
    pyramid = open_pyramid(found)
    try:
        check_size(pyramid, walk)
    except DataError:
        pyramid.close()
        raise
    return pyramid


def check_size(pyramid: "Pyramid", walk: "Walk") -> None:
    """Make sure that an image is as large as the one that was walked over.

    Raises:
        DataError: if it has another size.
    """
    if (pyramid.width, pyramid.height) != (walk.width, walk.height):
        raise DataError(
            f"{pyramid.name} has {pyramid.width} x {pyramid.height} pixels, and the walk went over "
            f"{walk.width} x {walk.height}; name the folder of the right image with --images"
        )


def image_if_there(walk: "Walk", file: Path, folder: Path | None) -> "Pyramid | str":
    """Return the image that a walk went over, or one sentence why it cannot be shown."""
    try:
        return image_of(walk, file, folder)
    except TNetError as error:
        return str(error)
    except Exception as error:
        return f"{walk.image} cannot be read: {error}"
