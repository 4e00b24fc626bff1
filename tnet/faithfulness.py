"""Does the answer hang on what the explanation names: glimpses taken away and put back.

The walk stays as it was; only what is aggregated and classified changes. T glimpses, D features,
K classes, S sets of glimpses.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tnet.calibration import probabilities_of
from tnet.errors import UsageError
from tnet.inference import inferring
from tnet.maps import class_index
from tnet.model import TNet
from tnet.record import Walk

# The weights of a set of glimpses are then those of all of them, made to sum to 1 again.
_FROM_RECORD = ("mean", "attention", "maxout")

_AT_ONCE = 2**24  # numbers that are handed to the aggregate at a time


def subset_logits(
    walk: Walk, kept_ST: NDArray[np.bool_], model: TNet | None = None
) -> NDArray[np.float64]:
    """Return the logits that sets of a walk's glimpses would have led to, float64 (S, K).

    An empty set leaves the classifier's bias.

    Args:
        walk: with its features where there is a model.
        kept_ST: bool (S, T), which glimpses each set has.
        model: aggregates and classifies anew, at inference. None reckons with the record, which
            is exact for the aggregates "mean", "attention" and "maxout".

    Raises:
        UsageError: if the record is not enough, or the features are not there.
    """
    kept_ST = kept_ST & _looked(walk)
    return _from_record(walk, kept_ST) if model is None else _from_model(walk, kept_ST, model)


def leave_one_out(walk: Walk, model: TNet | None = None) -> NDArray[np.float64]:
    """Return what each logit loses without each glimpse, float64 (T, K).

    This is what a glimpse is worth where weights are no numbers of its own (``Walk.additive``).
    The losses of all glimpses do not add up to the logits. Arguments and exceptions are those of
    :func:`subset_logits`.
    """
    count = len(walk.glimpses)
    whole = np.ones((1, count), dtype=bool)
    without = ~np.eye(count, dtype=bool)
    return subset_logits(walk, whole, model) - subset_logits(walk, without, model)


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """How a class's probability falls and rises with the glimpses, n of them.

    Attributes:
        target: number of the class.
        order: int64 (n,), the glimpses, those first that say most for the class.
        deletion: float64 (n + 1,), its probability without the first 0, 1, ... n of them.
        insertion: the same with only the first 0, 1, ... n of them.
        random_deletion, random_insertion: float64 (controls, n + 1), the same in random orders.
    """

    target: int
    order: NDArray[np.int64]
    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]
    random_deletion: NDArray[np.float64]
    random_insertion: NDArray[np.float64]

    def areas(self) -> dict[str, float]:
        """Return the mean height of each curve; those of the controls averaged.

        An explanation is faithful if deletion lies below its control and insertion above.
        """
        names = ("deletion", "insertion", "random_deletion", "random_insertion")
        return {name: float(np.mean(_area(getattr(self, name)))) for name in names}


def faithfulness(
    walk: Walk,
    target: int | str | None = None,
    *,
    model: TNet | None = None,
    controls: int = 20,
    seed: int = 0,
) -> Faithfulness:
    """Take glimpses away, and put them back, in the order of what they say for a class.

    The order is that of the contributions, or of :func:`leave_one_out` where these are not
    additive. Source of the curves: Petsiuk et al., "RISE", BMVC 2018, with glimpses for pixels.

    Args:
        walk: the record.
        target: the class, by name or number; None for the predicted one.
        model: as of :func:`subset_logits`.
        controls: how many random orders to compare with.
        seed: of the random orders.

    Raises:
        UsageError: if there is no such class, none was predicted, or the record is not enough.
    """
    number = class_index(walk, target)
    if number is None:
        raise UsageError(f"{walk.image}: no class was predicted; name one")
    if controls < 1:
        raise UsageError(f"at least one random order is needed, got {controls}")
    worth = _worth(walk, number, model)
    looked = np.flatnonzero(_looked(walk))
    order = looked[np.argsort(-worth[looked], kind="stable")]
    rng = np.random.default_rng(seed)
    orders = [order, *(rng.permutation(looked) for _ in range(controls))]
    first_k = np.stack([_first(one, len(walk.glimpses)) for one in orders])
    inserted = _probabilities(walk, first_k, number, model)
    deleted = _probabilities(walk, ~first_k, number, model)
    return Faithfulness(number, order, deleted[0], inserted[0], deleted[1:], inserted[1:])


def _worth(walk: Walk, number: int, model: TNet | None) -> NDArray[np.float64]:
    """Return what each glimpse says for a class, float64 (T,)."""
    if not walk.additive:
        return leave_one_out(walk, model)[:, number]
    return np.array([glimpse.contributions[number] for glimpse in walk.glimpses])


def _first(order: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Return the sets of the first 0, 1, ... n glimpses of an order, bool (n + 1, T)."""
    place = np.full(count, len(order))
    place[order] = np.arange(len(order))
    return place[None] < np.arange(len(order) + 1)[:, None]


