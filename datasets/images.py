"""Labelled images as a data set of pyramids: nothing is read until the walk asks for it."""

import csv
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from torch.utils.data import DataLoader, Dataset

from tnet.adapters import open_pyramid
from tnet.errors import DataError
from tnet.geometry import Region
from tnet.pyramid import Pyramid
from tnet.task import Sample


def read_labels(path: Path) -> list[tuple[Path, str]]:
    """Read a CSV with the columns ``image`` and ``label``; paths are relative to the file.

    Raises:
        DataError: if the file or a column is missing, or there is no row.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not rows or not {"image", "label"} <= set(rows[0]):
        raise DataError(f"{path}: needs the columns 'image' and 'label' and at least one row")
    return [(path.parent / row["image"], row["label"]) for row in rows]


class LabelledImages(Dataset[Sample]):
    """Images and their class indices; each is opened at its first use and stays open a while.

    The pyramid that was not asked for the longest is closed when one too many is open, in use or
    not: ``keep_open`` must be at least the images of a batch. Whoever keeps pyramids from here
    for longer, such as crops of them, needs it to be at least the number of images.

    Args:
        rows: (path, label name) of each image.
        classes: label names, in the order of the logits.
        seed: with an image's index it seeds the image's draws.
        boxes: where each image's evidence is, in pixels of level 0; None where nobody knows.
        keep_open: how many images may be open at once.

    Raises:
        DataError: if a label is not among the classes.
        ValueError: if no image may be open.
    """

    def __init__(
        self,
        rows: Sequence[tuple[Path, str]],
        classes: Sequence[str],
        seed: int = 0,
        boxes: Sequence[tuple[Region, ...]] | None = None,
        keep_open: int = 256,
    ) -> None:
        if keep_open < 1:
            raise ValueError(f"keep_open must be at least 1, got {keep_open}")
        place = {name: index for index, name in enumerate(classes)}
        for path, label in rows:
            if label not in place:
                raise DataError(f"{path}: has the label {label!r}, not one of {list(classes)}")
        self.rows = [(path, place[label]) for path, label in rows]
        self.seed = seed
        self.boxes = boxes or [()] * len(self.rows)
        self.keep_open = keep_open
        self._open: OrderedDict[int, Pyramid] = OrderedDict()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        path, label = self.rows[index]
        if index not in self._open:
            self._open[index] = open_pyramid(path)
            if len(self._open) > self.keep_open:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(index)
        seed = self.seed * 1_000_003 + index
        return Sample(self._open[index], label, seed, self.boxes[index])


def batches(
    images: Dataset[Sample] | Sequence[Sample], size: int, *, shuffle: bool = False
) -> DataLoader[Sample]:
    """Return a plain loader of lists of samples; pixels are read by the walk's own threads."""
    # A sequence has all that a map-style data set needs, and torch's types do not say so.
    return DataLoader(
        cast("Dataset[Sample]", images), batch_size=size, shuffle=shuffle, collate_fn=list
    )
