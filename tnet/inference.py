"""A model as it is at inference, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into its state at inference for a while; parts may have been there before."""
    learning = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in learning:
            module.training = True


@contextmanager
def inferring(model: nn.Module) -> Iterator[None]:
    """Do as :func:`evaluating` does, without gradients."""
    with evaluating(model), torch.inference_mode():
        yield
