"""Choosing cells without replacement, and how likely the choice was.

P grids (one a parent view), N cells of each, k cells chosen. Probabilities of cells that may not
be chosen are exactly zero: their logits are minus infinity.
"""

from typing import Literal

import torch
from torch import Tensor

Policy = Literal["greedy", "categorical", "uniform"]
POLICIES: tuple[Policy, ...] = ("greedy", "categorical", "uniform")

# Logits are compared on this grid, so that cells which differ only by the rounding of a
# differently batched convolution count as tied, and ties go to the lowest index.
_TIE = 2.0**-16


def gumbel(count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` standard Gumbel values on the CPU, float64 (count,)."""
    uniform = torch.rand(count, dtype=torch.float64, generator=generator)
    return -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))


def choose(score_N: Tensor, count: int) -> list[int]:
    """Return the ``count`` best cells, best first; fewer where fewer may be chosen.

    Args:
        score_N: float (N,): log-probabilities for the greedy choice; log-probabilities plus
            Gumbel noise for true categorical sampling without replacement (Gumbel top-k:
            Kool, van Hoof and Welling, 2019). Minus infinity forbids a cell.
        count: how many.
    """
    allowed = int(torch.isfinite(score_N).sum())
    rounded = (score_N.double() / _TIE).round()
    order = torch.sort(rounded, descending=True, stable=True).indices
    return [int(i) for i in order[: min(count, allowed)]]


def scores(logits_N: Tensor, policy: Policy, generator: torch.Generator | None) -> Tensor:
    """Return what :func:`choose` ranks under a policy, float64 (N,) on the CPU.

    Raises:
        ValueError: for an unknown policy, or a policy that draws and has no generator.
    """
    if policy not in POLICIES:
        raise ValueError(f"the policy must be one of {', '.join(POLICIES)}, got {policy!r}")
    log_p_N = logits_N.detach().double().cpu().log_softmax(dim=0)
    if policy == "greedy":
        return log_p_N
    if generator is None:
        raise ValueError(f"the policy {policy!r} draws at random and needs a seed")
    if policy == "uniform":
        log_p_N = torch.where(torch.isfinite(log_p_N), 0.0, log_p_N)
    return log_p_N + gumbel(len(log_p_N), generator)


def whole(x: Tensor) -> Tensor:
    """Return numbers of half precision as float32, in which sums of logarithms are safe."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def marginal_log_probs(logits_PN: Tensor, cells_Pk: Tensor) -> Tensor:
    """Return log(p + 1e-10) of each chosen cell, float (P, k), as the released code does.

    Their sum is not the log-probability of the sample: nothing is renormalised after a draw.
    """
    return torch.log(whole(logits_PN).softmax(dim=1).gather(1, cells_Pk) + 1e-10)


def plackett_luce_log_probs(logits_PN: Tensor, cells_Pk: Tensor) -> Tensor:
    """Return log p(cell j | the cells drawn before it), float (P, k).

    Their sum over j is the exact log-probability of the ordered sample without replacement
    (Plackett-Luce).

    Args:
        logits_PN: float (P, N); minus infinity where a cell may not be chosen.
        cells_Pk: int64 (P, k), in the order of the draw.
    """
    log_p_PN = whole(logits_PN).log_softmax(dim=1)
    chosen_Pk = log_p_PN.gather(1, cells_Pk)
    # What is left before each draw: the cells that are never drawn, and from the last draw back
    # all those that are drawn from there on. Adding up stays exact where 1 - (the probabilities of
    # the cells drawn before) would cancel. Where nothing is left over, a number that no
    # probability is as small as stands for minus infinity, whose gradient would be NaN.
    none = torch.finfo(log_p_PN.dtype).min / 4
    never_P1 = log_p_PN.scatter(1, cells_Pk, none).logsumexp(dim=1, keepdim=True)
    backwards_Pk = torch.cat([never_P1, chosen_Pk.flip(1)], dim=1).logcumsumexp(dim=1)[:, 1:]
    return chosen_Pk - backwards_Pk.flip(1)
