"""From logits to probabilities that mean what they say: temperature scaling.

Logits are divided by one temperature before they become probabilities, and nowhere else: they
remain exact sums of what the glimpses contribute. Source: Guo et al., "On calibration of modern
neural networks", ICML 2017. N images, K classes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_IMAGES = 10
COLDEST, HOTTEST = 0.05, 20.0  # what temperatures are looked for

_STEPS = 60  # each halves the interval; what is left is below the rounding


def sigmoid(logits: ArrayLike) -> NDArray[np.float64]:
    """Return each logit's own probability, float64."""
    # As a hyperbolic tangent it overflows nowhere.
    return 0.5 * (1 + np.tanh(np.asarray(logits, dtype=np.float64) / 2))


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities, float64, of rows of logits (..., K)."""
    values = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def probabilities_of(
    logits: ArrayLike, *, multilabel: bool, temperature: float = 1.0
) -> NDArray[np.float64]:
    """Return the probabilities that logits (..., K) stand for, float64 (..., K).

    Args:
        logits: of the classes.
        multilabel: whether each class has a probability of its own.
        temperature: what the logits are divided by.
    """
    values = np.asarray(logits, dtype=np.float64) / temperature
    return sigmoid(values) if multilabel else softmax(values)


@dataclass(frozen=True)
class Calibration:
    """A temperature, and what it was fitted on.

    Attributes:
        temperature: above 1 a model was too sure of itself; 1 leaves it as it is.
        images: how many it was fitted on.
        log_loss: of these images without and with it, in nats; None where nothing was fitted.
        reason: why nothing was fitted.
    """

    temperature: float
    images: int
    log_loss: tuple[float, float] | None = None
    reason: str | None = None

    def told(self) -> str:
        """Return in one sentence what was done."""
        if self.log_loss is None:
            return f"calibration: the probabilities stay as they are, for {self.reason}"
        before, after = self.log_loss
        return (
            f"calibration: temperature {self.temperature:.3g}, fitted on {self.images} validation "
            f"images, whose log loss falls from {before:.3f} to {after:.3f}"
        )


def calibrate(logits_NK: NDArray[np.float64], target: NDArray[np.int64 | np.bool_]) -> Calibration:
    """Fit the temperature under which the labels are the likeliest.

    The negative log-likelihood is convex in the inverse of the temperature, so that its slope is
    0 in one place, which bisection finds. The likeliest class stays the likeliest.

    Args:
        logits_NK: of images that the model did not learn from.
        target: (N,), the classes' numbers; or bool (N, K), which labels are present.

    Returns:
        The temperature; 1 where there are fewer than ``LEAST_IMAGES``, all have the same label,
        or the best temperature is none between ``COLDEST`` and ``HOTTEST``.
    """
    reason = _unfit(logits_NK, target)
    if reason is not None:
        return Calibration(1.0, len(logits_NK), reason=reason)
    cold, hot = 1 / COLDEST, 1 / HOTTEST
    for _ in range(_STEPS):
        middle = math.sqrt(hot * cold)
        hot, cold = (middle, cold) if _slope(logits_NK, target, middle) < 0 else (hot, middle)
    found = 1 / math.sqrt(hot * cold)
    before, after = (negative_log_likelihood(logits_NK, target, t) for t in (1.0, found))
    if after >= before:
        return Calibration(1.0, len(logits_NK), reason="no other temperature is better")
    return Calibration(found, len(logits_NK), (before, after))


def _unfit(logits_NK: NDArray[np.float64], target: NDArray[np.int64 | np.bool_]) -> str | None:
    """Say why no temperature can be fitted; None if one can."""
    if len(logits_NK) < LEAST_IMAGES:
        return f"{len(logits_NK)} validation images are fewer than {LEAST_IMAGES}"
    if (target == target[:1]).all():
        return "all validation images have the same label"
    if not np.isfinite(logits_NK).all():
        return "the logits are no numbers"
    if _slope(logits_NK, target, 1 / HOTTEST) >= 0:
        return "on the validation images the model is no better than chance"
    if _slope(logits_NK, target, 1 / COLDEST) <= 0:
        return "the validation images are too easy to tell how sure one may be"
    return None


def negative_log_likelihood(
    logits_NK: NDArray[np.float64], target: NDArray[np.int64 | np.bool_], temperature: float
) -> float:
    """Return the mean over the images, and over the labels of several, in nats."""
    scaled_NK = logits_NK / temperature
    if target.ndim == 2:
        return float((np.logaddexp(0, scaled_NK) - scaled_NK * target).mean())
    largest_N = scaled_NK.max(axis=1)
    total_N = np.log(np.exp(scaled_NK - largest_N[:, None]).sum(axis=1)) + largest_N
    return float((total_N - scaled_NK[np.arange(len(target)), target]).mean())


def _slope(
    logits_NK: NDArray[np.float64], target: NDArray[np.int64 | np.bool_], inverse: float
) -> float:
    """Return the derivative of the likelihood's negative logarithm by 1 / temperature."""
    if target.ndim == 2:
        return float(((sigmoid(logits_NK * inverse) - target) * logits_NK).mean())
    expected_N = (softmax(logits_NK * inverse) * logits_NK).sum(axis=1)
    return float((expected_N - logits_NK[np.arange(len(target)), target]).mean())
