"""The mistakes that a model was surest of, as pictures of its walks."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tnet.scripts.evaluation import Job, Seen, outcomes_of, rewalked

if TYPE_CHECKING:
    from tnet.plan import Plan

MOST = 6
_SIDE = 512  # of the image on the page, pixels; the glimpses stand beside it
_QUALITY = 82


@dataclass(frozen=True)
class Mistake:
    """One image that the model was wrong about.

    Attributes:
        image: its path.
        label: the truth; several are joined with ", ".
        predicted: what the model said instead.
        confidence: probability of that; None with several labels.
        picture: of the walk, a JPEG file; None if it could not be drawn again.
    """

    image: str
    label: str
    predicted: str
    confidence: float | None
    picture: bytes | None


def mistakes(job: Job, plan: "Plan", seen: Sequence[Seen], most: int = MOST) -> list[Mistake]:
    """Return the mistakes of the highest confidence, or, with several labels, loss.

    Args:
        job: what was done with the images; those shown are walked over once more.
        plan: of the walks.
        seen: what came of the images.
        most: how many are returned.
    """
    model = job.model
    outcomes = outcomes_of(seen, model.classes, multilabel=model.multilabel)
    good = [one for one in seen if one.error is None]
    sure = outcomes.log_losses if model.multilabel else outcomes.probability_NK.max(axis=1)
    decisions = outcomes.decisions
    wrong = (decisions != outcomes.target_NK).any(axis=1) & outcomes.answered_N
    places = sorted((i for i in range(len(good)) if wrong[i]), key=lambda i: (-sure[i], i))
    found = []
    for index in places[:most]:
        one = good[index]
        said = [n for n, there in zip(model.classes, decisions[index], strict=True) if there]
        found.append(
            Mistake(
                image=str(one.entry.image),
                label=", ".join(one.entry.labels) or "nothing",
                predicted=", ".join(said) or "nothing",
                confidence=None if model.multilabel else float(sure[index]),
                picture=_picture(job, plan, one),
            )
        )
    return found


def _picture(job: Job, plan: "Plan", one: Seen) -> bytes | None:
    """Return the picture of a walk, or None: a report is worth more than one of its pictures."""
    from tnet.adapters.overlay import draw_walk

    file = io.BytesIO()
    try:
        with rewalked(job, plan, one.entry) as (walk, pyramid):
            draw_walk(walk, pyramid, _SIDE).save(file, "JPEG", quality=_QUALITY)
    except Exception:
        return None
    return file.getvalue() or None
