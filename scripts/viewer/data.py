"""What the page in the browser is told of a walk and its image, as JSON values."""

import math
from typing import Any

from tnet.adapters.drawing import css, level_colour
from tnet.adapters.footer import METRES
from tnet.adapters.insets import inset_texts
from tnet.pyramid import Pyramid
from tnet.record import Glimpse, Walk
from tnet.scripts.viewer.cohort import Entry
from tnet.scripts.viewer.heat import kinds_of
from tnet.scripts.viewer.tiling import SIDE, Tiling


def told(entry: Entry, walk: Walk | None, pyramid: Pyramid | None, problem: str | None) -> Any:
    """Return all that the page shows, but for pixels.

    Args:
        entry: that is shown.
        walk: over it, if there is one.
        pyramid: its image, if it can be shown.
        problem: why it cannot.
    """
    frame = pyramid or walk
    assert frame is not None, "an entry has a walk or an image"
    tiling = Tiling(frame.width, frame.height)
    return {
        "id": entry.id,
        "title": entry.title,
        "width": frame.width,
        "height": frame.height,
        "tile": SIDE,
        "last_level": tiling.last_level,
        "metres": _metres(walk) or _metres(pyramid),  # the walk's may have been given by hand
        "format": None if pyramid is None else pyramid.format,
        "problem": problem,
        "notes": list(frame.notes if walk is None else walk.notes),
        "walk": None if walk is None else _walk(entry, walk),
    }


def _metres(frame: Pyramid | Walk | None) -> list[float] | None:
    """Return the sides of a pixel in metres, where they are known."""
    if frame is None:
        return None
    factor = METRES.get(frame.unit or "")
    if frame.spacing is None or factor is None:
        return None
    sides = [side * factor for side in frame.spacing]
    return sides if all(math.isfinite(side) and side > 0 for side in sides) else None


def _walk(entry: Entry, walk: Walk) -> dict[str, Any]:
    levels = sorted({glimpse.level for glimpse in walk.glimpses})
    insets = [entry.inset(index) for index in range(len(walk.glimpses))]
    title, colours = next((inset_texts(file) for file in insets if file is not None), ("", ""))
    return {
        "label": walk.label,
        "outcome": walk.outcome,
        "multilabel": walk.multilabel,
        "classes": list(walk.classes),
        "probabilities": [_number(value) for value in walk.probabilities],
        "logits": [_number(value) for value in walk.logits],
        "bias": list(walk.bias),
        "view": list(walk.view),
        "levels": [{"level": level, "colour": css(level_colour(level))} for level in levels],
        "glimpses": [
            _glimpse(glimpse) | {"inset": file is not None}
            for glimpse, file in zip(walk.glimpses, insets, strict=True)
        ],
        "insets": {"title": title or "attention", "colours": colours},
        "heat": kinds_of(walk),
        "additive": walk.additive or not walk.aggregate,
        "cost": {
            "glimpses": walk.looks,
            "pixels": walk.pixels,
            "share": walk.share,
            "seconds": walk.seconds,
        },
        "model": walk.model,
    }


def _glimpse(glimpse: Glimpse) -> dict[str, Any]:
    region = glimpse.region
    return {
        "level": glimpse.level,
        "region": [region.x, region.y, region.width, region.height],
        "parent": glimpse.parent,
        "probability": glimpse.probability,
        "weight": glimpse.weight,
        "contributions": list(glimpse.contributions),
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
