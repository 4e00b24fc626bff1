"""Parts that stay as they are while the rest learns."""

from typing import Literal

from torch import nn

from tnet.model import TNet

Freeze = Literal["none", "backbone", "norms"]
FREEZES: tuple[Freeze, ...] = ("none", "backbone", "norms")


def freeze(model: TNet, what: Freeze) -> list[nn.Module]:
    """Freeze a part of a model, and return the modules that have to stay in evaluation mode.

    Args:
        model: it stays frozen until its parameters are told to require gradients again.
        what: "backbone": its parameters need no gradient, so that no graph is built of it, and
            its norms use their running statistics. "norms": all batch norms of the model use
            their running statistics, which lets it train with a batch of one; their weights
            and biases still learn. "none": nothing.
    """
    if what == "none":
        return []
    if what == "norms":
        return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    model.backbone.requires_grad_(False)
    return [model.backbone]
