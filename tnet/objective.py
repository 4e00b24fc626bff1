"""The learning rule: pure functions of what a batch of walks gave, and the labels.

B images (times M walks of each), G glimpses of all of them, K classes. Rewards and the baseline
are constants to the gradient: the location module learns from the REINFORCE terms alone, and
everything else from cross-entropy alone.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tnet.errors import UsageError


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

    def __post_init__(self) -> None:
        for name in ("main_ce", "main_reinforce", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        for name in ("reinforce", "contrastive", "l2"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.likelihood not in ("plackett_luce", "marginal"):
            raise UsageError(
                f"likelihood must be 'plackett_luce' or 'marginal', got {self.likelihood!r}"
            )
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
        label_G: int64 (G,), labels of the glimpses' own, -100 for none; None gives each its
            image's label.
    """

    logits_BK: Tensor
    glimpse_logits_GK: Tensor
    log_prob_G: Tensor
    image_G: Tensor
    level_G: Tensor
    aggregate_BD: Tensor | None = None
    label_G: Tensor | None = None


class Loss(NamedTuple):
    """The loss, its terms (each with its weight in it), and the baseline for the next step."""

    total: Tensor
    main_ce: Tensor
    glimpse_ce: Tensor
    main_reinforce: Tensor
    glimpse_reinforce: Tensor
    contrastive: Tensor
    baseline: Tensor


def hits(logits_BK: Tensor, label_B: Tensor) -> Tensor:
    """Return the reward, float (B,): 1 where the label has the highest logit, else 0."""
    return (logits_BK.detach().argmax(dim=1) == label_B).to(logits_BK.dtype)


def contrastive(feature_BD: Tensor, label_B: Tensor, margin: float) -> Tensor:
    """Return the mean over all pairs of 1 - cos (same class) or max(cos - margin, 0) (else).

    An image paired with itself counts, as in the released code. Source: TNet (CUB, NABirds).
    """
    unit_BD = F.normalize(feature_BD + 1e-10, dim=1)
    cosine_BB = unit_BD @ unit_BD.T
    same_BB = label_B[:, None] == label_B[None, :]
    return torch.where(same_BB, 1 - cosine_BB, (cosine_BB - margin).clamp_min(0)).mean()


def l2_penalty(named: Iterable[tuple[str, nn.Module]]) -> Tensor:
    """Return the sum of squares of all parameters, biases too, but those of batch norms.

    Args:
        named: a model's ``named_modules()``.
    """
    terms = [
        parameter.square().sum()
        for _, module in named
        if not isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters(recurse=False)
        if parameter.requires_grad
    ]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def loss(evidence: Evidence, label_B: Tensor, baseline: Tensor, rule: Rule) -> Loss:
    """Return the whole loss of TNet (spec of the released code, its equation for the total).

    Means are over all walks of the batch, so that M walks of an image weigh as much as one
    (the released code forgets to divide by M). A glimpse's own terms are averaged over its
    image's glimpses up to the cap; with no chosen glimpse below the cap (one level, or a cap
    of 1) that term is zero and the baseline follows the aggregated reward alone (the released
    code divides by zero there).

    Args:
        evidence: what the walks gave.
        label_B: int64 (B,).
        baseline: float (), the running mean reward before this step.
        rule: the weights.
    """
    images = len(label_B)
    reward_B = hits(evidence.logits_BK, label_B)
    label_G = label_B[evidence.image_G] if evidence.label_G is None else evidence.label_G
    reward_G = hits(evidence.glimpse_logits_GK, label_G)
    below_G = torch.ones_like(evidence.level_G, dtype=torch.bool)
    if rule.cap is not None:
        below_G = evidence.level_G < rule.cap
    below_G = below_G & (label_G >= 0)
    chosen_G = below_G & (evidence.level_G > 0)

    glimpse_ce_G = F.cross_entropy(evidence.glimpse_logits_GK, label_G, reduction="none")
    surprise_G = -evidence.log_prob_G
    surprise_B = surprise_G.new_zeros(images).index_add(0, evidence.image_G, surprise_G)
    advantage_B = reward_B - baseline
    advantage_G = reward_G - baseline

    main_ce = rule.main_ce * F.cross_entropy(evidence.logits_BK, label_B)
    glimpse_ce = (1 - rule.main_ce) * _per_image(glimpse_ce_G, below_G, evidence.image_G, images)
    main_reinforce = rule.reinforce * rule.main_reinforce * (advantage_B * surprise_B).mean()
    glimpse_reinforce = (
        rule.reinforce
        * (1 - rule.main_reinforce)
        * _per_image(advantage_G * surprise_G, chosen_G, evidence.image_G, images)
    )
    apart = main_ce.new_zeros(())
    if rule.contrastive:
        if evidence.aggregate_BD is None:
            raise UsageError("the contrastive term needs the aggregated features")
        apart = rule.contrastive * contrastive(evidence.aggregate_BD, label_B, rule.margin)

    # An image without a chosen glimpse counts with its aggregated reward alone.
    chose_B = torch.zeros_like(label_B, dtype=torch.bool)
    chose_B[evidence.image_G[chosen_G]] = True
    own = _per_image(reward_G, chosen_G, evidence.image_G, images)
    alone = reward_B.masked_fill(chose_B, 0.0).mean()
    seen = rule.main_reinforce * reward_B.mean() + (1 - rule.main_reinforce) * (own + alone)
    return Loss(
        main_ce + glimpse_ce + main_reinforce + glimpse_reinforce + apart,
        main_ce,
        glimpse_ce,
        main_reinforce,
        glimpse_reinforce,
        apart,
        rule.momentum * baseline + (1 - rule.momentum) * seen,
    )


def _per_image(value_G: Tensor, counted_G: Tensor, image_G: Tensor, images: int) -> Tensor:
    """Average over each image's counted glimpses, then over all images."""
    zeros = value_G.new_zeros(images)
    total_B = zeros.index_add(0, image_G, value_G.masked_fill(~counted_G, 0.0))
    count_B = zeros.index_add(0, image_G, counted_G.to(value_G.dtype))
    return (total_B / count_B.clamp_min(1)).mean()
