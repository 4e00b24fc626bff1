"""Convert images to zarr pyramids: ``tnet convert slides/*.svs pyramids``."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tnet.errors import TNetError, UsageError
from tnet.scripts.options import NO_ROOM, AsJson, Destination, MaxMemory, MaxPixels, Mpp, check_mpp

if TYPE_CHECKING:
    from tnet.adapters.storage.wanted import Wanted

_ZARR = ".zarr"
_FAILED = "failed"


def convert(  # noqa: PLR0913 - Typer makes a flag of every argument
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC...", help="Files, folders, zarr folders, 'patterns*' or @list.txt."
        ),
    ],
    destination: Destination,
    codec: Annotated[
        str,
        typer.Option(
            metavar="lossless|jpeg:Q|source",
            help="How pixels are kept; source moves a TIFF's JPEG tiles as they are.",
        ),
    ] = "lossless",
    levels: Annotated[
        Literal["own", "mean"],
        typer.Option(
            help="Coarser levels: own keeps those that the file has, mean makes all anew."
        ),
    ] = "own",
    mpp: Mpp = None,
    associated: Annotated[
        bool,
        typer.Option(
            "--associated", help="Take label and macro pictures along; they may name patients."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what stands at the destination.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="That read and encode; one a core.")
    ] = None,
    max_pixels: MaxPixels = None,
    max_memory: MaxMemory = None,
    as_json: AsJson = False,
) -> None:
    """Convert images to OME-Zarr pyramids that are whole, or not there at all.

    Interrupted, full disk, machine down: the same command goes on where it was. Exits with 4 if
    some of the images failed, with 3 if all did, and with 6 where a store cannot be written.
    """
    from tnet.adapters.limits import limits_of
    from tnet.adapters.storage.codecs import SOURCE, check_name
    from tnet.adapters.storage.wanted import MEAN, Wanted
    from tnet.scripts.output import exit_code, print_json

    check_name(codec)
    if levels == MEAN and codec == SOURCE:
        raise UsageError("--codec source keeps the file's own levels; leave --levels out")
    check_mpp(mpp)
    wanted = Wanted(
        codec=codec,
        levels=levels,
        mpp=mpp,
        associated=associated,
        overwrite=overwrite,
        limits=limits_of(max_pixels, max_memory),
        threads=threads,
    )
    pairs = destinations(sources, destination)
    results: list[Result] = []
    errors: list[Exception] = []
    for source, store in pairs:
        try:
            results.append(_converted(source, store, wanted))
        except Exception as error:
            errors.append(error)
            results.append(_failed(source, store, error))
            if _code_of(error) == NO_ROOM:
                break  # the next ones would not fit either
    if as_json:
        print_json({"results": [asdict(result) for result in results], "failed": len(errors)})
    else:
        _print_table(results)
    if errors:
        last = _code_of(errors[-1])
        alone = last if len(pairs) == 1 or last == NO_ROOM else None
        raise typer.Exit(alone or exit_code(len(errors), len(results)))


def _code_of(error: Exception) -> int | None:
    return error.exit_code if isinstance(error, TNetError) else None


@dataclass(frozen=True)
class Result:
    """What came of one image; one that failed has an ``error`` and no numbers.

    Attributes:
        source: the image.
        destination: its store.
        outcome: "converted", "resumed", "already converted", or "failed".
        megapixels: of the image.
        levels: of the store.
        bytes: of the store.
        seconds: wall time.
        notes: what should be known of the image, such as planes that stay behind.
        error: why it failed.
    """

    source: str
    destination: str
    outcome: str
    megapixels: float | None = None
    levels: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None


def destinations(sources: list[str], destination: Path) -> list[tuple[Path, Path]]:
    """Return each image with the path of its store.

    Raises:
        UsageError: if images cannot go there.
    """
    from tnet.scripts.inputs import find_images, output_names

    # What was written there before is no source, where both are one folder.
    found = [
        source
        for source in find_images(sources)
        if not (isinstance(source, Path) and _is_inside(source, destination))
    ]
    paths = [source for source in found if isinstance(source, Path)]
    if len(paths) < len(found):
        raise UsageError("addresses are not converted; copy the image to a disk first")
    if not paths:
        raise UsageError(
            f"all that is named lies in {destination}, where its stores would go; name another "
            "destination"
        )
    if destination.suffix.lower() == _ZARR:
        if len(paths) != 1:
            raise UsageError(
                f"{destination} is the name of one store and there are {len(paths)} images; name "
                "a folder that does not end in .zarr"
            )
        _check_apart(paths[0], destination)
        return [(paths[0], destination)]
    if destination.exists() and not destination.is_dir():
        raise UsageError(f"{destination} is a file; name a folder, or NAME.zarr for one image")
    names = output_names(paths)
    pairs = [(p, destination / f"{n}{_ZARR}") for p, n in zip(paths, names, strict=True)]
    for source, store in pairs:
        _check_apart(source, store)
    return pairs


def _is_inside(source: Path, folder: Path) -> bool:
    return source.suffix.lower() == _ZARR and _real(source.parent) == _real(folder)


def _check_apart(source: Path, store: Path) -> None:
    """Make sure that a store is not written into its image, by whatever name it goes.

    Raises:
        UsageError: if it would be.
    """
    if _real(store) == _real(source):
        raise UsageError(f"{store} is the image itself; name another destination")
    if source.is_dir() and _real(store).is_relative_to(_real(source)):
        raise UsageError(f"{store} would lie in the image {source}; name another destination")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # a Path's own way raises where links go round


def _converted(source: Path, store: Path, wanted: "Wanted") -> Result:
    from tnet.adapters import open_pyramid
    from tnet.adapters.storage.conversion import convert as write
    from tnet.adapters.storage.locking import BusyError
    from tnet.adapters.storage.staging import stage_of
    from tnet.facts import FASTER_CONVERTED
    from tnet.scripts.amount import Amount
    from tnet.scripts.files import writing
    from tnet.scripts.output import say

    start = time.monotonic()
    with open_pyramid(source, limits=wanted.limits) as pyramid:
        megapixels = pyramid.width * pyramid.height / 1e6
        notes = tuple(note for note in pyramid.notes if not note.endswith(FASTER_CONVERTED))
    for note in notes:
        say(f"{source}: {note}")
    try:
        with Amount(str(source), megapixels, "Mpx") as amount, writing(store):
            done = write(source, store, wanted, lambda pixels: amount.add(pixels / 1e6))
    except BaseException as error:
        if not isinstance(error, BusyError) and stage_of(store).exists():
            say(
                f"{store} is unfinished; run the same command again and it goes on from there, or "
                f"delete the folder {stage_of(store)}"
            )
        raise
    return Result(
        str(source),
        str(store),
        done.outcome,
        megapixels,
        done.levels,
        done.size,
        time.monotonic() - start,
        notes,
    )


def _failed(source: Path, store: Path, error: Exception) -> Result:
    from tnet.scripts.output import reason, say

    said = reason(str(source), error, "cannot be converted")
    say(said)
    return Result(str(source), str(store), _FAILED, error=said)


def _print_table(results: list[Result]) -> None:
    from tnet.adapters.limits import readable
    from tnet.scripts.output import columns

    rows = [["image", "store", "outcome", "Mpx", "Mpx/s", "size"]]
    for result in results:
        speed = "" if result.outcome != "converted" else f"{_speed(result):.3g}"
        rows.append(
            [
                result.source,
                result.destination,
                result.outcome,
                "" if result.megapixels is None else f"{result.megapixels:.3g}",
                speed,
                "" if result.bytes is None else readable(result.bytes),
            ]
        )
    print("\n".join(columns(rows, right=(3, 4, 5))))


def _speed(result: Result) -> float:
    return (result.megapixels or 0) / max(result.seconds or 0, 1e-3)
