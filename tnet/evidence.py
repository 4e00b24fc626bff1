"""From a batch's walks to what the learning rule is a function of.

B images, G glimpses of all of them, P parent views, N cells.
"""

import torch
from torch import Tensor

from tnet.model import TNet
from tnet.objective import Evidence, Rule
from tnet.sampling import whole
from tnet.trace import Trace


def evidence(model: TNet, trace: Trace, rule: Rule) -> Evidence:
    """Gather what the loss is a function of; each level's own predictions are one batch.

    Mixed precision ends here: the loss is reckoned in float32.
    """
    log_prob_G = trace.log_prob_G if rule.likelihood == "plackett_luce" else trace.marginal_G
    own = [
        model.classifier(trace.feature_GD[trace.level_G == level])
        for level in range(int(trace.level_G.max()) + 1)
    ]
    # Visits are stored level by level, so that the levels' rows are already in order.
    return Evidence(
        whole(trace.logits_BK),
        whole(torch.cat(own)),
        whole(log_prob_G),
        trace.image_G,
        trace.level_G,
        whole(trace.aggregate_BD),
    )


def mean_entropy(trace: Trace) -> Tensor:
    """Return the mean entropy of all location distributions of a batch, float (), in nats."""
    entropies = []
    for choice in trace.choices:
        log_p_PN = whole(choice.logits_PN).log_softmax(dim=1)
        # A forbidden cell has p log p = 0 * -inf, which must count as nothing.
        terms_PN = (log_p_PN.exp() * log_p_PN.clamp_min(-1e9)).masked_fill(log_p_PN.isinf(), 0.0)
        entropies.append(-terms_PN.sum(dim=1))
    # A batch of small or empty images may choose nothing at all.
    if not sum(map(len, entropies)):
        return trace.logits_BK.new_zeros(())
    return torch.cat(entropies).mean()
