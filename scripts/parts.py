"""Which images a training learns from, and which ones it is measured on."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tnet.errors import DataError, UsageError
from tnet.scripts.config import Config
from tnet.scripts.output import counted
from tnet.scripts.runs import Run, read_rows, write_table

if TYPE_CHECKING:
    from tnet.datasets.checking import ImageFacts
    from tnet.datasets.entries import Entry
    from tnet.datasets.manifest import Manifest

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Parts:
    """The images of a training.

    Attributes:
        manifest: the whole table.
        train: rows to learn from.
        val: rows to measure on after every epoch.
        facts: row -> what its image is; none for a training that goes on.
        unreadable: rows that are left out, each with the reason.
        blank: rows that are left out because their images are nothing but background.
        notes: what the user should know, a sentence each.
    """

    manifest: "Manifest"
    train: "tuple[Entry, ...]"
    val: "tuple[Entry, ...]"
    facts: "dict[int, ImageFacts]" = field(default_factory=dict)
    unreadable: "tuple[tuple[Entry, str], ...]" = ()
    blank: "tuple[Entry, ...]" = ()
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many images of each class there are: split -> class -> images."""
        return {name: _count(rows) for name, rows in (("train", self.train), ("val", self.val))}


def manifest_of(data: Path, config: Config) -> "Manifest":
    """Read the table of a training.

    Raises:
        DataError: if it makes no sense; see :func:`tnet.datasets.manifest.read_manifest`.
    """
    from tnet.datasets.manifest import read_manifest

    manifest = read_manifest(data, separator=config.separator)
    if config.mpp is None:
        return manifest
    entries = tuple(replace(entry, mpp=config.mpp) for entry in manifest.entries)
    return replace(manifest, entries=entries)


def parted(manifest: "Manifest", config: Config, told: Told | None = None) -> Parts:
    """Look into every image, leave out those that cannot be read, and part the others.

    Without rows for validation a stratified share of the training rows is taken, whole groups.

    Raises:
        DataError: if more than a few images cannot be read, or they do not go together, or
            nothing that can be read is left to train on.
        UsageError: if the table has no row to train on, or no share of every class can be taken
            out.
    """
    from tnet.datasets.checking import check_images

    split = any(entry.split for entry in manifest.entries)
    if split and not manifest.part("train"):
        uses = Counter(str(entry.split) for entry in manifest.entries)
        raise UsageError(
            f"{manifest.path}: no row is in the split train, only "
            f"{', '.join(f'{count} in {name}' for name, count in uses.items())}; write train into "
            "the rows to learn from, or let tnet split make the splits"
        )
    checked = check_images(manifest.entries, told, source=manifest.path)
    train = [e for e in checked.readable if e.split == "train" or not split]
    val = [e for e in checked.readable if e.split == "val"]
    if not train:
        raise DataError(f"{manifest.path}: no image that can be read is in the split 'train'")
    notes = [_about_labels(manifest)]
    if not val:
        train, val = _kept_back(manifest, train, config, checked.duplicates)
        whole = "whole groups" if any(entry.group for entry in train) else "every class"
        many = len(train) + len(val)
        notes.append(
            f"the table has no rows for validation: {len(val)} of its {counted(many, 'image')} "
            f"{'is' if len(val) == 1 else 'are'} taken, of {whole}"
        )
    learned = _count(train)
    unseen = [name for name in manifest.classes if name not in learned]
    if unseen:
        notes.append(f"no training image has the class {', '.join(unseen)}")
    facts = {e.row: fact for e, fact in zip(checked.readable, checked.facts, strict=True)}
    notes.append(_about_masks([*train, *val], facts))
    return Parts(
        manifest,
        tuple(train),
        tuple(val),
        facts,
        checked.unreadable,
        notes=tuple(note for note in notes if note is not None),
    )


