"""How to train, and on what."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from tnet.annealing import Anneal
from tnet.errors import UsageError
from tnet.freezing import FREEZES, Freeze
from tnet.geometry import Region
from tnet.objective import Rule
from tnet.pyramid import Pyramid
from tnet.sampling import POLICIES, Policy
from tnet.schedules import OPTIMIZERS, SCHEDULES, OptimizerName, Schedule


class Sample(NamedTuple):
    """One image of a batch.

    Attributes:
        pyramid: its pixels.
        label: its class index; with several labels an image 0 or 1 for every class.
        seed: of its draws.
        boxes: where its evidence is, in pixels of level 0, if that is known.
        weight: how much it counts while training.
    """

    pyramid: Pyramid
    label: int | tuple[int, ...]
    seed: int
    boxes: tuple[Region, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    Attributes:
        rule: the weights of the loss.
        policy: how cells are chosen while training.
        samples: walks of every image in a step (Monte-Carlo samples).
        lr: learning rate of the backbone.
        head_lr: learning rate of everything else.
        weight_decay: of the optimiser.
        steps: length of training in steps of the optimiser; None keeps the rates constant.
        entropy: weight of the bonus on the entropy of the location distributions.
        supervise: weight of the cross-entropy that teaches the location module the boxes; 0
            learns from image labels alone.
        absent: with ``supervise``, the class of a glimpse that shows no box; -100 is none.
        distill: weight of the cross-entropy that teaches the location module the aggregate's
            weights.
        anneal: numbers of glimpses that fall to the plan's; None takes the plan's throughout.
        temperature: what location logits are divided by at first; it falls to 1 over the share
            of training that the numbers of glimpses take, or over all of it.
        tiles_share: of the tiles of a plan that looks at all of them, how much a step looks at.
        freeze: "backbone", "norms" (batch norms) or "none", see :mod:`tnet.freezing`.
        schedule: of the learning rates: "cosine", "step" or "constant".
        warmup: share of training over which the rates rise.
        optimizer: "adamw" or "sgd".
        class_weights: one a class; with several labels an image, of presence against absence.
        multilabel: each sample has 0 or 1 for every class instead of one class.

    Raises:
        UsageError: if a value makes no sense.
    """

    rule: Rule = field(default_factory=Rule)
    policy: Policy = "categorical"
    samples: int = 1
    lr: float = 1e-3
    head_lr: float = 1e-3
    weight_decay: float = 0.0
    steps: int | None = None
    entropy: float = 0.0
    supervise: float = 0.0
    absent: int = -100
    distill: float = 0.0
    anneal: Anneal | None = None
    temperature: float = 1.0
    tiles_share: float = 1.0
    freeze: Freeze = "none"
    schedule: Schedule = "cosine"
    warmup: float = 0.1
    optimizer: OptimizerName = "adamw"
    class_weights: tuple[float, ...] | None = None
    multilabel: bool = False

    def __post_init__(self) -> None:
        self._check_names()
        for name in ("lr", "head_lr", "weight_decay", "supervise", "distill"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"warmup must be a share of training below 1, got {self.warmup}")
        if not 0 < self.tiles_share <= 1:
            raise UsageError(f"tiles_share must be above 0, at most 1, got {self.tiles_share}")
        if not 1 <= self.temperature < math.inf:
            raise UsageError(f"temperature must be 1 or more, got {self.temperature}")
        if self.samples < (2 if self.rule.baseline == "samples" else 1):
            raise UsageError(
                "samples must be 1 or more, and 2 or more for the baseline 'samples', got "
                f"{self.samples}"
            )
        if self.steps is None and (self.anneal is not None or self.temperature != 1):
            raise UsageError("anneal and temperature need to know the steps of training")

    def _check_names(self) -> None:
        allowed = {
            "policy": POLICIES,
            "freeze": FREEZES,
            "schedule": SCHEDULES,
            "optimizer": OPTIMIZERS,
        }
        for name, names in allowed.items():
            if getattr(self, name) not in names:
                known = ", ".join(repr(one) for one in names)
                raise UsageError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
