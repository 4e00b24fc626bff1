"""A walk as a notebook shows it: where it looked, drawn, and what that was worth, as a table.

Plain HTML and SVG of the record alone, without scripts; every text of the record is escaped.
"""

from html import escape
from typing import TYPE_CHECKING

from tnet.glimpse import Glimpse

if TYPE_CHECKING:
    from tnet.record import Walk

_SIDE = 320  # longer side of the drawing, in pixels
_MOST_ROWS = 12
_MOST_BOXES = 2000
_COLOURS = ("#787878", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2")


def html_of(walk: "Walk") -> str:
    """Return a walk as a piece of HTML: the drawing, the answer, and the weightiest glimpses."""
    said = escape(walk.label or walk.outcome)
    if walk.confidence is not None:
        said += f" {walk.confidence:.1%}"
    cost = f"{walk.looks} glimpses, {walk.share * 100:.2g} % of {walk.width} x {walk.height} pixels"
    return (
        '<div style="display:flex;gap:16px;flex-wrap:wrap;align-items:flex-start">'
        f"{_drawing(walk)}<div><b>{said}</b><br>{escape(walk.image)}<br>{cost}{_table(walk)}</div>"
        "</div>"
    )


def _drawing(walk: "Walk") -> str:
    """Return the image's outline with the glimpses in it, deeper ones on top."""
    scale = _SIDE / max(walk.width, walk.height)
    width, height = max(1.0, walk.width * scale), max(1.0, walk.height * scale)
    deeper = sorted(walk.glimpses[1:], key=lambda glimpse: (glimpse.level, glimpse.weight))
    boxes = "".join(_box(glimpse, scale) for glimpse in deeper[-_MOST_BOXES:])
    return (
        f'<svg width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.2f} {height:.2f}" '
        'role="img" aria-label="where the model looked">'
        f'<rect width="{width:.2f}" height="{height:.2f}" fill="#f2f2f2" stroke="#787878"/>'
        f"{boxes}</svg>"
    )


def _box(glimpse: Glimpse, scale: float) -> str:
    region = glimpse.region
    colour = _COLOURS[glimpse.level % len(_COLOURS)]
    # What would be less than two pixels could not be seen.
    wide, high = max(2.0, region.width * scale), max(2.0, region.height * scale)
    x, y = (region.x + region.width / 2) * scale, (region.y + region.height / 2) * scale
    return (
        f'<rect x="{x - wide / 2:.2f}" y="{y - high / 2:.2f}" width="{wide:.2f}" '
        f'height="{high:.2f}" fill="{colour}" fill-opacity="0.15" stroke="{colour}"/>'
    )


def _table(walk: "Walk") -> str:
    """Return the glimpses that say most for the predicted class, or weigh most, as rows."""
    number = None if walk.label is None else walk.classes.index(walk.label)

    def worth(index: int) -> float:
        glimpse = walk.glimpses[index]
        return glimpse.weight if number is None else glimpse.contributions[number]

    order = sorted(range(len(walk.glimpses)), key=lambda index: (-worth(index), index))
    heads = ["glimpse", "level", "x", "y", "width", "height", "probability", "weight"]
    heads += [] if walk.label is None else [f"for {walk.label}"]
    lines = []
    for index in order[:_MOST_ROWS]:
        glimpse = walk.glimpses[index]
        region = glimpse.region
        cells = [str(index), str(glimpse.level)]
        cells += [f"{v:.0f}" for v in (region.x, region.y, region.width, region.height)]
        cells += [f"{glimpse.probability:.3g}", f"{glimpse.weight:.3g}"]
        cells += [] if number is None else [f"{glimpse.contributions[number]:+.3f}"]
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    left = len(walk.glimpses) - len(lines)
    more = f"and {left} more" if left > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
