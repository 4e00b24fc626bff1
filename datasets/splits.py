"""Parting images into splits: whole groups, every class everywhere, shares as near as can be.

The order is that of iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, "On the
stratification of multi-label data"), with groups instead of images: the class that is left in the
fewest groups is dealt out first, each group to the part that lacks most of that class. Unlike
scikit-learn's StratifiedGroupKFold it takes parts of any share and images of several labels, and
no class can be missing from a part while there are groups enough.

U groups, K classes, S parts.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from tnet.datasets.entries import Entry, Split
from tnet.errors import UsageError

Counts = NDArray[np.float64]

_TRIES = 20  # orders of the groups, the best of which is taken


@dataclass(frozen=True)
class Shares:
    """How much of the images is kept from training.

    Raises:
        UsageError: if a share is no share, or nothing is left to train on.
    """

    val: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise UsageError(
                f"the shares for val and test must be at least 0 and below 1 together, got "
                f"{self.val:g} and {self.test:g}"
            )


def split_entries(
    entries: Sequence[Entry],
    shares: Shares,
    seed: int = 0,
    together: Sequence[Sequence[Entry]] = (),
) -> tuple[Split, ...]:
    """Return the split of each row: whole groups, stratified by label.

    Args:
        entries: rows of a manifest; those of one group stay together.
        shares: of the rows that go to val and test.
        seed: of the order in which groups are dealt out.
        together: rows that must stay together as well, such as copies of one image.

    Raises:
        UsageError: if a class has fewer groups than there are splits.
    """
    names: tuple[Split, ...] = ("train", "val", "test")
    wanted = (1 - shares.val - shares.test, shares.val, shares.test)
    kept = [(name, share) for name, share in zip(names, wanted, strict=True) if share > 0]
    part = deal_out(entries, [share for _, share in kept], seed, together)
    return tuple(kept[number][0] for number in part)


def split_folds(
    entries: Sequence[Entry],
    folds: int,
    val: float = 0.1,
    seed: int = 0,
    together: Sequence[Sequence[Entry]] = (),
) -> list[tuple[Split, ...]]:
    """Return the split of each row in each fold of a cross-validation.

    Every row is in the test part of one fold; of the others ``val`` is taken out, stratified in
    the same way.

    Raises:
        UsageError: if there are fewer than two folds, or a class has too few groups.
    """
    if folds < 2:
        raise UsageError(f"cross-validation needs at least 2 folds, got {folds}")
    fold = deal_out(entries, [1 / folds] * folds, seed, together)
    found = []
    for number in range(folds):
        rest = [i for i, place in enumerate(fold) if place != number]
        inner = split_entries([entries[i] for i in rest], Shares(val, 0.0), seed, together)
        splits: list[Split] = ["test"] * len(entries)
        for i, split in zip(rest, inner, strict=True):
            splits[i] = split
        found.append(tuple(splits))
    return found


def deal_out(
    entries: Sequence[Entry],
    shares: Sequence[float],
    seed: int = 0,
    together: Sequence[Sequence[Entry]] = (),
) -> tuple[int, ...]:
    """Return the part of each row, from 0 on.

    Args:
        entries: rows of a manifest; those of one group stay together.
        shares: of each part, 1 in all.
        seed: of the order in which groups are dealt out.
        together: rows that must stay together as well; others than ``entries`` are passed over.

    Raises:
        UsageError: if a class has fewer groups than there are parts.
    """
    unit_of = _units(entries, together)
    classes = sorted({label for entry in entries for label in entry.labels})
    place = {name: k for k, name in enumerate(classes)}
    # The last column counts all images, those without a label included.
    counts_UK = np.zeros((max(unit_of, default=-1) + 1, len(classes) + 1))
    for entry, unit in zip(entries, unit_of, strict=True):
        counts_UK[unit, [place[label] for label in entry.labels]] += 1
        counts_UK[unit, -1] += 1
    _check_enough(counts_UK, classes, len(shares), any(entry.group for entry in entries))
    wanted_SK = np.outer(shares, counts_UK.sum(axis=0))
    best_U, least = None, np.inf
    for attempt in range(_TRIES):
        part_U = _dealt(counts_UK, wanted_SK, default_rng([seed % 2**63, attempt]))
        held_SK = np.array([counts_UK[part_U == s].sum(axis=0) for s in range(len(shares))])
        off_SK = np.abs(held_SK - wanted_SK)
        if (held_SK > 0).all() and off_SK.sum() < least:
            best_U, least = part_U, off_SK.sum()
            if off_SK.max() <= 1:  # nearer than an image cannot be had
                break
    if best_U is None:
        raise UsageError(
            f"the groups hold so many classes each that {len(shares)} splits with every class in "
            "each cannot be made; take fewer splits, or smaller groups"
        )
    return tuple(int(best_U[unit]) for unit in unit_of)


def _units(entries: Sequence[Entry], together: Sequence[Sequence[Entry]]) -> list[int]:
    """Return a number for each row, from 0 on and the same for rows that stay together."""
    joined: dict[Hashable, Hashable] = {}

    def top(key: Hashable) -> Hashable:
        while (above := joined.get(key, key)) != key:
            key = above
        return key

    def key_of(entry: Entry) -> Hashable:
        return ("group", entry.group) if entry.group is not None else ("row", entry.row)

    known = {entry.row for entry in entries}
    for same in together:
        keys = [top(key_of(entry)) for entry in same if entry.row in known]
        for key in keys[1:]:
            if (below := top(key)) != (above := top(keys[0])):
                joined[below] = above
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(top(key_of(entry)), len(numbers)) for entry in entries]


def _check_enough(counts_UK: Counts, classes: Sequence[str], parts: int, grouped: bool) -> None:
    units_K = (counts_UK > 0).sum(axis=0)[:-1].tolist()
    for name, units in zip(classes, units_K, strict=True):
        if units < parts:
            what = "group" if grouped else "image"
            raise UsageError(
                f"the class {name!r} has {units} {what}{'s'[: units != 1]}, fewer than the {parts} "
                "splits that are to hold it; take fewer splits, or leave the class out"
            )


def _dealt(counts_UK: Counts, wanted_SK: Counts, chance: Generator) -> NDArray[np.int64]:
    """Return the part of each group, int64 (U,)."""
    missing_SK = wanted_SK.copy()  # images that each part still lacks
    held_SK = np.zeros(missing_SK.shape, dtype=bool)
    part_U = np.full(len(counts_UK), -1)
    shuffled = chance.permutation(len(counts_UK))
    while (left := shuffled[part_U[shuffled] < 0]).size:
        units_K = (counts_UK[left] > 0).sum(axis=0)
        k = int(np.argmin(np.where(units_K > 0, units_K, np.inf)))
        holders = left[counts_UK[left, k] > 0]
        # The largest first: the small ones then fill what is left.
        holders = holders[np.argsort(-counts_UK[holders, k], kind="stable")]
        for number, unit in enumerate(holders):
            lacking = np.flatnonzero(~held_SK[:, k])
            few = len(holders) - number <= len(lacking)
            able = lacking if few else np.arange(len(wanted_SK))
            keys = (chance.random(len(able)), -missing_SK[able, -1], -missing_SK[able, k])
            part = able[np.lexsort(keys)[0]]
            part_U[unit] = part
            missing_SK[part] -= counts_UK[unit]
            held_SK[part] |= counts_UK[unit] > 0
    return part_U