def _kept_back(
    manifest: "Manifest",
    rows: "list[Entry]",
    config: Config,
    together: "Sequence[Sequence[Entry]]",
) -> "tuple[list[Entry], list[Entry]]":
    """Return the rows to train on and those to validate on, of rows without a split.

    Raises:
        UsageError: if no share of every class can be taken out.
    """
    from tnet.datasets.splits import Shares, split_entries

    try:
        places = split_entries(rows, Shares(val=config.val, test=0.0), config.seed, together)
    except UsageError as error:
        said = f"{manifest.path}: rows for validation cannot be taken out: {error}"
        # Labels that are taken for one make rare classes.
        also = _about_labels(manifest)
        raise UsageError(said if also is None else f"{said} ({also})") from error
    paired = list(zip(rows, places, strict=True))
    return (
        [entry for entry, place in paired if place == "train"],
        [entry for entry, place in paired if place == "val"],
    )


def _about_labels(manifest: "Manifest") -> str | None:
    from tnet.datasets.manifest import joined_labels

    return joined_labels(manifest, "--set separator=")


def _about_masks(rows: "Sequence[Entry]", facts: "dict[int, ImageFacts]") -> str | None:
    """Say which masks show nothing, if any do."""
    empty = [e for e in rows if e.mask is not None and facts[e.row].boxes == len(e.boxes)]
    if not empty:
        return None
    holds, gives = ("holds", "gives") if len(empty) == 1 else ("hold", "give")
    return (
        f"{counted(len(empty), 'mask')} {holds} nothing but zeros and {gives} no box, the first in "
        f"row {empty[0].row}: {empty[0].mask}"
    )


def write_parts(run: Run, parts: Parts, separator: str | None) -> None:
    """Write which image is for what, and those that are left out.

    Args:
        run: where to.
        parts: the images.
        separator: between several labels of an image, as in the table.

    Raises:
        OutputError: if it cannot be written.
    """
    use = {e.row: "train" for e in parts.train} | {e.row: "val" for e in parts.val}
    use |= {entry.row: "unreadable" for entry, _ in parts.unreadable}
    use |= {entry.row: "background" for entry in parts.blank}
    write_table(
        run.splits,
        [
            {
                "row": entry.row,
                # Absolute: the run is read from other folders, to tell what a model has seen.
                "image": entry.image.absolute(),
                "label": (separator or " ").join(entry.labels),
                "group": entry.group or "",
                "split": use.get(entry.row, entry.split or ""),
            }
            for entry in parts.manifest.entries
        ],
    )
    if parts.unreadable:
        write_table(run.unreadable, [unreadable_row(e, why) for e, why in parts.unreadable])


def unreadable_row(entry: "Entry", reason: str) -> dict[str, Any]:
    """Return a row of unreadable.csv."""
    return {"row": entry.row, "image": entry.image, "reason": reason}


def remembered(manifest: "Manifest", run: Run) -> Parts:
    """Return the parts of a training that has begun, as they were then.

    Raises:
        DataError: if they cannot be read.
    """
    use = {row["row"]: row["split"] for row in read_rows(run.splits)}
    train, val = (
        tuple(entry for entry in manifest.entries if use.get(str(entry.row)) == name)
        for name in ("train", "val")
    )
    if not train:
        raise DataError(f"{run.splits}: names no training image; train into another folder")
    return Parts(manifest, train, val)


def _count(entries: "Sequence[Entry]") -> dict[str, int]:
    return dict(Counter(label for entry in entries for label in entry.labels))


def class_weights(parts: Parts) -> tuple[float, ...]:
    """Return weights that make rare classes count as much as others.

    With one label an image n / (K n_k); with several, how many images lack a class for each
    that has it. A class without images has the weight 1.
    """
    counts, images = _count(parts.train), len(parts.train)
    weights = []
    for name in parts.manifest.classes:
        count = counts.get(name, 0)
        if count == 0:
            weights.append(1.0)
        elif parts.manifest.multilabel:
            weights.append(max(images - count, 1) / count)
        else:
            weights.append(images / (len(parts.manifest.classes) * count))
    return tuple(weights)
