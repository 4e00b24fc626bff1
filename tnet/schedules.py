"""Optimisers and schedules of the learning rates."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

from torch.optim import SGD, AdamW, Optimizer

from tnet.model import TNet

Schedule = Literal["cosine", "step", "constant"]
OptimizerName = Literal["adamw", "sgd"]
SCHEDULES: tuple[Schedule, ...] = ("cosine", "step", "constant")
OPTIMIZERS: tuple[OptimizerName, ...] = ("adamw", "sgd")

# Shares of training after which the step schedule divides the rate by ten, as released.
_DROPS = (0.7, 0.85)
_SGD_MOMENTUM = 0.9


def factor_of(
    schedule: Schedule, steps: int | None, warmup: float = 0.1
) -> Callable[[int], float] | None:
    """Return step -> share of the learning rate, or None where it never changes.

    Args:
        schedule: "cosine" falls to 0 along half a wave; "step" to a tenth after 70 % of training
            and a hundredth after 85 %; "constant" stays.
        steps: how many there will be; None, with nothing to measure progress by, is constant
            and does not warm up.
        warmup: share of training over which the rate first rises in a straight line.
    """
    if steps is None or (schedule == "constant" and warmup == 0):
        return None
    return partial(_factor, schedule, steps, warmup)


def _factor(schedule: Schedule, steps: int, warmup: float, step: int) -> float:
    done = step / max(steps, 1)
    if done < warmup:
        return max(done / warmup, 0.01)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if schedule == "step":
        return 0.1 ** sum(done >= drop for drop in _DROPS)
    return 1.0


def optimizer_of(
    model: TNet, name: OptimizerName, *, lr: float, head_lr: float, weight_decay: float
) -> Optimizer:
    """Return an optimiser with one rate for the backbones and one for everything else.

    Frozen parameters are left out. A scout's backbone counts as one.

    Args:
        model: what learns.
        name: "adamw", or "sgd" with Nesterov's momentum of 0.9.
        lr: rate of the backbones.
        head_lr: rate of everything else.
        weight_decay: of all of them.
    """
    backbones = [model.backbone, *([] if model.scout is None else [model.scout.backbone])]
    known = {id(p) for part in backbones for p in part.parameters()}
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if id(p) in known], "lr": lr},
        {"params": [p for p in learning if id(p) not in known], "lr": head_lr},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "sgd":
        return SGD(groups, lr=lr, momentum=_SGD_MOMENTUM, nesterov=True, weight_decay=weight_decay)
    return AdamW(groups, lr=lr, weight_decay=weight_decay)
