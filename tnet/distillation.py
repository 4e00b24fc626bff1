"""Teaching the location module what the aggregate found important.

An aggregate that weighs glimpses learns by plain cross-entropy which of those looked at carry
the answer. Distilled into the location module's logits at these cells, that tells it where to
look next time, cell by cell, where a reward tells one number for the whole walk.

P parent views, N cells, G glimpses.
"""

import torch
from torch import Tensor

from tnet.descent import Choice
from tnet.sampling import whole
from tnet.trace import Trace


def distillation_loss(trace: Trace) -> Tensor:
    """Return the cross-entropy from the aggregate's weights to the location logits, float ().

    For each view of which at least two cells were looked at: the teacher is a distribution over
    these cells, proportional to the weight of everything seen at or below each of them, and a
    constant to the gradient; the student is the softmax of the logits at these cells alone.
    Cells not looked at neither teach nor are taught. The mean over the views is weighted by the
    weight of everything at or below a view, so that branches of no importance teach little.
    0 where no view has two such cells.

    The aggregate must weigh glimpses: a plain mean teaches nothing but evenness.
    """
    weight_G = subtree_weights(trace)
    terms, weights = [], []
    last = len(trace.visits) - sum(len(choice.visits) for choice in trace.choices)
    for choice in trace.choices:
        first, last = last, last + len(choice.visits)
        if choice.visits:
            term_P, weight_P = _terms(choice, weight_G, weight_G[first:last])
            terms.append(term_P)
            weights.append(weight_P)
    if not terms:
        return trace.logits_BK.new_zeros(())
    weight_P = torch.cat(weights)
    total = (torch.cat(terms) * weight_P).sum()
    return total / weight_P.sum().clamp_min(torch.finfo(weight_P.dtype).tiny)


def subtree_weights(trace: Trace) -> Tensor:
    """Return the aggregate's weight of each visit and of all visits below it, float (G,).

    A constant to the gradient. A first look that is among the visits has all of its image's
    weight, 1.
    """
    weight_G = whole(trace.weight_G.detach()).clone()
    last = len(trace.visits)
    # Visits stand level by level, so that the last choice made the last ones.
    for choice in reversed(trace.choices):
        first = last - len(choice.visits)
        parent = torch.tensor(
            [visit.parent for visit in choice.visits], dtype=torch.int64, device=weight_G.device
        )
        weight_G.index_add_(0, parent, weight_G[first:last].clone())
        last = first
    return weight_G


def _terms(choice: Choice, weight_G: Tensor, chosen_G: Tensor) -> tuple[Tensor, Tensor]:
    """Return each parent's cross-entropy and its weight in the mean, both float (P,).

    Args:
        choice: of one level.
        weight_G: float (G,), the subtrees' weights of all visits.
        chosen_G: those of the choice's own.
    """
    rows = {parent: row for row, parent in enumerate(choice.parents)}
    device = choice.logits_PN.device
    row_G = torch.tensor([rows[_known(v.parent)] for v in choice.visits], device=device)
    cell_G = torch.tensor([_known(v.cell) for v in choice.visits], device=device)
    logits_PN = whole(choice.logits_PN)
    below_G = chosen_G.clamp_min(0).to(logits_PN)

    looked_PN = torch.zeros_like(logits_PN, dtype=torch.bool)
    looked_PN[row_G, cell_G] = True
    teacher_PN = torch.zeros_like(logits_PN)
    teacher_PN[row_G, cell_G] = below_G
    total_P = teacher_PN.sum(dim=1)
    taught_P = (looked_PN.sum(dim=1) > 1) & (total_P > 0)
    teacher_PN = teacher_PN / total_P.clamp_min(torch.finfo(total_P.dtype).tiny)[:, None]
    student_PN = logits_PN.masked_fill(~looked_PN, float("-inf")).log_softmax(dim=1)
    # What was not looked at has 0 * -inf, which must count as nothing.
    term_P = -(teacher_PN * student_PN.masked_fill(~looked_PN, 0.0)).sum(dim=1)
    parents = torch.tensor(choice.parents, device=device)
    return term_P, weight_G[parents].to(term_P) * taught_P


def _known(index: int | None) -> int:
    assert index is not None, "what was chosen has a parent and a cell"
    return index
