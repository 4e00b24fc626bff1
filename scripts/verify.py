"""Whether stores are whole, and whole again: ``tnet verify pyramids --repair slides``."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tnet.errors import TNetError, UsageError
from tnet.scripts.options import NO_ROOM, AsJson, MaxMemory, MaxPixels

if TYPE_CHECKING:
    from tnet.adapters import Limits
    from tnet.adapters.storage.findings import Fault, Report


_MOST_FAULTS = 20  # that are printed of a store
_SOUND = ("whole", "repaired")


def verify(
    stores: Annotated[
        list[str],
        typer.Argument(metavar="STORE...", help="Stores, folders of them, 'patterns*', @list.txt."),
    ],
    repair: Annotated[
        Path | None,
        typer.Option(metavar="SRC", help="Repair from the image, or from the folder it lies in."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="That read; one a core.")] = None,
    max_pixels: MaxPixels = None,
    max_memory: MaxMemory = None,
    as_json: AsJson = False,
) -> None:
    """Find what is damaged, missing or added in zarr stores, and which pixels that hurts.

    Exits with 0 only if every store is whole, or has been repaired; with 4 if some are hurt, with
    3 if all are, and with 6 where a repair cannot be written.
    """
    from tnet.adapters.limits import limits_of
    from tnet.scripts.output import exit_code, print_json

    limits = limits_of(max_pixels, max_memory)
    paths = stores_of(stores)
    if repair is not None and len(paths) == 1 and paths[0].is_dir():  # before hours of reading
        _source(paths[0], repair)
    results: list[dict[str, Any]] = []
    codes: list[int] = []
    for path in paths:
        result, code = _verified(path, repair, threads, limits)
        results.append(result)
        codes.append(code)
        if not as_json:
            _print(result)
        if code == NO_ROOM:
            break
    failed = sum(result["outcome"] not in _SOUND for result in results)
    if as_json:
        print_json({"results": results, "failed": failed})
    if failed:
        alone = codes[-1] if len(paths) == 1 or codes[-1] == NO_ROOM else 0
        raise typer.Exit(alone or exit_code(failed, len(paths)))


def stores_of(arguments: list[str]) -> list[Path]:
    """Return the stores that the arguments name; images that are none are passed over in folders.

    Raises:
        UsageError: if there are none.
    """
    from tnet.scripts.inputs import find_images

    named = {Path(argument) for argument in arguments}
    found = find_images(arguments)
    paths = [p for p in found if isinstance(p, Path) and (p.is_dir() or p in named)]
    if len([p for p in found if isinstance(p, Path)]) < len(found):
        raise UsageError("addresses are not verified; copy the store to a disk first")
    if not paths:
        raise UsageError(f"{', '.join(arguments)} holds no zarr stores; name some")
    return paths


def _source(store: Path, given: Path) -> Path:
    """Return what a store is to be repaired from.

    Raises:
        UsageError: if that is not what it was made from.
        DataError: if the store is none that can be repaired.
    """
    from tnet.adapters import is_image
    from tnet.adapters.storage.repair import check_source, source_in

    source = source_in(given, store) if given.is_dir() and not is_image(given) else given
    check_source(store, source)
    return source


def _verified(
    store: Path, given: Path | None, threads: int | None, limits: "Limits"
) -> tuple[dict[str, Any], int]:
    """Return what came of a store, and the exit code that a failed repair asks for, else 0."""
    from tnet.scripts.output import reason, say

    start, code = time.monotonic(), 0
    report = _checked(store, threads, limits)
    outcome, notes = report.outcome, list(report.notes)
    if outcome == "hurt" and given is not None:
        try:
            notes += _repaired(report, _source(store, given), threads, limits)
        except TNetError as error:
            code = error.exit_code
            notes.append(reason(str(store), error))
            say(notes[-1])
        else:
            after = _checked(store, threads, limits)
            outcome = after.outcome if after.faults else "repaired"
            # What was mended stays in the results: it tells which disk to trust no longer.
            report = after if after.faults else replace(after, faults=report.faults)
    result = {
        "store": str(store),
        "outcome": outcome,
        "sealed": report.sealed,
        "files": report.files,
        "bytes": report.size,
        "faults": [_listed(fault) for fault in report.faults],
        "notes": notes,
        "seconds": time.monotonic() - start,
    }
    return result, code


def _checked(store: Path, threads: int | None, limits: "Limits") -> "Report":
    """Check a store; what breaks the check is the fault of this store alone."""
    from tnet.adapters.storage.findings import Fault, Report
    from tnet.adapters.storage.verify import size_of
    from tnet.adapters.storage.verify import verify as check
    from tnet.scripts.amount import Amount
    from tnet.scripts.output import reason, say

    try:
        with Amount(str(store), size_of(store) / 1e6, "MB") as amount:
            return check(
                store, threads=threads, limits=limits, told=lambda count: amount.add(count / 1e6)
            )
    except Exception as error:
        said = reason(str(store), error, "cannot be verified")
        say(said)
        return Report(store, faults=(Fault("", said),), readable=False)


def _repaired(
    report: "Report", source: Path, threads: int | None, limits: "Limits"
) -> tuple[str, ...]:
    from tnet.adapters import open_pyramid
    from tnet.adapters.storage.repair import repair
    from tnet.scripts.amount import Amount
    from tnet.scripts.files import writing

    with open_pyramid(source, limits=limits) as pyramid:
        megapixels = pyramid.width * pyramid.height / 1e6
    about = f"{report.store} from {source}"
    with Amount(about, megapixels, "Mpx") as amount, writing(report.store):
        return repair(
            report,
            source,
            threads=threads,
            limits=limits,
            told=lambda pixels: amount.add(pixels / 1e6),
        )


def _listed(fault: "Fault") -> dict[str, Any]:
    """Return a fault as JSON-able values."""
    return {
        "file": fault.file or None,
        "level": fault.level,
        "region": None if fault.region is None else list(fault.region),
        "what": str(fault),
    }


def _print(result: dict[str, Any]) -> None:
    """Print what came of a store: a line, and a line for each of its faults and notes."""
    from tnet.adapters.limits import readable
    from tnet.scripts.output import clean, shown

    faults = result["faults"]
    count = f", {len(faults)} fault{'s'[: len(faults) != 1]}" if faults else ""
    size = f"{result['files']} files, {readable(result['bytes'])}"
    lines = [f"{result['store']}: {result['outcome']}{count} ({size})"]
    lines += [f"  {fault['what']}" for fault in faults[:_MOST_FAULTS]]
    if len(faults) > _MOST_FAULTS:
        lines.append(f"  and {len(faults) - _MOST_FAULTS} more; --json lists them all")
    lines += [f"  note: {note}" for note in result["notes"]]
    print(shown("\n".join(map(clean, lines))))
