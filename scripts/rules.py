"""The learning rules that a training can be told by name; single keys go before them.

"distilled" is what found rare targets where the other one did not, see docs/experiments.md:
an attention weighs the glimpses, the location module is taught its weights, and the glimpses
begin many and become few. "released" is the rule of the paper's code.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from tnet.annealing import Anneal
from tnet.plan import Plan
from tnet.scripts.config import Config

_WEIGHS = ("attention", "maxout", "weighting")  # aggregates that have something to distill
_WIDER = 4  # times as many glimpses of the first view to begin with


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


# Of all tiles the bag has the label and no single one has.
_OF_TILES = {"main_ce": 1.0}

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
    return {"aggregate": "attention", "location": "joint"}


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
    usual = _WEIGHTS[name] | (_OF_TILES if config.model == "tiles" else {})
    weights = {
        key: number if getattr(config, key) is None else getattr(config, key)
        for key, number in usual.items()
    }
    start = config.anneal
    if start is None and name == "distilled" and plan.steps:
        step = plan.steps[0]
        start = (min(_WIDER * step.glimpses, step.rows * step.columns),)
    # Zero glimpses to begin with says that none are to be added.
    fall = (config.anneal_share, config.explore)
    anneal = Anneal(start, *fall) if start and all(start) else None
    return Learning(name, **weights, anneal=anneal)
