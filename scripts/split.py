"""Splits that leak nothing: ``tnet split DATA.csv --by patient --val 0.1 --test 0.2``."""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tnet.scripts.options import AsJson

if TYPE_CHECKING:
    from tnet.datasets.entries import Entry
    from tnet.datasets.manifest import Manifest
    from tnet.datasets.table import Table

_NAMES = ("train", "val", "test")
_OTHER_FORMATS = (".xlsx", ".xls", ".ods", ".parquet", ".pq")
_TEST = 0.2


@dataclass(frozen=True)
class Wanted:
    """How to part the rows."""

    val: float
    test: float
    folds: int | None
    seed: int


def split(  # noqa: PLR0913 - Typer makes a flag of every argument
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="CSV or Parquet with the columns image, label.")
    ],
    by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column whose rows stay together, such as patient."),
    ] = None,
    val: Annotated[float, typer.Option(help="Share of the images to validate on.")] = 0.1,
    test: Annotated[float | None, typer.Option(help="Share of the images to test on; 0.2.")] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Cross-validation: a table a fold; its test part is 1/FOLDS."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="OUT.csv", help="What to write; DATA-split.csv."),
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Between several labels of one image, such as '|'.")
    ] = None,
    skip_images: Annotated[
        bool,
        typer.Option("--skip-images", help="Don't look for the images, nor for copies of them."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the rows of a table again with a column that says train, val or test.

    Rows of one group, and copies of one image, are never parted; every class is in every split.
    """
    from tnet.datasets.copies import same_content
    from tnet.datasets.manifest import joined_labels, read_manifest
    from tnet.datasets.table import listed, read_table
    from tnet.scripts.output import print_json, say

    manifest = read_manifest(
        data, separator=separator, images=not skip_images, group=by, split=False
    )
    _check_groups(manifest, by)
    if (joined := joined_labels(manifest, "--separator ")) is not None:
        say(f"note: {data}: {joined}")
    copies = () if skip_images else same_content(manifest.entries)
    for same in copies:
        rows = listed([entry.row for entry in same])
        say(f"note: {data}: {rows} hold the same image, and stay together")
    table = read_table(data)
    if "split" in _plain_columns(table):
        say(f"note: {data}: its column of splits is replaced")
    if folds is not None and test is not None:
        say(f"note: --test is not used: in cross-validation each fold tests on 1/{folds}")
    wanted = Wanted(val, _TEST if test is None else test, folds, seed)
    files = _written(table, _splits(manifest, wanted, copies), _place(data, out), folds)
    for path in files:
        say(f"wrote {path}")
    report = [_counts(manifest, path, splits) for path, splits in files.items()]
    if as_json:
        print_json(_document(manifest, wanted, copies, report))
        return
    for counted in report:
        _print_counts(counted, manifest, alone=folds is None)


def _plain_columns(table: "Table") -> list[str]:
    from tnet.datasets.entries import COLUMNS
    from tnet.datasets.table import plain

    place = table.find(COLUMNS["split"])
    return ["split" if index == place else plain(name) for index, name in enumerate(table.columns)]


def _place(data: Path, out: Path | None) -> Path:
    """Return where the table goes.

    Raises:
        UsageError: if it is named as what it would not be.
    """
    from tnet.errors import UsageError

    place = out or data.with_name(f"{data.stem}-split.csv")
    if place.suffix.lower() in _OTHER_FORMATS:
        raise UsageError(f"splits are written as CSV, and {place} is named otherwise; say .csv")
    return place


def _check_groups(manifest: "Manifest", by: str | None) -> None:
    """Make sure that every row has a group, if groups were asked for.

    Raises:
        TableError: if a row has none.
    """
    from tnet.datasets.entries import refuse

    rows = [entry.row for entry in manifest.entries if entry.group is None]
    if by is not None:
        way_out = "fill it in, or a test image may share it with training"
        refuse(manifest.path, rows, f"has no {by}", f"have no {by}", way_out)


def _splits(
    manifest: "Manifest", wanted: Wanted, copies: "Sequence[Sequence[Entry]]"
) -> list[tuple[str, ...]]:
    """Return the split of each row, once or for each fold.

    Raises:
        UsageError: if it cannot be done.
    """
    from tnet.datasets.splits import Shares, split_entries, split_folds
    from tnet.errors import UsageError

    entries, seed = manifest.entries, wanted.seed
    try:
        if wanted.folds is None:
            shares = Shares(wanted.val, wanted.test)
            return [split_entries(entries, shares, seed, copies)]
        return [*split_folds(entries, wanted.folds, wanted.val, seed, copies)]
    except UsageError as error:
        raise UsageError(f"{manifest.path}: {error}") from error


def _written(
    table: "Table", splits: Sequence[tuple[str, ...]], place: Path, folds: int | None
) -> dict[Path, tuple[str, ...]]:
    """Write the tables, all or none; return their files and the splits in them.

    Raises:
        UsageError: if something else would be replaced.
        OutputError: if they cannot be written.
    """
    from tnet.scripts.files import write_file, writing

    paths = [place]
    if folds is not None:
        paths = [
            place.with_name(f"{place.stem}-fold{number}{place.suffix or '.csv'}")
            for number in range(1, folds + 1)
        ]
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    texts = [_text(table, own, path.parent) for path, own in zip(paths, splits, strict=True)]
    for path, text in zip(paths, texts, strict=True):
        _check_free(path, table.path, text)
    for path, text in zip(paths, texts, strict=True):
        write_file(path, text)
    return dict(zip(paths, splits, strict=True))


def _check_free(path: Path, data: Path, text: str) -> None:
    """Make sure that nothing is lost: the same splits may be written again, over themselves.

    Raises:
        UsageError: if something else stands there.
    """
    from tnet.errors import UsageError

    if path.resolve() == data.resolve():
        raise UsageError(f"{data} would be replaced by its own splits; name another file with -o")
    if path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):
        raise UsageError(
            f"{path} exists already and holds something else; name another file with -o, or "
            "delete it"
        )


def _text(table: "Table", splits: tuple[str, ...], folder: Path) -> str:
    """Return the table with its splits, all other columns as they were.

    Relative paths are made relative to the new table's folder.
    """
    from tnet.datasets.entries import COLUMNS

    place = table.find(COLUMNS["split"])
    files = [table.find(COLUMNS[role]) for role in ("image", "mask")]
    lines = io.StringIO("\ufeff" if table.marked else "", newline="")
    lines.seek(0, io.SEEK_END)
    rows = csv.writer(lines, delimiter=table.delimiter, lineterminator="\n")
    columns = list(table.columns)
    rows.writerow(_with(columns, place, "split"))
    for row, own in zip(table.rows, splits, strict=True):
        cells = [
            _moved(cell, table.path.parent, folder) if index in files else cell
            for index, cell in enumerate(row.cells)
        ]
        rows.writerow(_with(cells, place, own))
    return lines.getvalue()


def _with(cells: list[str], place: int | None, value: str) -> list[str]:
    """Return cells with the one at ``place`` replaced, or with one more."""
    if place is None:
        return [*cells, value]
    return [*cells[:place], value, *cells[place + 1 :]]


def _moved(name: str, old: Path, new: Path) -> str:
    """Return a relative path from another folder."""
    if not name or Path(name).is_absolute() or old.resolve() == new.resolve():
        return name
    if "\\" in name and not (old / name).exists():
        name = name.replace("\\", "/")
    try:
        return Path(os.path.relpath(old / name, new)).as_posix()
    except ValueError:  # on another drive
        return str((old / name).resolve())


def _counts(manifest: "Manifest", path: Path, splits: tuple[str, ...]) -> dict[str, Any]:
    """Return how many images of each class, and groups, each split holds."""
    counted: dict[str, Any] = {"file": str(path), "images": {}, "classes": {}, "groups": {}}
    for name in (each for each in _NAMES if each in splits):
        own = [e for e, split in zip(manifest.entries, splits, strict=True) if split == name]
        labels = Counter(label for entry in own for label in entry.labels)
        counted["images"][name] = len(own)
        counted["classes"][name] = {label: labels[label] for label in manifest.classes}
        counted["groups"][name] = len({entry.group or entry.row for entry in own})
    return counted


def _document(
    manifest: "Manifest",
    wanted: Wanted,
    copies: "Sequence[Sequence[Entry]]",
    report: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    shares = {"val": wanted.val, "test": 1 / wanted.folds if wanted.folds else wanted.test}
    return {
        "data": str(manifest.path),
        "seed": wanted.seed,
        "shares": shares,
        "folds": wanted.folds,
        "copies": [[entry.row for entry in same] for same in copies],
        "splits": list(report),
    }


def _print_counts(counted: dict[str, Any], manifest: "Manifest", *, alone: bool) -> None:
    from tnet.scripts.output import columns, shown

    grouped = any(entry.group is not None for entry in manifest.entries)
    rows = [["split", "images", *(["groups"] if grouped else []), *manifest.classes]]
    for name, images in counted["images"].items():
        groups = [str(counted["groups"][name])] if grouped else []
        labels = [str(counted["classes"][name][label]) for label in manifest.classes]
        rows.append([name, str(images), *groups, *labels])
    if not alone:
        print(shown(counted["file"]))
    print("\n".join(columns(rows, right=range(1, len(rows[0])))))
