"""How good predictions are: figures of merit for classes, and for several labels an image.

N images, K classes. Everything is a pure function of :class:`Outcomes`. What cannot be computed,
as the recall of a class without an image, is None and never an exception.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import functional as tm

BINS = 15  # as Guo et al., On calibration of modern neural networks, ICML 2017
_LEAST = 1e-15  # what a probability of 0 costs the log loss is finite


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What a model said of N images, and what is true.

    Attributes:
        classes: names, in the order of the columns.
        probability_NK: float64, from 0 to 1; the rows of a model of one label sum to 1.
        target_NK: bool, the true classes: one an image, or any number with ``multilabel``.
        answered_N: bool, False for an image that the model has no answer for, which showed
            nothing but background. Such an image counts as wrong, and its probabilities should
            be those of knowing nothing.
        multilabel: whether an image may have several labels, or none.

    Raises:
        ValueError: if the shapes do not fit each other.
    """

    classes: tuple[str, ...]
    probability_NK: NDArray[np.float64]
    target_NK: NDArray[np.bool_]
    answered_N: NDArray[np.bool_]
    multilabel: bool = False

    def __post_init__(self) -> None:
        count = len(self.answered_N)
        shape = (count, len(self.classes))
        if not self.probability_NK.shape == self.target_NK.shape == shape:
            raise ValueError(
                f"{shape[0]} images and {shape[1]} classes do not fit probabilities of "
                f"{self.probability_NK.shape} and targets of {self.target_NK.shape}"
            )
        if not self.multilabel and count and (self.target_NK.sum(axis=1) != 1).any():
            raise ValueError("an image must have exactly one label, or several be allowed")

    def __len__(self) -> int:
        return len(self.answered_N)

    @property
    def decisions(self) -> NDArray[np.bool_]:
        """What was decided, bool (N, K): the likeliest class, or those above one half."""
        if self.multilabel:
            decided = self.probability_NK > 0.5
        else:
            likeliest = self.probability_NK.argmax(axis=1)
            decided = likeliest[:, None] == np.arange(len(self.classes))
        return decided & self.answered_N[:, None]

    @property
    def right(self) -> NDArray[np.float64]:
        """Whether each image's class is right; of several labels, the share that is. (N,)."""
        if self.multilabel:
            right = (self.decisions == self.target_NK).sum(axis=1) / len(self.classes)
            return np.where(self.answered_N, right, 0.0)
        hits: NDArray[np.float64] = (self.decisions & self.target_NK).sum(axis=1, dtype=np.float64)
        return hits

    @property
    def log_losses(self) -> NDArray[np.float64]:
        """Cross-entropy of each image in nats, the mean over the labels of several. (N,)."""
        p = np.clip(self.probability_NK, _LEAST, 1 - 1e-16)
        if self.multilabel:
            return -np.where(self.target_NK, np.log(p), np.log1p(-p)).mean(axis=1)
        return -(np.log(p) * self.target_NK).sum(axis=1)

    @property
    def squared_errors(self) -> NDArray[np.float64]:
        """Squared error of each image's probabilities, summed over the classes (Brier 1950).

        With several labels an image the mean over the labels. (N,).
        """
        squared = (self.probability_NK - self.target_NK) ** 2
        total: NDArray[np.float64] = squared.sum(axis=1)
        return total / len(self.classes) if self.multilabel else total

    @property
    def claims(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probabilities that were claimed and whether they came true, both float64 (C, N).

        Of one label, the confidence in the likeliest class (C is 1); of several, each label's
        own probability (C is K).
        """
        if self.multilabel:
            return self.probability_NK.T, self.target_NK.T.astype(np.float64)
        likeliest = self.probability_NK.argmax(axis=1, keepdims=True)
        came_true = np.take_along_axis(self.target_NK, likeliest, axis=1)
        came_true &= self.answered_N[:, None]
        return self.probability_NK.max(axis=1)[None], came_true.T.astype(np.float64)


def bin_of(claimed: NDArray[np.float64], bins: int = BINS) -> NDArray[np.intp]:
    """Return the bin of each claimed probability: equal widths, an edge belongs to the upper."""
    edges = torch.linspace(0, 1, bins + 1).numpy()  # rounded as torchmetrics' are
    place = np.searchsorted(edges, claimed.astype(np.float32), side="right") - 1
    return np.minimum(place, bins - 1)


def measure(outcomes: Outcomes) -> dict[str, Any]:
    """Return all figures of merit as JSON-able values; None is what is undefined.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``f1``, ``auroc``, ``auprc`` (the last four are
        means over the classes that the images hold), ``log_loss``, ``brier``, ``ece``;
        ``confusion`` (rows are the truth; with several labels 2 x 2 a label), ``reliability``,
        ``per_class``, and with several labels ``exact_match``. ``unanswered`` counts, a class,
        the images without an answer, which no column of ``confusion`` holds.
    """
    parts = _of_labels(outcomes) if outcomes.multilabel else _of_classes(outcomes)
    named = {
        **parts.pop("by_class"),
        "auroc": _ranked(outcomes, tm.classification.binary_auroc),
        "auprc": _ranked(outcomes, tm.classification.binary_average_precision),
    }
    count = len(outcomes)
    unanswered = outcomes.target_NK[~outcomes.answered_N].sum(axis=0)
    return {
        "accuracy": float(outcomes.right.mean()) if count else None,
        "balanced_accuracy": _mean(named.get("balanced", named["recall"])),
        "f1": _mean(named["f1"]),
        "auroc": _mean(named["auroc"]),
        "auprc": _mean(named["auprc"]),
        "log_loss": float(outcomes.log_losses.mean()) if count else None,
        "brier": float(outcomes.squared_errors.mean()) if count else None,
        "ece": _calibration_error(outcomes),
        **parts,
        "unanswered": unanswered.tolist(),
        "reliability": reliability(outcomes),
        "per_class": _per_class(outcomes, named),
    }


def reliability(outcomes: Outcomes, bins: int = BINS) -> list[dict[str, float | int | None]]:
    """Return, for bins of claimed probability, how many, the mean claim, and what came true."""
    claimed, true = (values.ravel() for values in outcomes.claims)
    place = bin_of(claimed, bins)
    table: list[dict[str, float | int | None]] = []
    for index in range(bins):
        here = place == index
        count = int(here.sum())
        table.append(
            {
                "low": index / bins,
                "high": (index + 1) / bins,
                "count": count,
                "claimed": float(claimed[here].mean()) if count else None,
                "true": float(true[here].mean()) if count else None,
            }
        )
    return table


def notes(outcomes: Outcomes) -> list[str]:
    """Return what a reader of the figures must know: missing classes, images without answers."""
    told = []
    held = outcomes.target_NK.sum(axis=0) > 0
    missing = [name for name, there in zip(outcomes.classes, held, strict=True) if not there]
    if len(outcomes) and missing:
        listed = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
        told.append(
            f"no image has the label {listed}: "
            f"{'its' if len(missing) == 1 else 'their'} figures are undefined, and the means "
            "over the classes leave them out"
        )
    silent = int((~outcomes.answered_N).sum())
    if silent:
        what = "1 image shows" if silent == 1 else f"{silent} images show"
        told.append(
            f"{what} nothing but background, so that the model has no answer; counted as wrong"
        )
    return told


def _of_classes(outcomes: Outcomes) -> dict[str, Any]:
    """Return what needs decisions for one class; "no answer" is a class that is never true."""
    classes = len(outcomes.classes)
    target = torch.from_numpy(outcomes.target_NK.argmax(axis=1))
    likeliest = torch.from_numpy(outcomes.decisions.argmax(axis=1))
    said = torch.where(torch.from_numpy(outcomes.answered_N), likeliest, classes)
    held = outcomes.target_NK.sum(axis=0) > 0

    def each(function: Callable[..., Tensor]) -> list[float | None]:
        if not held.any():
            return [None] * classes
        values = function(said, target, num_classes=classes + 1, average=None).tolist()
        return [v if there else None for v, there in zip(values[:-1], held, strict=True)]

    confusion = tm.classification.multiclass_confusion_matrix(said, target, classes + 1)
    by_class = {
        "recall": each(tm.classification.multiclass_recall),
        "precision": each(tm.classification.multiclass_precision),
        "f1": each(tm.classification.multiclass_f1_score),
    }
    return {"confusion": confusion[:classes, :classes].tolist(), "by_class": by_class}


def _of_labels(outcomes: Outcomes) -> dict[str, Any]:
    """Return what needs decisions for several labels an image."""
    labels = len(outcomes.classes)
    target = torch.from_numpy(outcomes.target_NK).long()
    said = torch.from_numpy(outcomes.decisions).long()
    positives = outcomes.target_NK.sum(axis=0) > 0
    negatives = outcomes.target_NK.sum(axis=0) < len(outcomes)

    def each(function: Callable[..., Tensor], there: NDArray[np.bool_]) -> list[float | None]:
        if not there.any():
            return [None] * labels
        values = function(said, target, num_labels=labels, average=None).reshape(-1).tolist()
        return [v if known else None for v, known in zip(values, there, strict=True)]

    recall = each(tm.classification.multilabel_recall, positives)
    specificity = each(tm.classification.multilabel_specificity, negatives)
    by_class = {
        "recall": recall,
        "specificity": specificity,
        "precision": each(tm.classification.multilabel_precision, positives),
        "f1": each(tm.classification.multilabel_f1_score, positives),
        "balanced": [
            None if r is None or s is None else (r + s) / 2
            for r, s in zip(recall, specificity, strict=True)
        ],
    }
    exact = (said == target).all(dim=1).numpy() & outcomes.answered_N
    confusion = tm.classification.multilabel_confusion_matrix(said, target, labels)
    return {
        "exact_match": float(exact.mean()) if len(outcomes) else None,
        "confusion": confusion.tolist(),
        "by_class": by_class,
    }


def _ranked(outcomes: Outcomes, function: Callable[..., Tensor]) -> list[float | None]:
    """Return a figure of each class against the rest; None where either has no image.

    Args:
        outcomes: what was said.
        function: of torchmetrics, for scores and binary targets.
    """
    values: list[float | None] = []
    for scores, target in zip(outcomes.probability_NK.T, outcomes.target_NK.T, strict=True):
        if not target.any() or target.all():
            values.append(None)
            continue
        known = torch.from_numpy(target.astype(np.int64))
        values.append(float(function(torch.from_numpy(scores.copy()), known)))
    return values


def _calibration_error(outcomes: Outcomes) -> float | None:
    """Return the expected calibration error of 15 bins, weighted by their counts."""
    if not len(outcomes):
        return None
    claimed, true = (torch.from_numpy(values.ravel().copy()) for values in outcomes.claims)
    error = tm.classification.binary_calibration_error(
        claimed.float(), true.long(), n_bins=BINS, norm="l1"
    )
    return float(error)


def _per_class(outcomes: Outcomes, named: dict[str, list[float | None]]) -> list[dict[str, Any]]:
    counts = outcomes.target_NK.sum(axis=0)
    return [
        {"class": name, "n": int(counts[index])}
        | {figure: values[index] for figure, values in named.items() if figure != "balanced"}
        for index, name in enumerate(outcomes.classes)
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
