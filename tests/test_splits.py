"""Splits: whole groups, all classes everywhere, shares as near as can be."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tnet.datasets.entries import Entry
from tnet.datasets.splits import Shares, deal_out, split_entries, split_folds
from tnet.errors import UsageError


def entry(row: int, *labels: str, group: str | None = None) -> Entry:
    return Entry(row, Path(f"{row}.png"), labels, group=group)


def counted(entries: Sequence[Entry], parts: Sequence[object]) -> Counter[tuple[str, object]]:
    return Counter((e.labels[0], part) for e, part in zip(entries, parts, strict=True))


def test_images_without_groups_are_parted_as_asked() -> None:
    entries = [entry(row, "a" if row < 70 else "b") for row in range(100)]
    found = counted(entries, split_entries(entries, Shares(0.1, 0.2)))
    assert found == {
        ("a", "train"): 49, ("a", "val"): 7, ("a", "test"): 14,
        ("b", "train"): 21, ("b", "val"): 3, ("b", "test"): 6,
    }  # fmt: skip


def test_the_seed_decides_and_nothing_else_does() -> None:
    entries = [entry(row, "ab"[row % 2]) for row in range(40)]
    first = split_entries(entries, Shares(), seed=1)
    assert first == split_entries(entries, Shares(), seed=1)
    assert first != split_entries(entries, Shares(), seed=2)


def test_no_share_makes_no_split() -> None:
    entries = [entry(row, "ab"[row % 2]) for row in range(20)]
    assert set(split_entries(entries, Shares(0.0, 0.3))) == {"train", "test"}
    assert set(split_entries(entries, Shares(0.0, 0.0))) == {"train"}
    assert set(split_entries(entries, Shares(0.01, 0.01))) == {"train", "val", "test"}


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from("ab")), min_size=30, max_size=80),
    st.integers(0, 3),
)
def test_groups_are_never_parted_and_classes_never_missing(
    rows: list[tuple[int, str]], seed: int
) -> None:
    # One class a group, and three groups of each at least: it can be done.
    rows += [(number, "ab"[number % 2]) for number in range(12)]
    entries = [entry(i, "ab"[g % 2], group=f"p{g}") for i, (g, _) in enumerate(rows)]
    splits = split_entries(entries, Shares(0.15, 0.25), seed)
    places = defaultdict(set)
    for own, split in zip(entries, splits, strict=True):
        places[own.group].add(split)
    assert all(len(where) == 1 for where in places.values())
    assert len(counted(entries, splits)) == 6


def test_groups_of_several_classes_come_near_the_shares() -> None:
    chance = np.random.default_rng(0)
    entries = [
        entry(row, str(chance.choice(list("abc"), p=[0.7, 0.2, 0.1])), group=f"p{row % 60}")
        for row in range(300)
    ]
    splits = split_entries(entries, Shares(0.1, 0.2))
    total = Counter(e.labels[0] for e in entries)
    for (label, split), count in counted(entries, splits).items():
        share = {"train": 0.7, "val": 0.1, "test": 0.2}[str(split)]
        assert abs(count - share * total[label]) <= 5
    sizes = Counter(splits)
    assert abs(sizes["val"] - 30) <= 5
    assert abs(sizes["test"] - 60) <= 5


def test_copies_stay_together_across_groups() -> None:
    entries = [entry(row, "ab"[row % 2], group=f"p{row // 2}") for row in range(40)]
    copies = [(entries[0], entries[10], entries[20]), (entries[20], entries[30])]
    for seed in range(5):
        splits = split_entries(entries, Shares(), seed, copies)
        assert len({splits[row] for row in (0, 1, 10, 11, 20, 21, 30, 31)}) == 1


def test_what_cannot_be_done_is_refused() -> None:
    few = [entry(row, "a" if row else "b") for row in range(10)]
    with pytest.raises(UsageError, match="class 'b' has 1 image, fewer than the 3 splits"):
        split_entries(few, Shares())
    grouped = [entry(row, "ab"[row < 6], group=f"p{row % 2}") for row in range(12)]
    with pytest.raises(UsageError, match="class 'a' has 2 groups, fewer than the 3 splits"):
        split_entries(grouped, Shares())
    # Three groups of each class; beside the one that holds all three, no two parts can.
    knot = [
        entry(row, word[1], group=word[0])
        for row, word in enumerate(["pa", "pb", "pc", "qa", "qb", "ra", "rc", "sb", "sc"])
    ]
    with pytest.raises(UsageError, match="so many classes each that 3 splits"):
        split_entries(knot, Shares())
    for shares in ((-0.1, 0.2), (0.5, 0.5), (0.1, 1.0)):
        with pytest.raises(UsageError, match="at least 0 and below 1 together"):
            Shares(*shares)


def test_every_image_is_tested_once_in_cross_validation() -> None:
    entries = [entry(row, "ab"[row % 2], group=f"p{row // 2}") for row in range(100)]
    folds = split_folds(entries, 5, val=0.1)
    assert [Counter(splits) for splits in folds] == [{"train": 72, "val": 8, "test": 20}] * 5
    tested = Counter(row for splits in folds for row, split in enumerate(splits) if split == "test")
    assert tested == dict.fromkeys(range(100), 1)
    for splits in folds:
        for row in range(0, 100, 2):
            assert splits[row] == splits[row + 1]
    assert Counter(split_folds(entries, 4, val=0.0)[0]) == {"train": 74, "test": 26}
    with pytest.raises(UsageError, match="at least 2 folds"):
        split_folds(entries, 1)


def test_images_of_several_labels_or_none() -> None:
    entries = [entry(row, *[name for name in "abc" if row % (ord(name) - 95)]) for row in range(60)]
    assert any(not own.labels for own in entries)
    part = deal_out(entries, [0.5, 0.5])
    for name in "abc":
        held = [sum(name in e.labels for e, p in zip(entries, part, strict=True) if p == s)
                for s in (0, 1)]  # fmt: skip
        assert abs(held[0] - held[1]) <= 2
    bare = Counter(p for e, p in zip(entries, part, strict=True) if not e.labels)
    assert abs(bare[0] - bare[1]) <= 1
