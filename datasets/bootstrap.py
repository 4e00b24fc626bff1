"""How sure the figures are: bootstrap intervals, resampling whole patients where there are some.

A resample is a row of weights: how often each image was drawn. Every figure is written for
weights, so that many resamples are computed at once (R resamples, N images, K classes).
Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentiles).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tnet.datasets.metrics import BINS, Outcomes, bin_of, measure

Interval = tuple[float, float]
Floats = NDArray[np.float64]

FIGURES = ("accuracy", "balanced_accuracy", "f1", "auroc", "auprc", "log_loss", "brier", "ece")
DRAWS = 1000
COVERED = 0.95
_BLOCK_NUMBERS = 4_000_000  # of weights held at once: 32 MB
_LEAST_DEFINED = 0.5


def intervals(
    outcomes: Outcomes,
    groups: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    covered: float = COVERED,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Return the percentile interval of each figure of :func:`tnet.datasets.metrics.measure`.

    Of few images a figure can lie outside its own percentiles: some figures are biased in
    resamples, which hold fewer different images than there are. Intervals that correct for that
    need more images than those (chapter 14), so the percentiles are kept, and the interval is
    widened to hold the figure; it can cover more than it says then, but not less.

    Args:
        outcomes: what was said of the images, and what is true.
        groups: of each image, such as its patient; whole groups are drawn. None draws images.
        draws: how many resamples.
        covered: share of the resamples inside the interval.
        seed: of the draws.

    Returns:
        Figure -> (low, high). None where the figure is undefined in most of the resamples, or
        there are fewer than two groups to draw from.

    Raises:
        ValueError: if there are not as many groups as images.
    """
    if groups is not None and len(groups) != len(outcomes):
        raise ValueError(f"{len(outcomes)} images need as many groups, got {len(groups)}")
    parts: dict[str, list[Floats]] = {name: [] for name in FIGURES}
    drawn_from = len(outcomes) if groups is None else len(set(groups))
    if drawn_from < 2:
        return dict.fromkeys(FIGURES)
    prepared = _Prepared(outcomes)
    for weights_RN in resamples(len(outcomes), groups, draws=draws, seed=seed):
        for name, values_R in weighted(prepared, weights_RN).items():
            parts[name].append(values_R)
    figures = measure(outcomes)
    return {
        name: _percentiles(np.concatenate(blocks), covered, figures[name])
        for name, blocks in parts.items()
    }


def resamples(
    images: int, groups: Sequence[str] | None = None, *, draws: int = DRAWS, seed: int = 0
) -> Iterator[Floats]:
    """Give blocks of weights, float64 (R, N): how often each image is in each resample."""
    place_N = np.arange(images)
    count = images
    if groups is not None:
        names, place_N = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        count = len(names)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_NUMBERS // max(images, 1))
    chances = np.full(count, 1 / count)
    for start in range(0, draws, block):
        drawn_RG = rng.multinomial(count, chances, size=min(block, draws - start))
        yield drawn_RG[:, place_N].astype(np.float64)


class _Prepared:
    """What every resample needs of the outcomes, computed once."""

    def __init__(self, outcomes: Outcomes) -> None:
        self.multilabel = outcomes.multilabel
        self.target_NK = outcomes.target_NK.astype(np.float64)
        self.decision_NK = outcomes.decisions.astype(np.float64)
        self.right_N = outcomes.right
        self.log_loss_N = outcomes.log_losses
        self.brier_N = outcomes.squared_errors
        claimed_CN, true_CN = outcomes.claims
        self.claims = claimed_CN.shape[0]
        place_CN = bin_of(claimed_CN)
        member = place_CN[..., None] == np.arange(BINS)
        # Of each image and bin, by how much the claims in it were too high: (N, bins).
        self.excess_NB = (member * (claimed_CN - true_CN)[..., None]).sum(axis=0)
        self.orders = [
            _Order(scores, target)
            for scores, target in zip(outcomes.probability_NK.T, self.target_NK.T, strict=True)
        ]


