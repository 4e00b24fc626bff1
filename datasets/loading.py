"""Batches of labelled images: each a pyramid, opened when it is asked for, and its draw.

Nothing is decoded here: the walk reads what it looks at, in threads of its own.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.random import default_rng
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from tnet.adapters import open_pyramid
from tnet.datasets.augment import Augment, augmented, draw_seed, mapped_boxes
from tnet.datasets.boxes import evidence
from tnet.datasets.entries import Entry
from tnet.datasets.guarding import Guarded
from tnet.datasets.manifest import Manifest
from tnet.errors import DataError, counted, one_line
from tnet.geometry import Region
from tnet.model import Input
from tnet.pyramid import Pyramid
from tnet.settings import Sample

_MOST_BYTES = 2**30  # of decoded pixels that open images hold


class Images(Dataset[Sample]):
    """The images of a manifest, ready for the walk; those that fail are left out and named.

    An image is opened at its first use and stays open while few others were asked for. The one
    that was not asked for the longest is closed when too many are open, in use or not;
    :func:`loader` sees to it that two batches can be open. What is read of a closed image all the
    same is read from its file opened anew, which is slow.

    Args:
        entries: rows of the manifest.
        manifest: where they come from.
        seed: of all draws, with the epoch and an image's index.
        augment: how far images are changed; None changes none.
        expects: what the model takes; images of other bands fail.
        keep_open: how many images may be open at once.
        mpp: µm per px of level 0 of images whose row does not say, instead of what the files say.

    Attributes:
        epoch: the present one; each has its own draws.
        failed: index -> why, of images that could not be read; another one is drawn for them.
            A training that goes on adds those that failed before.

    Raises:
        ValueError: if no image may be open.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        manifest: Manifest,
        *,
        seed: int = 0,
        augment: Augment | None = None,
        expects: Input,
        keep_open: int = 64,
        mpp: float | None = None,
    ) -> None:
        if keep_open < 1:
            raise ValueError(f"keep_open must be at least 1, got {keep_open}")
        self.entries = tuple(entries)
        self.targets = tuple(manifest.target(entry) for entry in self.entries)
        self.seed, self.epoch = seed, 0
        self.keep_open = keep_open
        self.failed: dict[int, str] = {}
        self._augment, self._expects = augment or Augment(), expects
        self._mpp = mpp
        self._in_use = 1
        # The same object as long as an image is open: looks are remembered by it.
        self._open: OrderedDict[int, Guarded] = OrderedDict()
        # Bytes of decoded pixels of each, and of all of them.
        self._held: dict[int, int] = {}
        self._bytes = 0
        self._boxes: dict[int, tuple[Region, ...]] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        """Return an image as it is in this epoch, or another one in its place if it failed.

        Raises:
            DataError: if no image can be read.
            IndexError: if there is no such image.
        """
        if not 0 <= index < len(self.entries):
            raise IndexError(f"there are {len(self.entries)} images, no number {index}")
        for candidate in self._in_turn(index):
            if candidate in self.failed:
                continue
            try:
                return self._sample(candidate)
            except Exception as error:  # decoders of damaged files fail in many ways
                self._fail(candidate, error)
        raise DataError(f"none of the {len(self.entries)} images can be read any more")

    def make_room(self, batch: int) -> None:
        """Let the images of two batches be open at once: the next may be asked for already."""
        self._in_use = max(self._in_use, 2 * batch)
        self.keep_open = max(self.keep_open, 2 * batch)

    def close(self) -> None:
        """Close all images; those that are asked for again are opened again."""
        while self._open:
            self._close_oldest()

    def _guarded(self, index: int) -> Guarded:
        """Return an image as it is in its file, opened if need be."""
        if index not in self._open:
            reopen, tell = partial(self._opened, index), partial(self._fail, index)
            pyramid = self._opened(index)
            self._open[index] = Guarded(pyramid, reopen, tell)
            self._held[index] = _bytes(pyramid)
            self._bytes += self._held[index]
            self._close_others()
        self._open.move_to_end(index)
        return self._open[index]

    def _opened(self, index: int) -> Pyramid:
        entry = self.entries[index]
        return open_pyramid(entry.image, mpp=self._mpp if entry.mpp is None else entry.mpp)

    def _sample(self, index: int) -> Sample:
        entry, pyramid = self.entries[index], self._guarded(index)
        self._check(entry, pyramid)
        boxes = self._boxes_of(index, pyramid)
        seed = draw_seed(self.seed, self.epoch, index)
        shown = augmented(
            pyramid,
            self._augment,
            seed,
            mean=self._expects.mean,
            std=self._expects.std,
            boxes=boxes,
        )
        return Sample(
            shown, self.targets[index], seed, mapped_boxes(shown, boxes), weight=entry.weight
        )

    def _check(self, entry: Entry, pyramid: Pyramid) -> None:
        found, wanted = (pyramid.bands, str(pyramid.dtype)), self._expects
        if found != (wanted.bands, wanted.dtype):
            raise DataError(
                f"{entry.image} has {counted(found[0], 'band')} of {found[1]}; the model takes "
                f"{wanted.bands} of {wanted.dtype}"
            )

    def _boxes_of(self, index: int, pyramid: Pyramid) -> tuple[Region, ...]:
        """Return where the evidence is, from the row and from its mask."""
        if index not in self._boxes:
            entry = self.entries[index]
            self._boxes[index] = evidence(entry.boxes, entry.mask, pyramid.width, pyramid.height)
        return self._boxes[index]

    def _in_turn(self, index: int) -> Iterator[int]:
        """Give the image itself, then others: those of its class first, in an order of its own."""
        yield index
        chance = default_rng([draw_seed(self.seed, self.epoch, index), 1])
        order = chance.permutation(len(self.entries)).tolist()
        yield from sorted(order, key=lambda i: self.targets[i] != self.targets[index])

    def _fail(self, index: int, error: Exception) -> None:
        self.failed.setdefault(index, one_line(error) or type(error).__name__)

    def _close_others(self) -> None:
        """Close what was not asked for the longest, until few enough images are open.

        Images that are decoded whole are open with all of their pixels.
        """
        while len(self._open) > 1:
            crowded = len(self._open) > self.keep_open
            heavy = self._bytes > _MOST_BYTES and len(self._open) > self._in_use
            if not crowded and not heavy:
                break
            self._close_oldest()

    def _close_oldest(self) -> None:
        index, pyramid = self._open.popitem(last=False)
        self._bytes -= self._held.pop(index)
        pyramid.close()


