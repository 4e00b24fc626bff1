"""Terms of the loss that need no walk: the contrastive term, and the sum of squares.

B images, D features.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def contrastive(feature_BD: Tensor, label_B: Tensor, margin: float) -> Tensor:
    """Return the mean over all pairs of 1 - cos (same class) or max(cos - margin, 0) (else).

    An image paired with itself counts, as in the released code. With several labels an image,
    float (B, K), all of them have to agree. Source: TNet (CUB, NABirds).
    """
    unit_BD = F.normalize(feature_BD + 1e-10, dim=1)
    cosine_BB = unit_BD @ unit_BD.T
    same_BB = label_B[:, None] == label_B[None, :]
    if label_B.ndim == 2:
        same_BB = same_BB.all(dim=2)
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
