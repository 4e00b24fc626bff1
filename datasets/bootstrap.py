"""How sure the figures are: bootstrap intervals, resampling whole patients where there are some.

A resample is a row of weights: how often each image was drawn. Every figure is written for
weights, so that many resamples are computed at once (R resamples, N images, K classes).
Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentiles).
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tnet.datasets.metrics import BINS, Outcomes, bin_of

Interval = tuple[float, float]
Floats = NDArray[np.float64]

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
    parts: dict[str, list[Floats]] = {name: [] for name in _FIGURES}
    drawn_from = len(outcomes) if groups is None else len(set(groups))
    if drawn_from < 2:
        return dict.fromkeys(_FIGURES)
    prepared = _Prepared(outcomes)
    for weights_RN in resamples(len(outcomes), groups, draws=draws, seed=seed):
        for name, values_R in weighted(prepared, weights_RN).items():
            parts[name].append(values_R)
    return {name: _percentiles(np.concatenate(blocks), covered) for name, blocks in parts.items()}


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
        self.orders = [_Order(scores) for scores in outcomes.probability_NK.T]


class _Order:
    """Images from the highest score to the lowest, equal scores together."""

    def __init__(self, scores_N: Floats) -> None:
        self.order_N = np.argsort(-scores_N, kind="stable")
        ordered = scores_N[self.order_N]
        changed = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        self.starts_E = np.concatenate([[0], changed])

    def sums(self, weights_RN: Floats) -> Floats:
        """Return the weight at each different score, (R, E)."""
        return np.add.reduceat(weights_RN[:, self.order_N], self.starts_E, axis=1)


def weighted(prepared: _Prepared, weights_RN: Floats) -> dict[str, Floats]:
    """Return every figure under every row of weights, float64 (R,); NaN where undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: figure(prepared, weights_RN) for name, figure in _FIGURES.items()}


def _average(values_N: Floats, weights_RN: Floats) -> Floats:
    return (weights_RN @ values_N) / weights_RN.sum(axis=1)


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


def _auroc(known: _Prepared, weights_RN: Floats) -> Floats:
    columns = []
    for order, target_N in zip(known.orders, known.target_NK.T, strict=True):
        positive_RE = order.sums(weights_RN * target_N)
        negative_RE = order.sums(weights_RN * (1 - target_N))
        below_RE = negative_RE.sum(axis=1, keepdims=True) - negative_RE.cumsum(axis=1)
        won_R = (positive_RE * (below_RE + negative_RE / 2)).sum(axis=1)
        columns.append(won_R / (positive_RE.sum(axis=1) * negative_RE.sum(axis=1)))
    return _mean_known(np.stack(columns, axis=1))


def _auprc(known: _Prepared, weights_RN: Floats) -> Floats:
    columns = []
    for order, target_N in zip(known.orders, known.target_NK.T, strict=True):
        positive_RE = order.sums(weights_RN * target_N)
        above_RE = order.sums(weights_RN).cumsum(axis=1)
        precision_RE = np.nan_to_num(positive_RE.cumsum(axis=1) / above_RE)
        columns.append((positive_RE * precision_RE).sum(axis=1) / positive_RE.sum(axis=1))
    return _mean_known(np.stack(columns, axis=1))


def _calibration(known: _Prepared, weights_RN: Floats) -> Floats:
    off = np.abs(weights_RN @ known.excess_NB).sum(axis=1)
    return off / (weights_RN.sum(axis=1) * known.claims)


def _mean_known(values_RK: Floats) -> Floats:
    """Return the mean over the classes that a resample holds, (R,); NaN where it holds none."""
    known = np.isfinite(values_RK)
    return np.where(known, values_RK, 0).sum(axis=1) / known.sum(axis=1)


_FIGURES: dict[str, Callable[[_Prepared, Floats], Floats]] = {
    "accuracy": lambda known, weights: _average(known.right_N, weights),
    "balanced_accuracy": _balanced,
    "f1": _f1,
    "auroc": _auroc,
    "auprc": _auprc,
    "log_loss": lambda known, weights: _average(known.log_loss_N, weights),
    "brier": lambda known, weights: _average(known.brier_N, weights),
    "ece": _calibration,
}


def _percentiles(values_R: Floats, covered: float) -> Interval | None:
    known = values_R[np.isfinite(values_R)]
    if len(known) < max(1, math.ceil(_LEAST_DEFINED * len(values_R))):
        return None
    low, high = np.quantile(known, ((1 - covered) / 2, (1 + covered) / 2))
    return float(low), float(high)
