"""Which epoch of a training is the best one, and why."""

import math
from dataclasses import dataclass, field

from tnet.scripts.config import Config


@dataclass
class Best:
    """The best epoch so far.

    Attributes:
        epoch: counted from 1; 0 before the first.
        score: what is to be large.
        loss: what is to be small where scores are the same.
        values: all that was measured then.
    """

    epoch: int = 0
    score: float = -math.inf
    loss: float = math.inf
    values: dict[str, float] = field(default_factory=dict)

    def beaten(self, score: float, loss: float) -> bool:
        """Say whether another epoch is better."""
        return (score, -loss) > (self.score, -self.loss) or not self.epoch

    def compared(self, score: float | None, loss: float) -> str:
        """Return what another epoch is beside this one, for the end of its line; nothing if worse.

        Args:
            score: what it has; None if what is to be large is undefined.
            loss: its cross-entropy.
        """
        better = self.beaten(score or 0.0, loss)
        mark = " (best)" if better else ""
        if score is None or not self.epoch or score != self.score:
            return mark
        than = "below" if better else "not below"
        tie = f"a tie with epoch {self.epoch}, cross-entropy {loss:.4g} {than} {self.loss:.4g}"
        return f" (best: {tie})" if better else f" ({tie})"


def score_of(config: Config, values: dict[str, float], *, ranked: bool) -> float | None:
    """Return what is to be large; None where it is undefined, so that the loss alone decides.

    Args:
        config: says what to go by.
        values: what was measured.
        ranked: whether each question has two answers: two classes, or several labels an image.
            How well images are ranked is then known whatever the threshold, which moves from
            epoch to epoch more than the ranking does.
    """
    name = config.monitor
    if name == "auto":
        name = "auroc" if ranked else "balanced_accuracy"
    score = math.nan if name == "loss" else values.get(f"val_{name}", math.nan)
    return score if math.isfinite(score) else None


def cross_entropy_of(values: dict[str, float]) -> float:
    """Return what is to be small: the loss without REINFORCE's terms.

    Those change with the baseline, and say nothing of how good a model is.
    """
    return sum(values.get(f"val_{part}_ce", math.inf) for part in ("main", "glimpse"))


def gentler(config: Config) -> str:
    """Return learning rates to try where those of a configuration were too high, for --set."""
    usual = Config()
    lower = {
        name: min(getattr(config, name) / 5, getattr(usual, name)) for name in ("lr", "head_lr")
    }
    high = [name for name in lower if getattr(config, name) > getattr(usual, name)]
    return " ".join(f"--set {name}={lower[name]:g}" for name in high or lower)
