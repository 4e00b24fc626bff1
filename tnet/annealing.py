"""Starting wide and narrowing: how the walk of training changes while it lasts.

With few glimpses among many cells, a location module that knows nothing hardly ever meets what
matters, and so is never rewarded. Looking at many cells first, it does. And a location module that
has found one kind of target leads the walk away from all the others; while cells are drawn at
random, the classifier meets every kind equally often.
"""

import math
from dataclasses import dataclass, replace

from tnet.errors import UsageError
from tnet.plan import Plan


@dataclass(frozen=True, slots=True)
class Anneal:
    """Numbers of glimpses that fall to the plan's.

    Attributes:
        start: glimpses of each step at the beginning of training; steps without a number keep
            the plan's. A number larger than its grid takes all cells.
        share: of training, after which the plan's own numbers are reached.
        explore: share of training at its beginning, in which cells are drawn at random and their
            numbers do not fall yet.

    Raises:
        UsageError: if a number makes no sense.
    """

    start: tuple[int, ...]
    share: float = 0.7
    explore: float = 0.0

    def __post_init__(self) -> None:
        if not self.start or any(count < 1 for count in self.start):
            raise UsageError(
                f"anneal: start needs a number of glimpses from 1 for each step, got {self.start}"
            )
        if not 0 < self.share <= 1:
            raise UsageError(f"anneal: share must be above 0 and at most 1, got {self.share}")
        if not 0 <= self.explore < self.share:
            raise UsageError(
                f"anneal: explore must be at least 0 and less than the share of {self.share:g} in "
                f"which glimpses fall, got {self.explore}"
            )

    def explores(self, progress: float) -> bool:
        """Say whether cells are drawn at random at a moment of training, from 0 to 1."""
        return progress < self.explore


def plan_at(plan: Plan, anneal: Anneal, progress: float) -> Plan:
    """Return the plan of a moment of training.

    The numbers fall geometrically: each halving takes as long as the one before. While the
    training explores they stay.

    Args:
        plan: what the numbers fall to; at the end exactly this is returned.
        anneal: what they start from.
        progress: of training, from 0 to 1.

    Raises:
        UsageError: if there are more numbers than steps.
    """
    if len(anneal.start) > len(plan.steps):
        raise UsageError(
            f"anneal: start has {len(anneal.start)} numbers of glimpses and the plan "
            f"{len(plan.steps)} steps; give one number a step"
        )
    if progress >= anneal.share:
        return plan
    fallen = max(0.0, progress - anneal.explore) / (anneal.share - anneal.explore)
    steps = list(plan.steps)
    for level, start in enumerate(anneal.start):
        step = steps[level]
        first = min(start, step.rows * step.columns)
        count = _between(first, step.glimpses, fallen)
        steps[level] = replace(step, glimpses=count)
    return replace(plan, steps=tuple(steps))


def temperature_at(start: float, share: float, progress: float) -> float:
    """Return the temperature of a moment: from ``start`` to 1 over a share of training.

    Logits divided by a temperature above 1 make a flatter distribution, which explores more. It
    falls geometrically, as the numbers of glimpses do.
    """
    return math.exp(math.log(start) * max(0.0, 1 - progress / share))


def _between(first: int, last: int, share: float) -> int:
    """Return the whole number at a share of the geometric way from first to last."""
    end = max(last, 1)
    return round(math.exp((1 - share) * math.log(first) + share * math.log(end)))
