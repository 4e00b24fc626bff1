"""Figures of merit and their intervals: known answers, odd data, and agreement with each other."""

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from tnet.datasets.bootstrap import intervals, resamples
from tnet.datasets.metrics import Outcomes, bin_of, measure, notes, reliability

FIGURES = ("accuracy", "balanced_accuracy", "f1", "auroc", "auprc", "log_loss", "brier", "ece")
FLOAT32 = 1e-5  # torchmetrics counts bins in float32


def outcomes(
    probability: Any, target: Any, *, multilabel: bool = False, answered: Any = None
) -> Outcomes:
    """Predictions for classes a, b, c ...; a target is a class's number, or a row of 0 and 1."""
    p = np.asarray(probability, np.float64)
    known = np.asarray(target)
    if known.ndim == 1:
        known = known[:, None] == np.arange(p.shape[1])
    there = np.ones(len(p), bool) if answered is None else np.asarray(answered, bool)
    return Outcomes(tuple("abcdefgh"[: p.shape[1]]), p, known.astype(bool), there, multilabel)


def drawn(count: int, classes: int, seed: int = 0) -> Outcomes:
    """A fair classifier's answers, rounded so that some scores are equal."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) + 1.5 * (target[:, None] == np.arange(classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p[:, :-1] = np.round(p[:, :-1], 2)
    p[:, -1] = 1 - p[:, :-1].sum(axis=1)
    return outcomes(p.clip(0, 1), target)


def drawn_labels(count: int, labels: int, seed: int = 0) -> Outcomes:
    rng = np.random.default_rng(seed)
    target = rng.random((count, labels)) < 0.4
    p = np.round(np.clip(0.35 * target + 0.65 * rng.random((count, labels)), 0, 1), 2)
    return outcomes(p, target, multilabel=True)


def taken(known: Outcomes, chosen: NDArray[np.intp]) -> Outcomes:
    return Outcomes(
        known.classes,
        known.probability_NK[chosen],
        known.target_NK[chosen],
        known.answered_N[chosen],
        known.multilabel,
    )


def test_a_table_by_hand() -> None:
    p = [[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]]
    found = measure(outcomes(p, [0, 0, 1, 1]))
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    assert found["confusion"] == [[2, 0], [1, 1]]
    assert found["f1"] == pytest.approx((2 * 2 / (2 * 2 + 1) + 2 / 3) / 2)
    # Of the four pairs of an image of each class, three are in the right order.
    assert found["auroc"] == pytest.approx(0.75)
    assert found["brier"] == pytest.approx(2 * (0.01 + 0.16 + 0.09 + 0.64) / 4)
    assert found["log_loss"] == pytest.approx(-math.log(0.9 * 0.6 * 0.7 * 0.2) / 4)
    # Claims of 0.9, 0.6, 0.7 came true, that of 0.8 did not; each alone in its bin.
    assert found["ece"] == pytest.approx((0.1 + 0.4 + 0.3 + 0.8) / 4)
    assert [row["n"] for row in found["per_class"]] == [2, 2]
    assert [row["recall"] for row in found["per_class"]] == [1.0, 0.5]


def test_agrees_with_scikit_learn() -> None:
    known = drawn(300, 4)
    found = measure(known)
    target, said = known.target_NK.argmax(1), known.probability_NK.argmax(1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(target, said))
    balanced = sk.balanced_accuracy_score(target, said)
    assert found["balanced_accuracy"] == pytest.approx(balanced)
    assert found["f1"] == pytest.approx(sk.f1_score(target, said, average="macro"))
    auroc = sk.roc_auc_score(target, known.probability_NK, multi_class="ovr")
    assert found["auroc"] == pytest.approx(auroc, abs=FLOAT32)
    auprc = sk.average_precision_score(known.target_NK, known.probability_NK, average="macro")
    assert found["auprc"] == pytest.approx(auprc, abs=FLOAT32)
    assert found["log_loss"] == pytest.approx(sk.log_loss(target, known.probability_NK))
    assert found["confusion"] == sk.confusion_matrix(target, said).tolist()
    ece = multiclass_calibration_error(
        torch.from_numpy(known.probability_NK), torch.from_numpy(target), 4, n_bins=15
    )
    assert found["ece"] == pytest.approx(float(ece), abs=FLOAT32)


def test_several_labels_by_hand() -> None:
    p = [[0.9, 0.6, 0.1], [0.2, 0.7, 0.8]]
    found = measure(outcomes(p, [[1, 0, 0], [0, 1, 1]], multilabel=True))
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["exact_match"] == 0.5
    assert found["balanced_accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert found["auroc"] == 1.0
    assert found["confusion"] == [[[1, 0], [0, 1]], [[0, 1], [0, 1]], [[1, 0], [0, 1]]]
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.01 + 0.04 + 0.09 + 0.04) / 6)


def test_several_labels_agree_with_scikit_learn() -> None:
    known = drawn_labels(200, 3)
    found = measure(known)
    said = known.probability_NK > 0.5
    assert found["f1"] == pytest.approx(sk.f1_score(known.target_NK, said, average="macro"))
    assert found["exact_match"] == pytest.approx(sk.accuracy_score(known.target_NK, said))
    auroc = sk.roc_auc_score(known.target_NK, known.probability_NK)
    assert found["auroc"] == pytest.approx(auroc, abs=FLOAT32)
    assert found["confusion"] == sk.multilabel_confusion_matrix(known.target_NK, said).tolist()


def test_a_missing_class_is_undefined_and_said() -> None:
    known = outcomes([[0.5, 0.2, 0.3], [0.1, 0.3, 0.6], [0.2, 0.7, 0.1]], [0, 2, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(known)
    assert found["balanced_accuracy"] == pytest.approx((1 + 0.5) / 2)
    missing = found["per_class"][1]
    assert missing == {
        "class": "b", "n": 0, "recall": None, "precision": None, "f1": None,
        "auroc": None, "auprc": None,
    }  # fmt: skip
    (note,) = notes(known)
    assert "label b" in note


def test_one_class_alone_has_no_ranking() -> None:
    found = measure(outcomes([[0.9, 0.1], [0.4, 0.6]], [0, 0]))
    assert found["auroc"] is found["auprc"] is None
    assert found["accuracy"] == 0.5
    spans = intervals(outcomes([[0.9, 0.1], [0.4, 0.6]], [0, 0]))
    assert spans["auroc"] is spans["auprc"] is None


@pytest.mark.parametrize("multilabel", [False, True])
def test_no_image_at_all(multilabel: bool) -> None:
    known = outcomes(np.zeros((0, 2)), np.zeros((0, 2)), multilabel=multilabel)
    found = measure(known)
    assert all(found[name] is None for name in FIGURES)
    json.dumps(found, allow_nan=False)
    assert all(value is None for value in intervals(known).values())


def test_an_image_without_an_answer_is_wrong() -> None:
    p = [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]
    known = outcomes(p, [0, 0, 1], answered=[True, False, True])
    found = measure(known)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx((0.5 + 1) / 2)
    assert found["confusion"] == [[1, 0], [0, 1]]
    assert found["unanswered"] == [1, 0]
    assert "1 image shows nothing but background" in notes(known)[0]


def test_reliability_counts_every_claim_once() -> None:
    known = drawn(200, 3)
    table = reliability(known)
    assert sum(int(row["count"] or 0) for row in table) == 200
    off = 0.0
    for row in table:
        if row["count"]:
            low, high, claimed, true = (
                row[name] or 0 for name in ("low", "high", "claimed", "true")
            )
            assert low - 1e-6 <= claimed <= high + 1e-6
            off += row["count"] * abs(claimed - true)
    assert measure(known)["ece"] == pytest.approx(off / 200, abs=FLOAT32)


def test_bins_take_their_lower_edge() -> None:
    assert bin_of(np.array([0.0, 0.2, 0.5, 1.0]), 5).tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize("known", [drawn(60, 3, 1), drawn_labels(60, 3, 1)], ids=["one", "several"])
def test_weights_mean_the_same_as_drawing_again(known: Outcomes) -> None:
    (weights,) = resamples(60, draws=5, seed=3)
    slow: dict[str, list[float]] = {name: [] for name in FIGURES}
    for row in weights:
        chosen = np.repeat(np.arange(60), row.astype(int))
        found = measure(taken(known, chosen))
        for name in FIGURES:
            slow[name].append(found[name])
    fast = intervals(known, draws=5, seed=3, covered=1.0)
    itself = measure(known)
    for name in FIGURES:
        slow[name].append(itself[name])
        assert fast[name] == pytest.approx((min(slow[name]), max(slow[name])), abs=FLOAT32), name


def test_intervals_hold_the_figure_and_are_repeatable() -> None:
    known = drawn(200, 3)
    found = measure(known)
    first = intervals(known, draws=300, seed=4)
    assert first == intervals(known, draws=300, seed=4)
    assert first != intervals(known, draws=300, seed=5)
    for name in ("accuracy", "balanced_accuracy", "f1", "auroc", "auprc", "log_loss", "brier"):
        span = first[name]
        assert span is not None
        assert span[0] < found[name] < span[1], name


@pytest.mark.parametrize("kind", [drawn, drawn_labels])
def test_intervals_of_few_images_hold_the_figure_too(
    kind: Callable[[int, int, int], Outcomes],
) -> None:
    spans = 0
    for seed in range(8):
        known = kind(5, 3, seed)
        found = measure(known)
        # Narrow ones: the percentiles alone leave the figure out.
        for name, span in intervals(known, draws=200, seed=seed, covered=0.2).items():
            if span is not None and found[name] is not None:
                assert span[0] <= found[name] <= span[1], name
                spans += 1
    assert spans > 20


def test_an_interval_is_as_wide_as_theory_says() -> None:
    right = np.arange(400) % 4 != 0  # 75 % of 400
    p = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    found = intervals(outcomes(p, np.zeros(400, int)), draws=1000, seed=0)["accuracy"]
    assert found is not None
    error = math.sqrt(0.75 * 0.25 / 400)
    assert found[1] - found[0] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_whole_groups_are_drawn() -> None:
    groups = ["p1"] * 3 + ["p2"] * 5 + ["p3"] * 2
    (weights,) = resamples(10, groups, draws=50, seed=0)
    assert (weights[:, :3] == weights[:, :1]).all()
    assert (weights[:, 3:8] == weights[:, 3:4]).all()
    assert (weights[:, [0, 3, 8]].sum(axis=1) == 3).all()


def test_groups_make_intervals_wider() -> None:
    # Ten patients of twenty images each, of whom half are always right.
    right = np.arange(200) // 20 % 2 == 0
    known = outcomes(np.where(right[:, None], [0.9, 0.1], [0.1, 0.9]), np.zeros(200, int))
    alone = intervals(known, seed=0)["accuracy"]
    grouped = intervals(known, [f"p{i // 20}" for i in range(200)], seed=0)["accuracy"]
    assert alone is not None
    assert grouped is not None
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_one_group_tells_nothing() -> None:
    known = drawn(20, 2)
    assert all(value is None for value in intervals(known, ["same"] * 20).values())


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        outcomes(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="exactly one label"):
        outcomes([[0.5, 0.5]], [[1, 1]])
    with pytest.raises(ValueError, match="as many groups"):
        intervals(drawn(4, 2), ["a"])
