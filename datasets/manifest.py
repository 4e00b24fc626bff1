"""The table that says what is to be learned: an image a row, its label, and what is known of it.

``read_manifest`` finds the columns by their usual names, checks every row, and tells of each
mistake with the numbers of the rows.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tnet.datasets.entries import Entry, Reading, Split, refuse, together
from tnet.datasets.table import TableError, listed, read_table

__all__ = ["Entry", "Manifest", "Split", "joined_labels", "read_manifest"]

# What people put between labels; a comma and the like stand in single names, too.
_BETWEEN, _MAY_BE_BETWEEN = (";", "|"), (",", "/", "+")


@dataclass(frozen=True)
class Manifest:
    """A table of labelled images.

    Attributes:
        path: of the table.
        entries: its rows, in their order.
        classes: names, in the order of the logits.
        multilabel: whether an image may have several labels, or none.
    """

    path: Path
    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    multilabel: bool

    def part(self, split: Split) -> tuple[Entry, ...]:
        """Return the rows of one split, in their order."""
        return tuple(entry for entry in self.entries if entry.split == split)

    def target(self, entry: Entry) -> int | tuple[int, ...]:
        """Return the class index; with multi-label 0 or 1 for every class."""
        if self.multilabel:
            return tuple(int(name in entry.labels) for name in self.classes)
        return self.classes.index(entry.labels[0])


def read_manifest(
    path: Path,
    *,
    separator: str | None = None,
    classes: Sequence[str] | None = None,
    images: bool = True,
    group: str | None = None,
    split: bool = True,
) -> Manifest:
    """Read a table of labelled images and check it.

    Columns are found whatever their case: image (or path, file, filename, slide), label (class,
    target), and if there is one: split, group (patient, case), weight, mpp (µm/px), box (or
    x, y, width, height), mask. Others are left alone. Relative paths are relative to the table.

    Args:
        path: CSV or Parquet, see :func:`tnet.datasets.table.read_table`.
        separator: between the labels of an image, for multi-label; None reads one label a row.
        classes: the names that may occur, in their order; None takes those that do, numbers by
            value and others in natural order ("b2" before "b10").
        images: whether image and mask files must exist.
        group: the column to read groups from, instead of the usual ones.
        split: whether to read the column of the splits.

    Raises:
        TableError: of the first mistake that there is, with the numbers of its rows.
    """
    table = read_table(path)
    entries = Reading(table, separator, group, split).entries()
    _check_same_image(path, entries)
    _check_splits(path, entries)
    _check_weights(path, entries)
    if images:
        _check_files(path, entries)
    multilabel = separator is not None
    known = _classes(path, entries, multilabel) if classes is None else tuple(classes)
    refuse(
        path,
        [entry.row for entry in entries if not set(entry.labels) <= set(known)],
        f"has a label that is none of {', '.join(known)}",
        f"have labels that are none of {', '.join(known)}",
        "mend them, or leave the rows out",
    )
    return Manifest(path, entries, known, multilabel)


def joined_labels(manifest: Manifest, told_with: str) -> str | None:
    """Return a sentence on labels that look like several in one; None if there are none.

    "a;b" and "a|b" always look so, "a,b" if there are rows of "a" and rows of "b".

    Args:
        manifest: a table.
        told_with: what says that they are several, such as "--separator ".
    """
    if manifest.multilabel:
        return None
    for mark in (*_BETWEEN, *_MAY_BE_BETWEEN):
        apart = {name: [part.strip() for part in name.split(mark)] for name in manifest.classes}
        joined = {
            name
            for name, parts in apart.items()
            if len(parts) > 1
            and all(parts)
            and (mark in _BETWEEN or set(parts) <= set(manifest.classes))
        }
        rows = [entry for entry in manifest.entries if entry.labels[0] in joined]
        if rows:
            return (
                f"labels such as {rows[0].labels[0]!r} ({listed([e.row for e in rows])}) look like "
                f"several and are taken for one; if they are several, say {told_with}'{mark}'"
            )
    return None


def _check_same_image(path: Path, entries: Sequence[Entry]) -> None:
    # Links are not followed, which is slow; what they hide is found by content.
    places = ((os.path.normpath(entry.image.absolute()), entry) for entry in entries)
    for rows in together(places).values():
        if len(rows) > 1:
            raise TableError(
                f"{path}: {listed([entry.row for entry in rows])} name the same image, "
                f"{rows[0].image.name}; keep one of them"
            )


def _check_splits(path: Path, entries: Sequence[Entry]) -> None:
    """Make sure that no group is in two splits: the test would know its images."""
    groups = together((entry.group, entry) for entry in entries if entry.group is not None)
    for group, members in groups.items():
        first = together((entry.split, entry) for entry in members)
        if len(first) > 1:
            told = " and ".join(
                f"in {split} ({listed([entry.row for entry in rows])})"
                for split, rows in first.items()
            )
            raise TableError(
                f"{path}: the group {group!r} is {told}; a group must be in one split, so move "
                "its rows, or let tnet split make the splits"
            )


def _check_weights(path: Path, entries: Sequence[Entry]) -> None:
    """Make sure that there is something to learn from."""
    learned = [entry for entry in entries if entry.split in (None, "train")]
    if learned and not any(entry.weight for entry in learned):
        raise TableError(
            f"{path}: every row to train on has the weight 0, so that nothing would be learned; "
            "give those that count a weight above 0"
        )


def _check_files(path: Path, entries: Sequence[Entry]) -> None:
    for role in ("image", "mask"):
        missing = [
            (entry.row, file)
            for entry in entries
            if (file := getattr(entry, role)) is not None and not file.exists()
        ]
        refuse(
            path,
            [row for row, _ in missing],
            f"names {missing[0][1] if missing else ''}, which does not exist",
            f"name {role} files that do not exist, the first is {missing[0][1] if missing else ''}",
            "paths are relative to the folder of the table",
        )


def _classes(path: Path, entries: Sequence[Entry], multilabel: bool) -> tuple[str, ...]:
    """Return all labels in their natural order.

    Raises:
        TableError: if there are too few, or two are written differently and mean the same.
    """
    first: dict[str, int] = {}
    for entry in entries:
        for label in entry.labels:
            first.setdefault(label, entry.row)
    if len(first) < (1 if multilabel else 2):
        said = f"only one label, {next(iter(first))!r}" if first else "no label at all"
        raise TableError(
            f"{path}: its {len(entries)} rows have {said}; learning to tell classes apart needs "
            "images of at least two"
        )
    numbers = {label: _number(label) for label in first}
    keys = numbers if None not in numbers.values() else {name: name.casefold() for name in first}
    for same in together((key, name) for name, key in keys.items()).values():
        if len(same) > 1:
            rows = listed(sorted(first[name] for name in same))
            raise TableError(
                f"{path}: {rows} have the labels {' and '.join(map(repr, same))}, which look like "
                "one class; write it in one way"
            )
    if None not in numbers.values():
        return tuple(sorted(first, key=float))
    return tuple(sorted(first, key=_natural))


def _number(label: str) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts "b2" before "b10"."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]