class _Order:
    """One class: its images (P) from the highest score down, and who stands above each of them.

    Equal scores stand side by side: ``start_P`` and ``end_P`` are where those of a score begin
    and end among all images, ``first_P`` and ``last_P`` the same among the class's own.
    """

    def __init__(self, scores_N: Floats, target_N: Floats) -> None:
        self.order_N = np.argsort(-scores_N, kind="stable")
        descending = -scores_N[self.order_N]
        own = np.flatnonzero(target_N[self.order_N] > 0)
        self.own_P = self.order_N[own]
        scores_P = descending[own]
        self.start_P = np.searchsorted(descending, scores_P, side="left")
        self.end_P = np.searchsorted(descending, scores_P, side="right")
        self.first_P = np.searchsorted(scores_P, scores_P, side="left")
        self.last_P = np.searchsorted(scores_P, scores_P, side="right")

    def areas(self, weights_RN: Floats) -> tuple[Floats, Floats]:
        """Return the areas under the ROC and the precision-recall curve, both (R,)."""
        all_RN, own_RP = (_summed(weights_RN[:, order]) for order in (self.order_N, self.own_P))
        weight_RP = weights_RN[:, self.own_P]
        positives_R, negatives_R = own_RP[:, -1], all_RN[:, -1] - own_RP[:, -1]
        through_RP, own_through_RP = all_RN[:, self.end_P], own_RP[:, self.last_P]
        above_RP = all_RN[:, self.start_P] - own_RP[:, self.first_P]
        level_RP = through_RP - own_through_RP - above_RP
        lost_R = (weight_RP * (above_RP + level_RP / 2)).sum(axis=1)
        precision_RP = np.nan_to_num(own_through_RP / through_RP)
        mean_R = (weight_RP * precision_RP).sum(axis=1) / positives_R
        roc_R = 1 - lost_R / (positives_R * negatives_R)
        return roc_R, np.where(negatives_R > 0, mean_R, np.nan)


def _summed(weights_RN: Floats) -> Floats:
    """Return running sums that begin with 0, (R, N + 1)."""
    sums = np.zeros((len(weights_RN), weights_RN.shape[1] + 1))
    np.cumsum(weights_RN, axis=1, out=sums[:, 1:])
    return sums


def weighted(known: _Prepared, weights_RN: Floats) -> dict[str, Floats]:
    """Return every figure under every row of weights, float64 (R,); NaN where undefined."""
    total_R = weights_RN.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        areas = [order.areas(weights_RN) for order in known.orders]
        roc_RK, precision_RK = (np.stack(each, axis=1) for each in zip(*areas, strict=True))
        return {
            "accuracy": weights_RN @ known.right_N / total_R,
            "balanced_accuracy": _balanced(known, weights_RN),
            "f1": _f1(known, weights_RN),
            "auroc": _mean_known(roc_RK),
            "auprc": _mean_known(precision_RK),
            "log_loss": weights_RN @ known.log_loss_N / total_R,
            "brier": weights_RN @ known.brier_N / total_R,
            "ece": np.abs(weights_RN @ known.excess_NB).sum(axis=1) / (total_R * known.claims),
        }


def _balanced(known: _Prepared, weights_RN: Floats) -> Floats:
    hits = weights_RN @ (known.target_NK * known.decision_NK)
    recall_RK = hits / (weights_RN @ known.target_NK)
    if known.multilabel:
        others_NK = 1 - known.target_NK
        spared = weights_RN @ (others_NK * (1 - known.decision_NK))
        recall_RK = (recall_RK + spared / (weights_RN @ others_NK)) / 2
    return _mean_known(recall_RK)


def _f1(known: _Prepared, weights_RN: Floats) -> Floats:
    hits = weights_RN @ (known.target_NK * known.decision_NK)
    there = weights_RN @ known.target_NK
    f1_RK = 2 * hits / (there + weights_RN @ known.decision_NK)
    f1_RK[there == 0] = np.nan  # decided for, but never true
    return _mean_known(f1_RK)


def _mean_known(values_RK: Floats) -> Floats:
    """Return the mean over the classes that a resample holds, (R,); NaN where it holds none."""
    known = np.isfinite(values_RK)
    return np.where(known, values_RK, 0).sum(axis=1) / known.sum(axis=1)


def _percentiles(values_R: Floats, covered: float, figure: float | None) -> Interval | None:
    """Return an interval of the middle of the resamples that holds the figure of all images."""
    known = values_R[np.isfinite(values_R)]
    if len(known) < max(1, math.ceil(_LEAST_DEFINED * len(values_R))):
        return None
    low, high = np.quantile(known, ((1 - covered) / 2, (1 + covered) / 2))
    if figure is None:
        return float(low), float(high)
    return min(float(low), figure), max(float(high), figure)
