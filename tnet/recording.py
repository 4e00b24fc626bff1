"""Writing walks down: from a batch's trace to one record an image.

B images, G glimpses of all of them, D features, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet import __version__
from tnet.calibration import probabilities_of
from tnet.descent import root
from tnet.errors import DataError
from tnet.model import TNet
from tnet.plan import Plan
from tnet.pyramid import Pyramid
from tnet.record import NO_EVIDENCE, Chances, Glimpse, Walk
from tnet.trace import Trace


def written(
    model: TNet, pyramids: Sequence[Pyramid], plan: Plan, trace: Trace, contributions_GK: Tensor
) -> list[Walk]:
    """Return the record of each image's walk, but for its seed and its seconds.

    Args:
        model: walked.
        pyramids: the images.
        plan: that was followed.
        trace: of the walks.
        contributions_GK: float (G, K), what each glimpse adds to each logit.

    Raises:
        DataError: if the network's answer is not a number.
    """
    tables = _Tables.of(trace, contributions_GK)
    return [
        _walk(model, pyramid, plan, trace, tables, image) for image, pyramid in enumerate(pyramids)
    ]


@dataclass
class _Tables:
    """A trace's numbers on the host.

    Attributes:
        logits: float64 (B, K).
        weight, log_prob: of each visit.
        contributions: float64 (G, K).
        feature: float32 (G, D).
        of_image: the visits of each image, by their index.
        chances: of each visit whose grid was chosen from, by its index; the parent is left open.
    """

    logits: NDArray[np.float64]
    weight: list[float]
    log_prob: list[float]
    contributions: NDArray[np.float64]
    feature: NDArray[np.float32]
    of_image: list[list[int]]
    chances: dict[int, Chances]

    @classmethod
    def of(cls, trace: Trace, contributions_GK: Tensor) -> "_Tables":
        of_image: list[list[int]] = [[] for _ in trace.empty]
        for g, visit in enumerate(trace.visits):
            of_image[visit.image].append(g)
        return cls(
            trace.logits_BK.double().cpu().numpy(),
            trace.weight_G.double().tolist(),
            trace.log_prob_G.double().tolist(),
            contributions_GK.double().cpu().numpy(),
            trace.feature_GD.float().cpu().numpy(),
            of_image,
            _chances(trace),
        )


def _chances(trace: Trace) -> dict[int, Chances]:
    """Return the location distributions of a trace, by the visit whose grid it was."""
    found = {}
    for choice in trace.choices:
        grid = choice.grid
        logits_PN = choice.logits_PN.double().cpu()
        chances_PN = logits_PN.softmax(dim=1).tolist()
        allowed_PN = logits_PN.isfinite().tolist()
        for visit, chances, allowed in zip(choice.parents, chances_PN, allowed_PN, strict=True):
            # More digits than six would make the file larger, and nothing better.
            said = tuple(
                float(f"{chance:.6g}") if there else None
                for chance, there in zip(chances, allowed, strict=True)
            )
            found[visit] = Chances(0, grid.rows, grid.columns, grid.patch, said)
    return found


def _walk(
    model: TNet, pyramid: Pyramid, plan: Plan, trace: Trace, tables: _Tables, image: int
) -> Walk:
    """Write one image's walk down."""
    mine = tables.of_image[image]
    logits = tables.logits[image].copy()
    outcome = "class"
    if trace.empty[image]:
        outcome = NO_EVIDENCE
        logits[:] = np.nan
    elif not (np.isfinite(logits).all() and np.isfinite(tables.contributions[mine]).all()):
        raise DataError(
            f"{pyramid.name}: the network's answer is not a number; its pixels are far from what "
            "the model was made for, map them with --range LOW,HIGH"
        )
    glimpses = _glimpses(trace, tables, mine)
    features = tables.feature[mine]
    first_view = plan.first_view
    if plan.tiles is not None:
        # A record is a tree: its tiles hang from the whole image, which the network did not see.
        nothing = (0.0,) * len(model.classes)
        whole = root(pyramid, plan, image).region
        top = Glimpse(0, whole, None, None, None, 1.0, 0.0, 0, 0.0, nothing)
        glimpses = [top, *glimpses]
        features = np.concatenate([np.zeros_like(features[:1]), features])
        first_view = (0, 0)
    return Walk(
        image=pyramid.name,
        width=pyramid.width,
        height=pyramid.height,
        classes=model.classes,
        logits=logits,
        probabilities=probabilities_of(
            logits, multilabel=model.multilabel, temperature=model.calibration
        ),
        outcome=outcome,
        bias=tuple(model.classifier.linear.bias.double().tolist()),
        glimpses=tuple(glimpses),
        view=plan.view,
        spacing=pyramid.spacing,
        unit=pyramid.unit,
        crs=pyramid.crs,
        transform=pyramid.transform,
        plan=plan.to_dict(),
        model=model.name,
        notes=tuple(pyramid.notes),
        features=features,
        first_view=first_view,
        multilabel=model.multilabel,
        grids=tuple(
            replace(tables.chances[visit], parent=place)
            for place, visit in enumerate(mine)
            if visit in tables.chances
        ),
        aggregate=str(getattr(model.aggregate, "name", type(model.aggregate).__name__)),
        temperature=model.calibration,
        made=_made(model),
    )


def _made(model: TNet) -> dict[str, str]:
    """Return what made a walk."""
    known = {"tnet": __version__, "torch": str(torch.__version__)}
    return known | ({"model_sha256": model.sha256} if model.sha256 else {})


def _glimpses(trace: Trace, tables: _Tables, mine: Sequence[int]) -> list[Glimpse]:
    """Return an image's visits as glimpses; tiles get the whole image as their parent."""
    place = {g: i for i, g in enumerate(mine)}
    contributions = tables.contributions[mine].tolist()
    glimpses = []
    for g, worth in zip(mine, contributions, strict=True):
        visit = trace.visits[g]
        parent = 0 if visit.parent is None else place[visit.parent]
        glimpses.append(
            Glimpse(
                level=visit.level,
                region=visit.region,
                parent=parent if visit.level else None,
                row=visit.row,
                column=visit.column,
                probability=visit.probability,
                log_prob=tables.log_prob[g],
                rank=visit.rank,
                weight=tables.weight[g],
                contributions=tuple(worth),
            )
        )
    return glimpses
