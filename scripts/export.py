"""Walks as files for other programs: ``tnet export result --to qupath,csv``."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tnet.errors import TNetError, UsageError
from tnet.scripts.output import print_json, say, shown

if TYPE_CHECKING:
    from tnet.adapters.exports import Format
    from tnet.adapters.exports.heat import Heat
    from tnet.record import Walk


def export(  # noqa: PLR0913 - Typer makes a flag of every argument
    walks: Annotated[
        list[Path],
        typer.Argument(metavar="WALKS", help="Folders of `tnet classify --out`, or walk files."),
    ],
    to: Annotated[
        str,
        typer.Option(metavar="qupath,csv", help="Formats, with commas between; see below."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write there instead of beside the walks.")
    ] = None,
    kind: Annotated[
        Literal["contribution", "weight", "probability"],
        typer.Option(help="What heat maps show."),
    ] = "contribution",
    target: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Class of the contributions; else the predicted one."),
    ] = None,
    size: Annotated[
        int, typer.Option(min=16, max=16384, help="Longer side of heat maps, pixels.")
    ] = 1024,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Look for the images there, for png and gif."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Export walks: qupath, geojson, gpkg, cog, omezarr, png, gif, csv, parquet.

    For each image: NAME.geojson for QuPath (qupath); NAME-lonlat.geojson (geojson) and NAME.gpkg
    of images on the ground; heat maps NAME-heat.tif (cog), NAME-heat.ome.zarr, NAME-heat.png;
    NAME.gif. For all of them: glimpses.csv and glimpses.parquet.
    """
    from tnet.adapters.exports.heat import Heat
    from tnet.scripts.files import writing
    from tnet.scripts.walks import find_walks, home_of

    formats = _formats(to)
    heat = Heat(kind, target, size)
    files: dict[Path, list[Path]] = {}
    for argument in walks:
        files.setdefault(out or home_of(argument), []).extend(find_walks([argument]))
    written = []
    for folder, found in files.items():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        work = _Work(folder, list(dict.fromkeys(found)), heat, images)
        written.extend(work.run(formats))
    if as_json:
        print_json({"written": [str(path) for path in written]})
    else:
        print(shown("\n".join(map(str, written))))


def _formats(to: str) -> "dict[str, Format]":
    """Return the formats that --to names.

    Raises:
        UsageError: if there is no such format.
    """
    from tnet.adapters.exports import FORMATS

    names = [name.strip() for name in to.split(",")]
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"--to knows no format {name!r}; it knows {', '.join(FORMATS)}")
    return {name: FORMATS[name] for name in names}


@dataclass(frozen=True)
class _Work:
    """The walks that are exported into one folder.

    Attributes:
        folder: where the files go.
        files: of the walks.
        heat: which heat maps.
        images: where to look for images; None looks where they were.
    """

    folder: Path
    files: list[Path]
    heat: "Heat"
    images: Path | None

    def run(self, formats: "dict[str, Format]") -> list[Path]:
        """Write everything; return what was written.

        Raises:
            UsageError: if a file is no walk, or a walk does not have what a format needs; then
                nothing is written.
            OutputError: if a file cannot be written.
        """
        from tnet.scripts.inputs import output_names
        from tnet.scripts.walks import read_walk

        for path in self.files:
            self._check(path, read_walk(path), formats)
        names = output_names([path.with_suffix("") for path in self.files])
        written: list[Path] = []
        single = [form for form in formats.values() if not form.batch]
        for path, name in zip(self.files, names, strict=True) if single else ():
            walk = read_walk(path)
            written.extend(self._each(path, walk, name, single))
        for form in formats.values():
            if form.batch:
                content = form.export([_encodable(read_walk(path)) for path in self.files])
                written.append(_written(self.folder / form.name, content))
        return written

    def _check(self, path: Path, walk: "Walk", formats: "dict[str, Format]") -> None:
        """Refuse a walk that lacks what a format needs."""
        from tnet.adapters.exports.places import system_of
        from tnet.maps import class_index

        try:
            if any(form.crs for form in formats.values()):
                system_of(walk)
            if any(form.heat for form in formats.values()):
                class_index(walk, self.heat.target)
        except TNetError as error:
            raise UsageError(f"{path}: {error}") from error

    def _each(self, path: Path, walk: "Walk", name: str, formats: "list[Format]") -> Iterator[Path]:
        """Write a walk's own files, and give their places."""
        from tnet.scripts.walks import image_if_there

        pyramid: Any = None
        if any(form.image for form in formats):
            pyramid = image_if_there(walk, path, self.images)
            if isinstance(pyramid, str):
                say(f"drawn without its image: {pyramid}")
                pyramid = None
        try:
            plain = _encodable(walk)
            for form in formats:
                parts = [
                    plain,
                    *([self.heat] if form.heat else []),
                    *([pyramid] if form.image else []),
                ]
                yield _written(self.folder / form.name.format(name=name), form.export(*parts))
        finally:
            if pyramid is not None:
                pyramid.close()


def _encodable(walk: "Walk") -> "Walk":
    """Return a walk whose texts any file can hold: names of files may be no Unicode."""

    def plain(text: str) -> str:
        return text.encode("utf-8", "backslashreplace").decode()

    return replace(
        walk,
        image=plain(walk.image),
        classes=tuple(plain(name) for name in walk.classes),
        model=plain(walk.model),
    )


def _written(path: Path, content: bytes | dict[str, bytes]) -> Path:
    """Write a file, or a folder of files that stands whole or not at all; return its place."""
    from tnet.scripts.files import write_file

    if isinstance(content, bytes):
        write_file(path, content)
    else:
        _write_store(path, content)
    return path


def _write_store(path: Path, content: dict[str, bytes]) -> None:
    from tnet.adapters.exports.omezarr import is_ours
    from tnet.scripts.files import writing

    if path.exists() and not is_ours(path):
        raise UsageError(
            f"{path} is there and was not written by tnet export; name another folder with --out, "
            "or delete it yourself"
        )
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            for name, part in content.items():
                file = partial / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(part)
            if path.exists():
                shutil.rmtree(path)
            partial.replace(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