class Order(Sampler[int]):
    """In which order images come: it follows from the seed and the epoch alone.

    Args:
        images: what is ordered.
        shuffle: whether the order changes from epoch to epoch.
        seed: of the order.
        balanced: whether images are drawn, with replacement, so that all classes come equally
            often; with several labels, an image as often as its rarest label asks for.
    """

    def __init__(self, images: Images, *, shuffle: bool, seed: int, balanced: bool) -> None:
        self._images, self._seed = images, seed
        self._shuffle = shuffle or balanced
        self._share = _shares(images.targets) if balanced and len(images) else None

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[int]:
        """Give the indices of one epoch."""
        count = len(self._images)
        if not self._shuffle:
            return iter(range(count))
        chance = default_rng([self._seed % 2**63, self._images.epoch, 2])
        if self._share is not None:
            return iter(chance.choice(count, count, p=self._share).tolist())
        return iter(chance.permutation(count).tolist())


def loader(
    images: Images, batch: int, *, shuffle: bool, seed: int, balanced: bool = False
) -> DataLoader[Sample]:
    """Return a loader of lists of samples.

    It works in this process: the walk reads with threads. Nothing is drawn from torch's global
    generator, so that validation does not change training.

    Args:
        images: the data.
        batch: images a batch; so many must be able to be open at once.
        shuffle: whether the order is drawn anew in each epoch (``images.epoch``).
        seed: of the order.
        balanced: see :class:`Order`.
    """
    images.make_room(batch)
    return DataLoader(
        images,
        batch_size=batch,
        sampler=Order(images, shuffle=shuffle, seed=seed, balanced=balanced),
        collate_fn=list,
        generator=torch.Generator(),
    )


def batches(
    images: Dataset[Sample] | Sequence[Sample], size: int, *, shuffle: bool = False
) -> DataLoader[Sample]:
    """Return a plain loader of lists of samples, in an order of torch's own generator."""
    # A sequence has all that a map-style data set needs, and torch's types do not say so.
    return DataLoader(
        cast("Dataset[Sample]", images), batch_size=size, shuffle=shuffle, collate_fn=list
    )


def _shares(targets: Sequence[int | tuple[int, ...]]) -> NDArray[np.float64]:
    """Return how often each image is drawn, float64 (images,), 1 in all."""
    labels = [
        (target,) if isinstance(target, int) else tuple(k for k, own in enumerate(target) if own)
        for target in targets
    ]
    # Images without a label are a class of their own.
    counts = Counter(label for own in labels for label in own or (-1,))
    share = np.array([max(1 / counts[label] for label in own or (-1,)) for own in labels])
    return share / share.sum()


def _bytes(pyramid: Pyramid) -> int:
    """Return how many bytes of pixels an open image holds, if it is decoded whole."""
    only = pyramid.levels[0]
    in_tiles = only.tile is not None and only.tile != (only.width, only.height)
    if len(pyramid.levels) > 1 or in_tiles:
        return 0
    return only.width * only.height * pyramid.bands * pyramid.dtype.itemsize
