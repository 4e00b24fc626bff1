"""A batch's walks as tensors: what the learning rule works on.

B images, G glimpses of all of them, T glimpses of the longest walk, D features, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tnet.descent import Choice, Visit
from tnet.model import TNet


@dataclass
class Trace:
    """A batch's walks as tensors, for the learning rule; gradients flow through them.

    Attributes:
        visits: what was looked at, level by level, image by image within a level.
        image_G, level_G: int64 (G,), of each visit.
        look_GD: float (G, D), pooled features before the position module.
        feature_GD: float (G, D), placed features.
        log_prob_G: float (G,), of each draw given those before it; 0 where nothing was drawn:
            first looks, and all tiles of a plan that looks at every tile.
        marginal_G: float (G,), log(p + 1e-10) of each chosen cell; 0 where nothing was drawn.
        choices: what each level chose, with the logits of its parents.
        logits_BK: float (B, K).
        weight_G: float (G,), each visit's share of its image's aggregated feature.
        weight_GD: float (G, 1), the same, or (G, D), the weights of the feature's entries, of
            which ``weight_G`` is then the mean.
        aggregate_BD: float (B, D), the aggregated features.
        empty: for each image, whether it is nothing but background.
    """

    visits: list[Visit]
    image_G: Tensor
    level_G: Tensor
    look_GD: Tensor
    feature_GD: Tensor
    log_prob_G: Tensor
    marginal_G: Tensor
    choices: list[Choice]
    logits_BK: Tensor
    weight_G: Tensor
    weight_GD: Tensor
    aggregate_BD: Tensor
    empty: list[bool]


def conclude(
    model: TNet,
    visits: list[Visit],
    look_GD: Tensor,
    choices: list[Choice],
    empty: list[bool],
) -> Trace:
    """Place, aggregate and classify what was seen.

    Args:
        model: places and classifies.
        visits: everything that was looked at.
        look_GD: float (G, D), what the backbone made of it.
        choices: what each level chose.
        empty: for each image of the batch, whether it is nothing but background.
    """
    device = look_GD.device
    image_G = torch.tensor([visit.image for visit in visits], device=device)
    level_G = torch.tensor([visit.level for visit in visits], device=device)
    position_G3 = torch.tensor([visit.position for visit in visits], device=device)
    feature_GD = model.place(look_GD, position_G3)
    if len(empty) == 1:
        # One image's visits are its bag as they are; of many tiles a copy would be large.
        there_1T = torch.ones_like(image_G, dtype=torch.bool)[None]
        logits_BK, weight_BTD, aggregate_BD = model.classify(
            feature_GD[None], there_1T, level_G[None]
        )
        weight_GD = weight_BTD[0]
    else:
        rows, there_BT = _bags([visit.image for visit in visits], len(empty), device)
        padded_GD = torch.cat([feature_GD, feature_GD.new_zeros(1, feature_GD.shape[1])])
        # Padding counts to level 0, where it has no share.
        level_BT = torch.cat([level_G, level_G.new_zeros(1)])[rows]
        logits_BK, weight_BTD, aggregate_BD = model.classify(padded_GD[rows], there_BT, level_BT)
        # The glimpses stand in the bags in another order than among the visits.
        weight_GD = weight_BTD[there_BT][torch.argsort(rows[there_BT])]
    # What was drawn stands behind what was not.
    none = look_GD.new_zeros(len(visits) - sum(len(choice.visits) for choice in choices))
    return Trace(
        visits=visits,
        image_G=image_G,
        level_G=level_G,
        look_GD=look_GD,
        feature_GD=feature_GD,
        log_prob_G=torch.cat([none, *(choice.log_prob for choice in choices)]),
        marginal_G=torch.cat([none, *(choice.marginal for choice in choices)]),
        choices=choices,
        logits_BK=logits_BK,
        weight_G=weight_GD.mean(dim=1),
        weight_GD=weight_GD,
        aggregate_BD=aggregate_BD,
        empty=empty,
    )


def _bags(images: Sequence[int], count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return for each image its visits' indices (B, T), padded, and which are there (B, T)."""
    bags: list[list[int]] = [[] for _ in range(count)]
    for index, image in enumerate(images):
        bags[image].append(index)
    longest = max(len(bag) for bag in bags)
    padding = len(images)
    rows = torch.tensor([bag + [padding] * (longest - len(bag)) for bag in bags], device=device)
    return rows, rows != padding
