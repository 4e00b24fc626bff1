"""What a backbone costs: its parameters, and its multiply-adds for a view of a size.

One multiply-add (MAC) is one multiplication and one addition, so that it is half of what
``torch.utils.flop_counter`` counts. Convolutions (deformable ones too) and linear layers count;
norms, pooling and activations do not, nor do biases. Nothing is computed: tensors on torch's
``meta`` device have shapes and no values.

M views, C bands, (H, W) the view.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tnet.backbones
from tnet.errors import UsageError, one_line

Size = tuple[int, int]


@dataclass(frozen=True)
class Cost:
    """What a backbone with a classifier costs.

    Attributes:
        name: of the timm architecture.
        parameters: weights and biases, the classifier's included.
        macs: (height, width) of one view in pixels -> multiply-adds.
    """

    name: str
    parameters: int
    macs: dict[Size, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return JSON-able values; a size is written "HEIGHTxWIDTH"."""
        macs = {f"{height}x{width}": count for (height, width), count in self.macs.items()}
        return {"name": self.name, "parameters": self.parameters, "macs": macs}


def own_backbones() -> list[str]:
    """Return the names of the timm architectures that come with TNet."""
    package = f"{tnet.backbones.__name__}."
    return [
        name
        for name in timm.list_models()
        if timm.model_entrypoint(name).__module__.startswith(package)
    ]


def cost(
    name: str, sizes: Sequence[Size] | None = None, *, bands: int = 3, classes: int | None = None
) -> Cost:
    """Return what a timm architecture costs, without memory for its weights.

    Args:
        name: of the architecture.
        sizes: (height, width) of views in pixels; None for the size that it is made for.
        bands: bands of the view.
        classes: classes of its classifier; 0 for none, None for as many as it was made for.

    Raises:
        UsageError: if the architecture is unknown or takes no view of one of the sizes.
    """
    if not timm.is_model(name):
        raise UsageError(f"timm has no model named {name!r}; `tnet models` lists those there are")
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    with torch.device("meta"):
        model: Any = timm.create_model(name, pretrained=False, in_chans=bands, **options).eval()
    if sizes is None:
        sizes = [tuple(model.pretrained_cfg["input_size"][1:])]
    counted = {}
    for height, width in sizes:
        try:
            counted[height, width] = macs(model, (bands, height, width))
        except (AssertionError, NotImplementedError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"{name!r} cannot be counted for a view of {width} x {height} pixels: "
                f"{one_line(error)}"
            ) from error
    parameters = sum(weights.numel() for weights in model.parameters())
    return Cost(name, parameters, counted)


def macs(model: nn.Module, view: tuple[int, int, int]) -> int:
    """Return the multiply-adds of one view (C, H, W); the model lies on any device."""
    device = next(model.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *view, device=device))
    return counter.get_total_flops() // 2
