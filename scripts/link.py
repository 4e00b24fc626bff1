"""Make zarr pyramids that point into the original files: ``tnet link slides/*.svs links``."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tnet.scripts.options import AsJson, Destination, MaxMemory, MaxPixels

if TYPE_CHECKING:
    from tnet.adapters import Limits

_FAILED = "failed"


def link(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SRC...", help="Files, folders, 'patterns*' or @list.txt."),
    ],
    destination: Destination,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace links and stores at the destination.")
    ] = False,
    max_pixels: MaxPixels = None,
    max_memory: MaxMemory = None,
    as_json: AsJson = False,
) -> None:
    """Make zarr pyramids without copying a pixel: lists of where an image's own tiles lie.

    A link reads its image for as long as that stays as it is, and says so once it does not. Exits
    with 4 if some of the images cannot be linked, with 3 if none can, and with 6 where a link
    cannot be written.
    """
    from tnet.adapters.limits import limits_of
    from tnet.adapters.links.making import linked_already
    from tnet.scripts.convert import destinations
    from tnet.scripts.output import exit_code, print_json

    limits = limits_of(max_pixels, max_memory)
    pairs = destinations(sources, destination)
    for source, place in pairs:  # before the first is made, so that a mistake costs nothing
        linked_already(source, place, overwrite)
    debug = bool((context.obj or {}).get("debug"))
    results = [_result(source, place, overwrite, limits, debug) for source, place in pairs]
    failed = sum(result.error is not None for result in results)
    if as_json:
        print_json({"results": [asdict(result) for result in results], "failed": failed})
    else:
        _print_table(results)
    if failed:
        raise typer.Exit(exit_code(failed, len(results)))


@dataclass(frozen=True)
class Result:
    """What came of one image; one that failed has an ``error`` and no numbers.

    Attributes:
        source: the image.
        destination: its link.
        outcome: "linked", "already linked", or "failed".
        levels: of the image.
        chunks: how many tiles are listed.
        bytes: of the link.
        seconds: wall time.
        error: why it failed.
    """

    source: str
    destination: str
    outcome: str
    levels: int | None = None
    chunks: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    error: str | None = None


def _result(
    source: Path, destination: Path, overwrite: bool, limits: "Limits", debug: bool
) -> Result:
    """Link one image; what goes wrong with it is its failure alone.

    Raises:
        UsageError: if something else stands at the destination.
        BusyError: if another process is writing there.
        OutputError: if the link cannot be written.
    """
    import traceback

    from tnet.adapters.links.making import link as write
    from tnet.errors import DataError
    from tnet.scripts.files import writing
    from tnet.scripts.output import reason, say

    start = time.monotonic()
    try:
        with writing(destination):
            done = write(source, destination, overwrite=overwrite, limits=limits)
    except DataError as error:
        if debug:
            traceback.print_exception(error)
        said = reason(str(source), error)
        say(said)
        return Result(str(source), str(destination), _FAILED, error=said)
    seconds = time.monotonic() - start
    return Result(
        str(source), str(destination), done.outcome, done.levels, done.chunks, done.size, seconds
    )


def _print_table(results: list[Result]) -> None:
    from tnet.adapters.limits import readable
    from tnet.scripts.output import columns

    rows = [["image", "link", "outcome", "levels", "tiles", "size", "seconds"]]
    rows += [
        [
            result.source,
            result.destination,
            result.outcome,
            "" if result.levels is None else str(result.levels),
            "" if result.chunks is None else str(result.chunks),
            "" if result.bytes is None else readable(result.bytes),
            "" if result.seconds is None else f"{result.seconds:.2f}",
        ]
        for result in results
    ]
    print("\n".join(columns(rows, right=(3, 4, 5, 6))))
