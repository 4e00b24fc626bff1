"""What a prediction is worth, and what it is compared with: rewards, baselines, cross-entropies.

Rewards, baselines and advantages are constants to the gradient. A target is int64 (B,), class
indices, or with several labels an image float (B, K), 1 where a class is present and 0 where it
is not. Negative numbers are no label at all: such rows have to be left out by the caller.

B rows (walks or glimpses), K classes.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Reward = Literal["hit", "probability"]
Baseline = Literal["running", "samples", "batch"]
REWARDS: tuple[Reward, ...] = ("hit", "probability")
BASELINES: tuple[Baseline, ...] = ("running", "samples", "batch")

# Smaller advantages than this are rounding errors, and not made larger.
_LEAST_ADVANTAGE = 1e-4


def labelled(target: Tensor) -> Tensor:
    """Return which rows have a label, bool (B,)."""
    return target >= 0 if target.ndim == 1 else (target >= 0).all(dim=1)


def hits(logits_BK: Tensor, target: Tensor) -> Tensor:
    """Return how right each prediction is, float (B,): 1 for the label, else 0.

    With several labels an image it is the share of the classes on the right side of one half.
    """
    logits_BK = logits_BK.detach()
    if target.ndim == 2:
        return ((logits_BK > 0) == (target > 0.5)).to(logits_BK.dtype).mean(dim=1)
    return (logits_BK.argmax(dim=1) == target).to(logits_BK.dtype)


def rewards(logits_BK: Tensor, target: Tensor, kind: Reward) -> Tensor:
    """Return each prediction's reward between 0 and 1, float (B,), without a gradient.

    Args:
        logits_BK: float (B, K).
        target: the labels; a row without one gets 0.
        kind: "hit", see :func:`hits`, or "probability", that of the true class: a signal also
            where the prediction does not change. With several labels an image it is the
            geometric mean of the classes' probabilities, exp(-mean binary cross-entropy).
    """
    logits_BK = logits_BK.detach()
    if kind == "hit":
        reward_B = hits(logits_BK, target)
    else:
        reward_B = (-cross_entropies(logits_BK, target)).exp()
    return reward_B.masked_fill(~labelled(target), 0.0)


def cross_entropies(
    logits_BK: Tensor,
    target: Tensor,
    smoothing: float = 0.0,
    present_weight_K: Tensor | None = None,
) -> Tensor:
    """Return each row's cross-entropy in nats, float (B,).

    With several labels an image it is the mean of the classes' binary cross-entropies.

    Args:
        logits_BK: float (B, K).
        target: the labels.
        smoothing: share of the label that is spread over all classes evenly; with several
            labels, of each class over present and absent.
        present_weight_K: float (K,), with several labels the weight of a class that is present
            against one that is absent; of no effect otherwise.
    """
    if target.ndim == 1:
        return F.cross_entropy(logits_BK, target, reduction="none", label_smoothing=smoothing)
    soft_BK = target.clamp_min(0) * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(
        logits_BK, soft_BK, pos_weight=present_weight_K, reduction="none"
    ).mean(dim=1)


def leave_one_out(
    reward_B: Tensor, counted_B: Tensor, group_B: Tensor, otherwise: Tensor
) -> Tensor:
    """Return for each walk the mean reward of the other walks of its group, float (B,).

    A walk's own draws do not touch it, so that as a baseline it leaves the expected gradient
    as it is. Source: Kool, van Hoof and Welling, "Buy 4 REINFORCE samples, get a baseline for
    free!", 2019.

    Args:
        reward_B: float (B,).
        counted_B: bool (B,), which walks have a reward.
        group_B: int64 (B,), from 0.
        otherwise: float (), for a walk without others.
    """
    reward_B = reward_B.masked_fill(~counted_B, 0.0)
    count_B = counted_B.to(reward_B.dtype)
    groups = reward_B.new_zeros(len(reward_B))
    total_B = groups.index_add(0, group_B, reward_B)[group_B] - reward_B
    others_B = groups.index_add(0, group_B, count_B)[group_B] - count_B
    return torch.where(others_B > 0, total_B / others_B.clamp_min(1), otherwise)


def baseline_of(
    reward_B: Tensor, counted_B: Tensor, kind: Baseline, walks: int, running: Tensor
) -> Tensor:
    """Return what each walk's reward is compared with, float (B,).

    Args:
        reward_B: float (B,), one a walk.
        counted_B: bool (B,), which walks have a reward.
        kind: "running", the mean of the steps before; "samples", the mean of the same image's
            other walks; "batch", that of all other walks of the batch. Where there is no
            other walk, the running mean takes their place.
        walks: of each image, which stand side by side.
        running: float ().
    """
    if kind == "running":
        return running.expand(len(reward_B))
    index_B = torch.arange(len(reward_B), device=reward_B.device)
    group_B = index_B // walks if kind == "samples" else torch.zeros_like(index_B)
    return leave_one_out(reward_B, counted_B, group_B, running)


def normalised(advantage_B: Tensor, counted_B: Tensor) -> Tensor:
    """Divide advantages by their root mean square, float (B,).

    That is their standard deviation about the baseline. The step's length then no longer
    depends on how much the rewards differ, at the price of a factor that depends on the draws.
    """
    square_B = advantage_B.square().masked_fill(~counted_B, 0.0)
    scale = (square_B.sum() / counted_B.sum().clamp_min(1)).sqrt()
    return advantage_B / scale.clamp_min(_LEAST_ADVANTAGE)
