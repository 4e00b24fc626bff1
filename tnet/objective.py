"""The learning rule: pure functions of what a batch of walks gave, and the labels.

B images (times M walks of each, side by side), G glimpses of all of them, K classes. Rewards and
baselines are constants to the gradient: the location module learns from the REINFORCE terms alone,
and everything else from cross-entropy alone.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tnet.errors import UsageError
from tnet.penalties import contrastive
from tnet.rewards import (
    BASELINES,
    REWARDS,
    Baseline,
    Reward,
    baseline_of,
    cross_entropies,
    labelled,
    normalised,
    rewards,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """The weights of the loss. The defaults are the released code's for CUB.

    Attributes:
        reinforce: lambda_r, weight of both REINFORCE terms.
        main_ce: lambda_c, share of cross-entropy on the aggregated prediction; the rest goes
            to each glimpse's own prediction.
        main_reinforce: lambda_p, share of REINFORCE with the aggregated prediction's reward;
            the rest goes to each glimpse's own.
        cap: levels (from 1) up to which glimpses have terms of their own; None is all.
        likelihood: "plackett_luce", the exact log-probability of the ordered sample, or
            "marginal", the released code's sum of log(p + 1e-10).
        contrastive: weight of the contrastive term, 0 is none.
        margin: cosine below which features of different classes are left alone.
        l2: weight of the sum of squares of all parameters but the batch norms'.
        momentum: of the running baseline.
        reward: "hit" is 1 for the right class and 0 else, as released; "probability" is the
            true class's, a signal long before the prediction changes.
        baseline: "running" mean of the rewards, as released; "samples" and "batch" compare a
            walk with the other walks of its image, or of the batch, in the same step.
        normalise: divide advantages by their root mean square over the batch.
        label_smoothing: share of each label that is spread over all classes.

    Raises:
        UsageError: if a weight makes no sense.
    """

    reinforce: float = 0.1
    main_ce: float = 0.3
    main_reinforce: float = 0.3
    cap: int | None = None
    likelihood: str = "plackett_luce"
    contrastive: float = 0.0
    margin: float = 0.4
    l2: float = 0.0
    momentum: float = 0.9
    reward: Reward = "hit"
    baseline: Baseline = "running"
    normalise: bool = False
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("main_ce", "main_reinforce", "momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        for name in ("reinforce", "contrastive", "l2"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name, names in (
            ("likelihood", ("plackett_luce", "marginal")),
            ("reward", REWARDS),
            ("baseline", BASELINES),
        ):
            if getattr(self, name) not in names:
                known = ", ".join(repr(one) for one in names)
                raise UsageError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if self.cap is not None and self.cap < 0:
            raise UsageError(f"cap must be 0 or more levels, got {self.cap}")


class Evidence(NamedTuple):
    """What the loss is a function of.

    Attributes:
        logits_BK: float (B, K), of the aggregated prediction.
        glimpse_logits_GK: float (G, K), of each glimpse's own feature.
        log_prob_G: float (G,), of each glimpse's cell; 0 for first looks.
        image_G: int64 (G,), which image a glimpse belongs to.
        level_G: int64 (G,), from 0.
        aggregate_BD: float (B, D), for the contrastive term; may be None without it.
        label_G: int64 (G,), labels of the glimpses' own, -100 for none, or float (G, K) with
            several labels an image; None gives each its image's label.
    """

    logits_BK: Tensor
    glimpse_logits_GK: Tensor
    log_prob_G: Tensor
    image_G: Tensor
    level_G: Tensor
    aggregate_BD: Tensor | None = None
    label_G: Tensor | None = None


class Loss(NamedTuple):
    """The loss, its terms (each with its weight in it), and what the next step's baseline is.

    ``reward`` is the mean reward of the aggregated predictions.
    """

    total: Tensor
    main_ce: Tensor
    glimpse_ce: Tensor
    main_reinforce: Tensor
    glimpse_reinforce: Tensor
    contrastive: Tensor
    baseline: Tensor
    reward: Tensor


def loss(
    evidence: Evidence,
    label: Tensor,
    baseline: Tensor,
    rule: Rule,
    *,
    walks: int = 1,
    weight_B: Tensor | None = None,
    class_weight_K: Tensor | None = None,
) -> Loss:
    """Return the whole loss of TNet (spec of the released code, its equation for the total).

    Means are over all walks of the batch, so that M walks of an image weigh as much as one
    (the released code forgets to divide by M). A glimpse's own terms are averaged over its
    image's glimpses up to the cap; with no chosen glimpse below the cap (one level, or a cap
    of 1) that term is zero and the baseline follows the aggregated reward alone (the released
    code divides by zero there).

    Args:
        evidence: what the walks gave.
        label: int64 (B,), or with several labels an image float (B, K), 1 for present.
        baseline: float (), the running mean reward before this step.
        rule: the weights.
        walks: M, of each image; for ``rule.baseline`` "samples".
        weight_B: float (B,), how much each walk counts, in every mean; None is all alike.
        class_weight_K: float (K,). With one label an image counts with its class's weight;
            with several it is the weight of a class's presence against its absence, in the
            cross-entropies alone.

    Raises:
        UsageError: if the rule asks for what the evidence lacks.
    """
    _check(evidence, rule, walks)
    images, image_G = len(label), evidence.image_G
    label_G = label[image_G] if evidence.label_G is None else evidence.label_G
    if class_weight_K is not None and label.ndim == 1:
        weight_B = class_weight_K[label] * (1.0 if weight_B is None else weight_B)
    counted = _counted(evidence, labelled(label_G), rule.cap, images)
    below_G, chosen_G, chose_B = counted

    surprise_G = -evidence.log_prob_G
    surprise_B = surprise_G.new_zeros(images).index_add(0, image_G, surprise_G)
    reward_B = rewards(evidence.logits_BK, label, rule.reward)
    reward_G = rewards(evidence.glimpse_logits_GK, label_G, rule.reward)
    own_B = _per_image(reward_G, chosen_G, image_G, images)
    advantage_B, advantage_G = _advantages(
        (reward_B, reward_G, own_B), counted, image_G, baseline, rule, walks
    )

    smoothing = rule.label_smoothing
    ce_B = cross_entropies(evidence.logits_BK, label, smoothing, class_weight_K)
    ce_G = cross_entropies(evidence.glimpse_logits_GK, label_G, smoothing, class_weight_K)
    main_ce = rule.main_ce * _mean(ce_B, weight_B)
    glimpse_ce = (1 - rule.main_ce) * _mean(_per_image(ce_G, below_G, image_G, images), weight_B)
    main_reinforce = (
        rule.reinforce * rule.main_reinforce * _mean(advantage_B * surprise_B, weight_B)
    )
    glimpse_reinforce = (
        rule.reinforce
        * (1 - rule.main_reinforce)
        * _mean(_per_image(advantage_G * surprise_G, chosen_G, image_G, images), weight_B)
    )
    apart = main_ce.new_zeros(())
    if rule.contrastive and evidence.aggregate_BD is not None:
        apart = rule.contrastive * contrastive(evidence.aggregate_BD, label, rule.margin)

    # An image without a chosen glimpse counts with its aggregated reward alone.
    alone_B = reward_B.masked_fill(chose_B, 0.0)
    mean = _mean(reward_B, weight_B)
    own = _mean(own_B, weight_B) + _mean(alone_B, weight_B)
    seen = rule.main_reinforce * mean + (1 - rule.main_reinforce) * own
    return Loss(
        main_ce + glimpse_ce + main_reinforce + glimpse_reinforce + apart,
        main_ce,
        glimpse_ce,
        main_reinforce,
        glimpse_reinforce,
        apart,
        rule.momentum * baseline + (1 - rule.momentum) * seen,
        mean,
    )


def _check(evidence: Evidence, rule: Rule, walks: int) -> None:
    if rule.contrastive and evidence.aggregate_BD is None:
        raise UsageError("the contrastive term needs the aggregated features")
    if rule.baseline == "samples" and walks < 2:
        raise UsageError(
            "the baseline 'samples' compares several walks of an image: take 2 samples or more"
        )


class _Counted(NamedTuple):
    """What has terms of its own, all bool.

    Attributes:
        below_G: the glimpses that have.
        chosen_G: those of them that were chosen from a grid.
        chose_B: the walks that have chosen ones.
    """

    below_G: Tensor
    chosen_G: Tensor
    chose_B: Tensor


def _counted(evidence: Evidence, labelled_G: Tensor, cap: int | None, images: int) -> _Counted:
    below_G = labelled_G if cap is None else labelled_G & (evidence.level_G < cap)
    chosen_G = below_G & (evidence.level_G > 0)
    chose_B = torch.zeros(images, dtype=torch.bool, device=chosen_G.device)
    chose_B[evidence.image_G[chosen_G]] = True
    return _Counted(below_G, chosen_G, chose_B)


def _advantages(
    reward: tuple[Tensor, Tensor, Tensor],
    counted: _Counted,
    image_G: Tensor,
    running: Tensor,
    rule: Rule,
    walks: int,
) -> tuple[Tensor, Tensor]:
    """Return rewards less baselines, of the walks (B,) and of the glimpses (G,).

    Args:
        reward: of the walks (B,), of the glimpses (G,), and each walk's mean over its chosen
            glimpses (B,), with which the glimpses of other walks are compared.
        counted: which count.
        image_G: int64 (G,).
        running: float (), the running baseline.
        rule: says which baseline, and whether to normalise.
        walks: M.
    """
    reward_B, reward_G, own_B = reward
    everyone_B = torch.ones_like(counted.chose_B)
    advantage_B = reward_B - baseline_of(reward_B, everyone_B, rule.baseline, walks, running)
    baseline_B = baseline_of(own_B, counted.chose_B, rule.baseline, walks, running)
    advantage_G = reward_G - baseline_B[image_G]
    if rule.normalise:
        return normalised(advantage_B, everyone_B), normalised(advantage_G, counted.chosen_G)
    return advantage_B, advantage_G


def _mean(value_B: Tensor, weight_B: Tensor | None) -> Tensor:
    """Return the mean, weighted if there are weights; 0 if they are all 0."""
    if weight_B is None:
        return value_B.mean()
    return (value_B * weight_B).sum() / weight_B.sum().clamp_min(torch.finfo(value_B.dtype).tiny)


def _per_image(value_G: Tensor, counted_G: Tensor, image_G: Tensor, images: int) -> Tensor:
    """Average over each image's counted glimpses, float (B,); 0 where there are none."""
    zeros = value_G.new_zeros(images)
    total_B = zeros.index_add(0, image_G, value_G.masked_fill(~counted_G, 0.0))
    count_B = zeros.index_add(0, image_G, counted_G.to(value_G.dtype))
    return total_B / count_B.clamp_min(1)
