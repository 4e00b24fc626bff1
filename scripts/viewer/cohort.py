"""What there is to show: walks, the images they were made over, and images alone."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tnet.adapters import is_image
from tnet.errors import DataError, UsageError
from tnet.record import Walk
from tnet.scripts.inputs import Url, find_images
from tnet.scripts.walks import image_file, read_walk, walks_in


@dataclass(frozen=True)
class Entry:
    """One image on the list.

    Attributes:
        id: what addresses call it; the same in every run.
        title: the image's file name.
        walk: the file of its walk, if there is one.
        image: the image's file; None if it was not found.
        problem: why there is no image.
        label: of the walk, "no evidence" where it has none.
        confidence: of the label.
        certainty: what the list is sorted by: the confidence; with several labels an image, that
            of the least certain label; -1 without evidence.
        share: of the image's pixels that were looked at.
        glimpses: how many views the network looked at.
    """

    id: str
    title: str
    walk: Path | None
    image: Path | None
    problem: str | None = None
    label: str = ""
    confidence: float | None = None
    certainty: float = 1.0
    share: float | None = None
    glimpses: int | None = None

    def read(self) -> Walk | None:
        """Return the walk.

        Raises:
            UsageError: if its file has gone or is damaged.
        """
        return None if self.walk is None else read_walk(self.walk)

    def inset(self, glimpse: int) -> Path | None:
        """Return the picture of what lies inside a glimpse, if there is one.

        It is attention/NAME/GLIMPSE.png beside the folder of walks/NAME.json.
        """
        if self.walk is None:
            return None
        folder = self.walk.parent.parent / "attention" / self.walk.stem
        file = folder / f"{glimpse}.png"
        return file if file.is_file() else None


def find_entries(
    arguments: Iterable[str], folder: Path | None = None
) -> tuple[list[Entry], list[str]]:
    """Return what the arguments name, and a sentence for each walk that cannot be read.

    An argument is a folder of results (walks/NAME.json in it), a folder of walks, one walk, or an
    image as every command takes them.

    Args:
        arguments: of the command line.
        folder: where to look for the walks' images first.

    Raises:
        UsageError: if an argument names nothing.
    """
    entries: dict[str, Entry] = {}
    failures = []
    for argument in arguments:
        for path in _named(argument):
            try:
                entry = _walked(path, folder) if path.suffix == ".json" else _alone(path)
            except (DataError, UsageError) as error:
                failures.append(str(error))
            else:
                entries.setdefault(entry.id, entry)
    return list(entries.values()), failures


def _named(argument: str) -> Iterator[Path]:
    """Give the walks, or else the images, that an argument names."""
    path = Path(argument)
    if path.suffix == ".json":
        yield path
        return
    walks = [] if not path.is_dir() or is_image(path) else walks_in(path)
    for found in walks or find_images([argument]):
        if isinstance(found, Url):
            raise UsageError(
                f"{found} is on the network, where the viewer reads nothing; download it"
            )
        yield found


def _identity(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]


def _alone(path: Path) -> Entry:
    if not path.exists():
        raise DataError(f"{path} does not exist; check the name")
    return Entry(id=_identity(path), title=path.resolve().name, walk=None, image=path)


def _walked(file: Path, folder: Path | None) -> Entry:
    walk = read_walk(file)
    image, problem = image_file(walk.image, file, folder), None
    if image is None:
        problem = (
            f"{walk.image} was not found, so the walk {file.name} is shown without its image; "
            "name the folder where it is with --images"
        )
    return Entry(
        id=_identity(file),
        title=walk.image.replace("\\", "/").rstrip("/").rpartition("/")[2] or file.stem,
        walk=file,
        image=image,
        problem=problem,
        label=walk.label or walk.outcome,
        confidence=walk.confidence,
        certainty=certainty(walk),
        share=walk.share,
        glimpses=walk.looks,
    )


def certainty(walk: Walk) -> float:
    """Return what ``Entry`` says of it."""
    if walk.label is None:
        return -1.0
    if walk.multilabel:
        return float(np.maximum(walk.probabilities, 1 - walk.probabilities).min())
    return float(walk.probabilities.max())
