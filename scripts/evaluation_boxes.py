"""Whether a walk found what was drawn around: hits and recall, level by level."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tnet.geometry import Region
    from tnet.record import Walk
    from tnet.scripts.evaluation import Seen


def found(walk: "Walk", boxes: "Sequence[Region]") -> tuple[int, ...]:
    """Return, of each level below the first look, how many boxes' centres a glimpse holds."""
    deepest = max((glimpse.level for glimpse in walk.glimpses), default=0)
    counts = []
    for level in range(1, deepest + 1):
        regions = [glimpse.region for glimpse in walk.glimpses if glimpse.level == level]
        counts.append(sum(any(_holds(region, box) for region in regions) for box in boxes))
    return tuple(counts)


def _holds(region: "Region", box: "Region") -> bool:
    x, y = box.x + box.width / 2, box.y + box.height / 2
    return region.x <= x < region.right and region.y <= y < region.bottom


def localisation_of(seen: "Sequence[Seen]") -> dict[str, Any] | None:
    """Return how well boxes were found, None where there are none to find or no level to.

    Returns:
        ``images`` and ``boxes`` count; ``hit`` is the share of the images of which a glimpse of
        the last level held a box's centre; ``recall`` the share of all boxes, level by level.
    """
    told = [one for one in seen if one.hit is not None]
    if not told:
        return None
    boxes = sum(one.boxes for one in told)
    deepest = max(len(one.found) for one in told)
    # A walk that ended early found nothing further down.
    counts = [
        sum(one.found[level] for one in told if level < len(one.found)) for level in range(deepest)
    ]
    return {
        "images": len(told),
        "boxes": boxes,
        "hit": sum(bool(one.hit) for one in told) / len(told),
        "recall": {str(level): count / boxes for level, count in enumerate(counts, 1)},
    }
