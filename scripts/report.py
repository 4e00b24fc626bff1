"""Walks as pages for people: ``tnet report result -o report.html``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tnet.errors import DataError, UsageError
from tnet.scripts.options import AsJson, Device
from tnet.scripts.output import Result, exit_code, print_json, reason, say, shown

if TYPE_CHECKING:
    from tnet.scripts.report_checks import Judge
    from tnet.scripts.report_index import Row
    from tnet.scripts.viewer.cohort import Entry

MADE_BY = "tnet report"
_MARK = f'<meta name="generator" content="{MADE_BY}">'.encode()
_HEAD = 2**16  # bytes of a page in which its mark stands


def report(
    walks: Annotated[
        list[Path],
        typer.Argument(metavar="WALKS", help="Folders of `tnet classify --out`, or walk files."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write there; else beside the walks."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Look for the images there first.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model that walked, to replay saved pixels, if it isn't shipped."),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Write what a model saw and why it decided so, as pages that need no network.

    One walk becomes one file. Of several, FILE is an index, the least certain first, and each
    walk has a page of its own in the folder beside it. Images need not be there any more.

    Exits with 4 if some of the walks cannot be read, and with 3 if none can.
    """
    from tnet.scripts.report_checks import Judge

    found = _found(walks)
    target = _target(out or _home(walks[0]) / "report.html")
    judge = Judge(model, device)
    judge.prepare()
    entries, failures = _entries(found, images)
    for sentence in failures:
        say(sentence)
    written = _Job(target, images, judge, len(found) > 1).write(entries, failures)
    if not written:
        raise DataError("none of the walks can be shown; make them again with `tnet classify`")
    if as_json:
        print_json({"written": [str(path) for path in written], "failed": len(failures)})
    else:
        print(shown(str(target)))
    if failures:
        raise typer.Exit(exit_code(len(failures), len(found)))


def _home(argument: Path) -> Path:
    from tnet.scripts.walks import home_of

    return home_of(argument)


def _found(arguments: list[Path]) -> list[Path]:
    """Return the files of the walks.

    Raises:
        UsageError: if an argument names none.
    """
    from tnet.scripts.walks import find_walks

    for argument in arguments:
        if not argument.exists():
            raise UsageError(f"{argument} does not exist; name a folder or file of walks")
    found = find_walks(arguments)
    for path in found:
        if path.suffix != ".json":
            raise UsageError(f"{path} is no walk; walks are files NAME.json")
    return found


def _target(path: Path) -> Path:
    """Return where the report goes.

    Raises:
        UsageError: if it is no name for a page, or the place is not free.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{path}: a report is a page; name a file that ends in .html")
    _check_free(path)
    return path


def _check_free(path: Path) -> None:
    """Refuse to replace what is no report of ours.

    Raises:
        UsageError: if something else has the place.
    """
    try:
        with path.open("rb") as file:
            ours = _MARK in file.read(_HEAD)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(
            f"{path} cannot be replaced ({error.strerror or error}); name another file with --out"
        ) from error
    if not ours:
        raise UsageError(
            f"{path} is there and was not written by {MADE_BY}; name another file with --out, or "
            "delete it yourself"
        )


def _entries(found: list[Path], images: Path | None) -> "tuple[list[Entry], list[str]]":
    """Return what can be told of, and a sentence for each walk that cannot be read."""
    from tnet.scripts.viewer.cohort import find_entries

    entries: list[Entry] = []
    failures: list[str] = []
    for path in found:
        known, failed = find_entries([str(path)], images)
        entries.extend(known)
        failures.extend(failed)
    return entries, failures


@dataclass(frozen=True)
class _Job:
    """What is written.

    Attributes:
        target: the page, or the index of many.
        images: where to look for images first.
        judge: says how far the explanation holds.
        batch: whether each walk has a page of its own.
    """

    target: Path
    images: Path | None
    judge: "Judge"
    batch: bool

    def write(self, entries: "list[Entry]", failures: list[str]) -> list[Path]:
        """Write all pages; return them, the index first.

        Args:
            entries: the walks.
            failures: why others cannot be read; those that cannot be shown are added.

        Raises:
            UsageError: if something else has a page's place; then nothing is written.
            OutputError: if a page cannot be written.
        """
        from tnet.scripts.files import OutputError, write_file
        from tnet.scripts.inputs import output_names
        from tnet.scripts.progress import Progress
        from tnet.scripts.report_index import index_page

        files = [entry.walk for entry in entries if entry.walk is not None]
        names = output_names([file.with_suffix("") for file in files])
        folder = self.target.with_suffix("")
        pages = [folder / f"{name}.html" if self.batch else self.target for name in names]
        for page in pages:
            _check_free(page)
        rows: list[Row] = []
        with Progress(len(entries)) as progress:
            for entry, page in zip(entries, pages, strict=True):
                try:
                    rows.append(self._each(entry, page))
                    progress.advance(Result(entry.title))
                except (OutputError, UsageError):
                    raise
                except Exception as error:
                    failures.append(reason(str(entry.walk), error, "cannot be shown"))
                    progress.advance(Result(entry.title, error=failures[-1]))
        if self.batch and rows:
            write_file(self.target, index_page(rows, failures, made_by=MADE_BY))
        return [*([self.target] if self.batch and rows else []), *(row.page for row in rows)]

    def _each(self, entry: "Entry", page: Path) -> "Row":
        """Write an image's page; return its row of the index."""
        from tnet.scripts.files import write_file, writing
        from tnet.scripts.report_glimpses import MOST, ranked
        from tnet.scripts.report_index import Row, address, thumbnail
        from tnet.scripts.report_page import About, page_of
        from tnet.scripts.report_pictures import pictures_of
        from tnet.scripts.walks import read_walk

        assert entry.walk is not None, "an entry of a report has a walk"
        walk = read_walk(entry.walk)
        pictures = pictures_of(walk, entry, self.images, ranked(walk)[:MOST])
        verdict = self.judge.of(walk, pictures.pixels)
        back = f"../{address(self.target.name)}" if self.batch else None
        about = About(walk, entry, pictures, verdict, back)
        with writing(page.parent):
            page.parent.mkdir(parents=True, exist_ok=True)
        write_file(page, page_of(about, made_by=MADE_BY))
        return Row(entry, page, thumbnail(pictures.ground))
