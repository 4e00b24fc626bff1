"""How far an explanation holds: glimpses taken away, and the answer recomputed from pixels."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tnet.bundle import load, shipped
from tnet.errors import UsageError, one_line
from tnet.faithfulness import Faithfulness, faithfulness, subset_logits
from tnet.record import Walk
from tnet.replaying import Pixels, features_of
from tnet.scripts.options import chosen_device

if TYPE_CHECKING:
    from tnet.model import TNet

_MOST = 1000  # glimpses whose curves are drawn
_MOST_ANEW = 200  # where the model has to aggregate every set of them
_CLOSE = 1e-4  # differences of logits that come from batching alone, relative to the largest


@dataclass(frozen=True)
class Verdict:
    """What came of the checks of one walk.

    Attributes:
        faith: how the probability falls and rises with the glimpses; None if unknown.
        why_no_faith: why it is unknown.
        replayed: largest difference of a logit when recomputed from the saved pixels.
        agrees: whether that is nothing but rounding.
        why_no_replay: why it was not recomputed.
    """

    faith: Faithfulness | None = None
    why_no_faith: str = ""
    replayed: float | None = None
    agrees: bool = False
    why_no_replay: str = ""


@dataclass
class Judge:
    """Checks walks, with the models that made them where they can be had.

    Attributes:
        named: the model, by name or file; None takes a shipped one of the walk's name.
        device: where it runs, as ``--device`` says.
    """

    named: str | None
    device: str
    _models: "dict[str, TNet]" = field(default_factory=dict)

    def prepare(self) -> None:
        """Load the model that the user named.

        Raises:
            TNetError: if it cannot be loaded, or there is no such device.
        """
        if self.named is not None:
            self._loaded(self.named)

    def of(self, walk: Walk, pixels: Pixels | None) -> Verdict:
        """Check a walk.

        Args:
            walk: the record.
            pixels: what was looked at, if it was kept.
        """
        model, why = self._model(walk) if pixels is not None else (None, _NO_PIXELS)
        found = Verdict(why_no_replay=why)
        if model is not None and pixels is not None:
            try:
                seen = replace(walk, features=features_of(model, walk, pixels))
                found = _replayed(model, seen)
            except Exception as error:  # a model that is another one fails in many ways
                found = Verdict(why_no_replay=one_line(error))
            else:
                walk = seen if found.agrees else walk
        if walk.label is None:
            return replace(found, why_no_faith="the model gave no answer")
        faith, why = _faith(walk, model if walk.features is not None else None)
        return replace(found, faith=faith, why_no_faith=why)

    def _model(self, walk: Walk) -> "tuple[TNet | None, str]":
        """Return the model that walked, or why it cannot be had."""
        name = self.named or walk.model
        if self.named is None and name not in shipped():
            return None, f"the model {name or 'that walked'} is not here; name it with --model"
        model = self._loaded(name)
        said = walk.made.get("model_sha256")
        if said is not None and model.sha256 != said:
            return None, f"the file of the model {name} is another one than walked here"
        return model, ""

    def _loaded(self, name: str) -> "TNet":
        if name not in self._models:
            self._models[name] = load(name, device=chosen_device(self.device))
        return self._models[name]


_NO_PIXELS = "its pixels were not kept; `tnet classify --pixels` does"


def _faith(walk: Walk, model: "TNet | None") -> tuple[Faithfulness | None, str]:
    """Return how the probability falls and rises, or why nobody knows."""
    count = len(walk.glimpses)
    if count > _MOST:
        return None, f"{count:,} glimpses are too many for it here"
    with suppress(UsageError):
        return faithfulness(walk), ""
    if model is None:
        return None, (
            f"with this model's aggregate ({walk.aggregate or 'unknown'}) it takes the model and "
            "the pixels, which `tnet classify --pixels` keeps"
        )
    if count > _MOST_ANEW:
        return None, f"with this model's aggregate {count:,} glimpses are too many for it here"
    return faithfulness(walk, model=model), ""


def _replayed(model: "TNet", walk: Walk) -> Verdict:
    """Compare a walk's logits with those of its features, which come from the pixels alone."""
    if walk.label is None:
        return Verdict(why_no_replay="the model gave no answer")
    everything = np.ones((1, len(walk.glimpses)), dtype=bool)
    (logits,) = subset_logits(walk, everything, model)
    off = float(np.abs(logits - walk.logits).max())
    return Verdict(replayed=off, agrees=off <= _CLOSE * max(1.0, float(np.abs(walk.logits).max())))
