"""Which images a model is evaluated on, and whether it has seen them before."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tnet.errors import DataError, UsageError
from tnet.scripts.output import percent
from tnet.scripts.runs import Run, read_rows

if TYPE_CHECKING:
    from tnet.datasets.manifest import Entry, Manifest
    from tnet.model import TNet

ALL = "all"


def trained_on(named: str) -> dict[Path, str]:
    """Return which images a training used and for what; nothing where nobody wrote it down.

    Args:
        named: a run's folder, or a model file in one.
    """
    place = Path(named)
    try:
        rows = read_rows(Run(place.parent if place.is_file() else place).splits)
    except DataError:
        return {}
    pairs = [(row.get("image"), row.get("split")) for row in rows]
    return {Path(image).resolve(): split for image, split in pairs if image and split}


def about_run(named: str) -> list[str]:
    """Say of a training that is not finished how far it is.

    Args:
        named: a run's folder, or a model file in one.
    """
    place = Path(named)
    run = Run(place.parent if place.is_file() else place)
    if run.state != "begun" or (progress := run.progress()) is None:
        return []
    note = (
        f"the training in {run.folder} is not finished but stopped at epoch {progress[0]} of "
        f"{progress[1]}; what it has so far is evaluated, and the same `tnet train` command goes on"
    )
    return [note]


def manifest_of(path: Path, model: "TNet", separator: str | None) -> "Manifest":
    """Read the labelled images; their labels must be among the model's classes.

    Args:
        path: of the table.
        model: is evaluated.
        separator: between the labels of an image; None takes the one of the training.

    Raises:
        TNetError: if the table cannot be read or does not fit the model.
    """
    from tnet.datasets.manifest import read_manifest

    if model.multilabel:
        separator = separator or _separator_of(model)
        if not separator:
            raise UsageError(
                "the model gives several labels an image; say what stands between them in "
                f"{path} with --separator"
            )
    elif separator is not None:
        raise UsageError("the model gives one label an image; leave --separator out")
    return read_manifest(path, separator=separator, classes=model.classes, images=False)


def _separator_of(model: "TNet") -> str | None:
    """Return what stood between the labels of an image in training, if the model's file says."""
    config = model.training_record.get("config")
    said = config.get("separator") if isinstance(config, dict) else None
    return said if isinstance(said, str) else None


def chosen_rows(
    table: "Manifest", split: str, known: dict[Path, str]
) -> "tuple[tuple[Entry, ...], str, list[str]]":
    """Return the rows of a split, the split that they are of, and what is to be said of it.

    Args:
        table: the labelled images.
        split: "train", "val", "test" or "all". A table without splits, or without rows for
            validation, has those of the training if that saw the same images; otherwise all
            rows of a table without splits are meant.
        known: image -> split, of the training.

    Raises:
        UsageError: if the table has splits but no row of this one.
    """
    notes: list[str] = []
    rows = table.entries
    own = any(entry.split is not None for entry in rows)
    if split != ALL:
        theirs = {entry.row: _split_of(entry, known) for entry in rows}
        if own or split in theirs.values():
            rows = tuple(entry for entry in rows if theirs[entry.row] == split)
            if rows and not any(entry.split == split for entry in rows):
                notes.append(
                    f"{table.path} has no rows of the split {split}; those of the training are "
                    "evaluated"
                )
        else:
            notes.append(f"{table.path} has no column split; all its rows are evaluated")
            split = ALL
    if not rows:
        raise UsageError(
            f"{table.path} has no rows of the split {split}, only {_counted(table.entries)}; "
            "name one of them with --split, or all"
        )
    return rows, split, notes + _about_seen(rows, split, known)


def _split_of(entry: "Entry", known: dict[Path, str]) -> str | None:
    """Return what a row is for; of the rows to train on, the training may have kept some back."""
    if entry.split in (None, "train"):
        return known.get(entry.image.resolve(), entry.split)
    return entry.split


def _counted(rows: "Sequence[Entry]") -> str:
    counts = Counter(entry.split for entry in rows)
    return ", ".join(f"{count} of {split}" for split, count in counts.items())


def _about_seen(rows: "Sequence[Entry]", split: str, known: dict[Path, str]) -> list[str]:
    """Say how many of the images the model learned from, unless that is what was asked for."""
    seen = sum(known.get(entry.image.resolve()) == "train" for entry in rows)
    chosen = sum(known.get(entry.image.resolve()) == "val" for entry in rows)
    notes = []
    if seen and split != "train":
        notes.append(
            f"the model was trained on {seen} of {_these(rows)} "
            f"({percent(seen / len(rows))} %); new images will do worse than the figures say"
        )
    if chosen and split != "val":
        notes.append(
            f"{chosen} of {_these(rows)} helped to choose the best epoch; the figures "
            "flatter a little"
        )
    return notes


def _these(rows: "Sequence[Entry]") -> str:
    return "this 1 image" if len(rows) == 1 else f"these {len(rows)} images"
