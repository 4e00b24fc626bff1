"""Images of nothing but background: the network has no answer for them, and nothing to learn."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tnet.adapters import open_pyramid
from tnet.background import cell_shares, foreground
from tnet.datasets.abreast import side_by_side
from tnet.descent import root
from tnet.errors import DataError
from tnet.geometry import Grid
from tnet.scripts.output import counted
from tnet.tiling import tile_visits

if TYPE_CHECKING:
    from tnet.datasets.entries import Entry
    from tnet.plan import Plan
    from tnet.pyramid import Pyramid
    from tnet.scripts.parts import Parts

_HARDLY = 0.05  # of a small view: what shows more is looked at no closer


def is_blank(pyramid: "Pyramid", plan: "Plan") -> bool:
    """Say whether a walk would find nothing but background; the rule is that of the walk.

    Raises:
        DataError: if the image cannot be read.
    """
    if plan.background is None:
        return False
    if plan.tiles is not None:
        return tile_visits(pyramid, plan, 0)[1]
    region = root(pyramid, plan, 0).region
    step = plan.step(0)
    grid = step.grid(plan.rule) if step is not None and step.glimpses else Grid(8, 8, 1 / 8)
    view = pyramid.read(region, plan.view_at(0), resampling=plan.resampling)
    share = cell_shares(foreground(view, pyramid), region, grid).max()
    return bool(share < plan.background or share == 0)


def without_blanks(parts: "Parts", plan: "Plan") -> "Parts":
    """Return the parts of a training without images of nothing but background.

    Raises:
        DataError: if nothing is left to train on, or to measure on.
    """
    there = [*parts.train, *parts.val]
    hardly = [entry for entry in there if parts.facts[entry.row].shown < _HARDLY]

    def look(entry: "Entry") -> bool:
        with open_pyramid(entry.image, mpp=entry.mpp) as pyramid:
            return is_blank(pyramid, plan)

    found = np.array(side_by_side(look, hardly), dtype=bool)
    blank = tuple(entry for entry, empty in zip(hardly, found, strict=True) if empty)
    if not blank:
        return parts
    rows = {entry.row for entry in blank}
    train, val = (
        tuple(entry for entry in part if entry.row not in rows) for part in (parts.train, parts.val)
    )
    for part, use in ((train, "train"), (val, "validate")):
        if not part:
            raise DataError(
                f"{parts.manifest.path}: every image to {use} on shows nothing but background; "
                "if that is not so, say --set background=none"
            )
    only = len(blank) == 1
    note = (
        f"{counted(len(blank), 'image')} {'shows' if only else 'show'} nothing but background and "
        f"{'is' if only else 'are'} left out, the first in row {min(rows)}; tnet evaluate counts "
        "such images as wrong (background=none looks at them, too)"
    )
    gone = sorted(_classes(parts.train) - _classes(train))
    more = (f"so no image is left to learn {', '.join(gone)} from",) if gone else ()
    return replace(parts, train=train, val=val, blank=blank, notes=(*parts.notes, note, *more))


def _classes(entries: "tuple[Entry, ...]") -> set[str]:
    return {label for entry in entries for label in entry.labels}
