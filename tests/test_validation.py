"""Scores over a whole pass of the validation images."""

import math
import warnings

import pytest
import torch
from torch import Tensor

from tnet.validation import Scores


def scores(logits: Tensor, target: Tensor) -> dict[str, float]:
    """What one pass in two batches gives."""
    found = Scores()
    half = len(target) // 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for part in (slice(half), slice(half, None)):
            found.add(logits[part], target[part])
        return found.results()


def area(score: list[float], present: list[int]) -> float:
    """How often a present one stands above an absent one."""
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a, p in zip(score, present, strict=True)
        for b, q in zip(score, present, strict=True)
        if p and not q
    ]
    return sum(pairs) / len(pairs)


def test_two_classes_by_hand() -> None:
    margin = torch.tensor([2.0, -1.0, 0.5, 3.0, -2.0, 1.0])
    target = torch.tensor([1, 0, 0, 1, 0, 0])
    got = scores(torch.stack([torch.zeros(6), margin], dim=1), target)
    assert got["balanced_accuracy"] == pytest.approx((1 + 0.5) / 2)
    assert got["auroc"] == pytest.approx(area(margin.tolist(), target.tolist()))


def test_three_classes_are_averaged() -> None:
    torch.manual_seed(5)
    logits, target = torch.randn(30, 3), torch.randint(0, 3, (30,))
    got = scores(logits, target)
    p = logits.softmax(1)
    areas = [area(p[:, k].tolist(), (target == k).int().tolist()) for k in range(3)]
    assert got["auroc"] == pytest.approx(sum(areas) / 3, abs=1e-6)
    right = logits.argmax(1) == target
    recalls = [float(right[target == k].float().mean()) for k in range(3)]
    assert got["balanced_accuracy"] == pytest.approx(sum(recalls) / 3, abs=1e-6)


def test_classes_without_an_image_are_left_out() -> None:
    logits = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 2, 1], [1, 0, 2]])
    target = torch.tensor([0, 1, 0, 1])
    got = scores(logits, target)
    assert got["balanced_accuracy"] == pytest.approx(0.5)
    p = logits.softmax(1)
    areas = [area(p[:, k].tolist(), (target == k).int().tolist()) for k in range(2)]
    assert got["auroc"] == pytest.approx(sum(areas) / 2)


def test_one_class_alone_has_no_area() -> None:
    got = scores(torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([0, 0]))
    assert got["balanced_accuracy"] == 0.5
    assert math.isnan(got["auroc"])


def test_several_labels_by_hand() -> None:
    logits = torch.tensor([[1.0, 1, 1], [-1, 1, 1], [2, -1, 1], [-2, -1, 1]])
    target = torch.tensor([[1.0, 1, 1], [1, 0, 1], [0, 0, 1], [0, 1, 1]])
    got = scores(logits, target)
    # The third class is always there.
    assert got["balanced_accuracy"] == pytest.approx(0.5)
    wanted = [area(logits[:, k].tolist(), target[:, k].int().tolist()) for k in range(2)]
    assert got["auroc"] == pytest.approx(sum(wanted) / 2)


def test_nothing_seen_is_nothing_known() -> None:
    assert all(math.isnan(value) for value in Scores().results().values())
