"""The learning rules that a training can be told by name; single keys go before them.

"distilled" is what found rare targets where the other one did not, see docs/experiments.md:
the glimpses are weighed, the location module is taught their weights, and they begin many and
become few. "released" is the rule of the paper's code.

A backbone that learns is weighed by attention, from its first steps on. Where it is frozen, its
features are brought to one scale and weighed by the strongest kind of evidence, without their
places, and cells are drawn at random until the classifier knows what it sees.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from tnet.annealing import Anneal
from tnet.plan import Plan
from tnet.scripts.config import Config

_FROZEN = "backbone"
_WEIGHS = ("attention", "maxout", "weighting")  # aggregates that have something to distill
_WIDER = 4  # times as many glimpses of the first view to begin with
# Shares of the training: after which glimpses have fallen, and of this, that explores.
_FALL = (0.7, 0.0)
_FALL_FROZEN = (0.95, 0.84)


@dataclass(frozen=True, slots=True)
class Learning:
    """What a rule's name stands for; the fields are the keys of the same names.

    Attributes:
        name: of the rule.
        main_ce, reinforce, distill, entropy: weights of the loss.
        anneal: numbers of glimpses to begin with; None takes the plan's throughout.
    """

    name: str
    main_ce: float
    reinforce: float
    distill: float
    entropy: float
    anneal: Anneal | None

    def said(self) -> str:
        """Return the rule in one line."""
        parts = [
            f"{name} {getattr(self, name):g}"
            for name in ("main_ce", "reinforce", "distill", "entropy")
            if getattr(self, name)
        ]
        if self.anneal is not None:
            begin = ",".join(map(str, self.anneal.start))
            explore = self.anneal.explore
            drawn = f" drawn at random for {explore:.0%} and" if explore else ""
            parts.append(
                f"{begin} glimpses{drawn} falling over {self.anneal.share:.0%} of the training"
            )
        return f"{self.name} ({', '.join(parts)})"


# Where only the bag has the label and no single glimpse has: of all tiles, and of many at random.
_OF_BAGS = {"main_ce": 1.0}

_WEIGHTS: dict[str, dict[str, float]] = {
    "distilled": {"main_ce": 0.5, "reinforce": 0.0, "distill": 1.0, "entropy": 0.001},
    "released": {"main_ce": 0.3, "reinforce": 0.1, "distill": 0.0, "entropy": 0.0},
}


def parts_for(config: Config, recipe: str) -> dict[str, Any]:
    """Return the options of a recipe that the rule asks for where nothing else is said.

    Args:
        config: the training's.
        recipe: the model's; others than "default" keep their own parts.
    """
    walks = config.model in ("tnet", "random")
    if recipe != "default" or config.rule == "released" or not walks:
        return {}
    if config.freeze == _FROZEN:
        weighed = {"aggregate": "maxout", "features": "standard", "position": "none"}
    else:
        weighed = {"aggregate": "attention"}
    return {**weighed, "location": "joint"}


def _fall(config: Config) -> tuple[float, float]:
    """Return the share after which glimpses have fallen, and the share that explores."""
    share, explore = _FALL_FROZEN if config.freeze == _FROZEN else _FALL
    share = share if config.anneal_share is None else config.anneal_share
    return share, share * explore if config.explore is None else config.explore


def learning(config: Config, aggregate: nn.Module, plan: Plan) -> Learning:
    """Return the rule of a training, single keys before the rule's own numbers.

    Args:
        config: the training's.
        aggregate: the model's; one that weighs all glimpses alike has nothing to distill, so
            that "auto" is then the released rule.
        plan: what the numbers of glimpses fall to.
    """
    name = config.rule
    if name == "auto":
        name = "distilled" if getattr(aggregate, "name", "") in _WEIGHS else "released"
    of_bags = config.model == "tiles" or (name == "distilled" and config.freeze == _FROZEN)
    usual = _WEIGHTS[name] | (_OF_BAGS if of_bags else {})
    weights = {
        key: number if getattr(config, key) is None else getattr(config, key)
        for key, number in usual.items()
    }
    start = config.anneal
    if start is None and name == "distilled" and plan.steps:
        step = plan.steps[0]
        start = (min(_WIDER * step.glimpses, step.rows * step.columns),)
    # Zero glimpses to begin with says that none are to be added.
    anneal = Anneal(start, *_fall(config)) if start and all(start) else None
    return Learning(name, **weights, anneal=anneal)