def _probabilities(
    walk: Walk, kept: NDArray[np.bool_], number: int, model: TNet | None
) -> NDArray[np.float64]:
    """Return a class's probability for sets of glimpses, (...,) for ``kept`` (..., T)."""
    logits_SK = subset_logits(walk, kept.reshape(-1, kept.shape[-1]), model)
    found_SK = probabilities_of(logits_SK, multilabel=walk.multilabel, temperature=walk.temperature)
    return found_SK[:, number].reshape(kept.shape[:-1])


def _looked(walk: Walk) -> NDArray[np.bool_]:
    """Return which glimpses the network looked at, bool (T,)."""
    looked = np.ones(len(walk.glimpses), dtype=bool)
    looked[0] = walk.first_view != (0, 0)
    return looked


def _area(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean height of curves (..., n + 1) by the trapezoidal rule."""
    return ((curve[..., 1:] + curve[..., :-1]) / 2).mean(axis=-1)


def _from_record(walk: Walk, kept_ST: NDArray[np.bool_]) -> NDArray[np.float64]:
    if walk.aggregate not in _FROM_RECORD:
        raise UsageError(
            f"{walk.image}: with the aggregate {walk.aggregate or 'of this older walk'!r} a set of "
            "glimpses has other weights than the record holds; give the model as well"
        )
    weight_T = np.array([glimpse.weight for glimpse in walk.glimpses])
    part_TK = np.array([glimpse.contributions for glimpse in walk.glimpses])
    kept = kept_ST.astype(np.float64)
    total_S1 = (kept @ weight_T)[:, None]
    sum_SK = kept @ part_TK
    share_SK = np.divide(sum_SK, total_S1, out=np.zeros_like(sum_SK), where=total_S1 > 0)
    return np.asarray(walk.bias) + share_SK


def _from_model(walk: Walk, kept_ST: NDArray[np.bool_], model: TNet) -> NDArray[np.float64]:
    if walk.features is None:
        raise UsageError(
            f"{walk.image}: the walk has no features; take it from tnet.walk, or give it those of "
            "tnet.replaying.features_of"
        )
    if model.classes != walk.classes:
        raise UsageError(f"{walk.image}: the model has other classes than the walk")
    feature_1TD = torch.from_numpy(walk.features)[None].to(model.device)
    level_1T = torch.tensor([[glimpse.level for glimpse in walk.glimpses]], device=model.device)
    at_once = max(1, _AT_ONCE // walk.features.size)
    parts = []
    with inferring(model):
        for start in range(0, len(kept_ST), at_once):
            there_ST = torch.from_numpy(kept_ST[start : start + at_once]).to(model.device)
            count = len(there_ST)
            logits_SK, _, _ = model.classify(
                feature_1TD.expand(count, -1, -1), there_ST, level_1T.expand(count, -1)
            )
            parts.append(logits_SK.double().cpu().numpy())
    return np.concatenate(parts)
