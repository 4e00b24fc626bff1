"""Every glimpse of a walk as a card: what the model saw there, and what that was worth."""

from collections.abc import Sequence

import numpy as np

from tnet.adapters.exports.places import extent, unit_of_places
from tnet.adapters.footer import level_name
from tnet.geometry import Region
from tnet.maps import path_probabilities
from tnet.record import Walk
from tnet.scripts.markup import Html, embedded, joined, section, tag
from tnet.scripts.output import counted, percent
from tnet.scripts.report_drawing import badge
from tnet.scripts.report_pictures import Pictures, own_size

MOST = 120  # cards; the tables of `tnet export` hold all glimpses
_FEW = 128  # pixels; smaller pictures are shown with their pixels
_SHORT = {"metre": "m", "meter": "m", "degree": "\u00b0"}


def ranked(walk: Walk) -> list[int]:
    """Return the numbers of the glimpses, those that add most to the predicted class first.

    Without evidence, those of the largest weights. What the network did not look at is left out.
    """
    worth = worths(walk)
    looked = [i for i in range(len(walk.glimpses)) if i or walk.first_view != (0, 0)]
    return sorted(looked, key=lambda index: (-worth[index], index))


def worths(walk: Walk) -> list[float]:
    """Return what each glimpse adds to the predicted class's logit; without one, its weight."""
    if walk.label is None:
        return [glimpse.weight for glimpse in walk.glimpses]
    number = int(np.argmax(walk.probabilities))
    return [glimpse.contributions[number] for glimpse in walk.glimpses]


def glimpses_section(walk: Walk, order: Sequence[int], pictures: Pictures) -> Html:
    """Return all cards, those that say most first."""
    worth = worths(walk)
    most = max((abs(value) for value in worth), default=0.0) or 1.0
    paths = path_probabilities(walk)
    cards = [
        _card(walk, index, pictures, (worth[index], most, float(paths[index])))
        for index in order[:MOST]
    ]
    about = "Those that speak most for the answer come first. " + pictures.source
    left = len(order) - len(cards)
    if left > 0:
        about += f" {counted(left, 'more glimpse')}: `tnet export --to csv` lists all of them."
    if pictures.insets:
        about += f" The small pictures show what counts inside each ({pictures.inside})."
    return section(
        "Every glimpse",
        tag("p", about, class_="sub"),
        tag("div", *cards, class_="glimpses"),
    )


def _card(walk: Walk, index: int, pictures: Pictures, said: tuple[float, float, float]) -> Html:
    """Return one card; ``said`` are its worth, the largest worth, and its path's probability."""
    worth, most, path = said
    glimpse = walk.glimpses[index]
    name = f"Glimpse {index}" if index else "First look"
    head = tag("h3", badge(index, glimpse.level), name, tag("span", _where(walk, index)))
    facts = {
        "contribution": f"{worth:+.3f}".replace("-", "\u2212") if walk.label is not None else None,
        "weight": f"{percent(glimpse.weight)} %",
        "probability": f"{percent(glimpse.probability)} %" if index else None,
        "of its path": f"{percent(path)} %" if index else None,
        "place": _place(glimpse.region),
        "size": _size(glimpse.region),
        **_ground(walk, glimpse.region),
        "resolution": _resolution(walk, index),
    }
    pairs = [
        joined(tag("dt", term), tag("dd", text)) for term, text in facts.items() if text is not None
    ]
    return tag(
        "article",
        head,
        _shown(walk, index, pictures, name),
        _worth_bar(worth / most),
        tag("dl", *pairs),
        id=f"glimpse-{index}",
        class_="glimpse",
    )


def _where(walk: Walk, index: int) -> str:
    parent = walk.glimpses[index].parent
    if parent is None:
        return "whole image"
    above = f"inside glimpse {parent}" if parent else "inside the first look"
    return f"{level_name(walk.glimpses[index].level)}, {above}"


def _shown(walk: Walk, index: int, pictures: Pictures, name: str) -> Html:
    """Return a glimpse's picture, with its soft attention beside it."""
    shown = []
    wide, high = own_size(walk, index)
    pixels = "pixels" if max(wide, high) < _FEW else None
    if index in pictures.crops:
        source = embedded(pictures.crops[index], "jpeg")
        shown.append(tag("img", src=source, width=wide, height=high, alt=name, class_=pixels))
    else:
        shown.append(tag("span", "no picture", class_="none"))
    if index in pictures.insets:
        source = embedded(pictures.insets[index], "jpeg")
        shown.append(tag("img", src=source, alt=f"inside {name}", class_="inset"))
    return tag("div", *shown, class_="shown")


def _worth_bar(share: float) -> Html:
    """Draw how much a glimpse says for the answer, to the right, or against it, to the left."""
    middle, reach = 100, 98
    length = max(1.0, abs(share) * reach)
    return tag(
        "svg",
        tag("rect", x=0, y=3, width=200, height=2, class_="rule"),
        tag(
            "rect",
            x=middle if share >= 0 else middle - length,
            y=0,
            width=length,
            height=8,
            class_="for" if share >= 0 else "against",
        ),
        tag("rect", x=middle - 0.5, y=0, width=1, height=8, class_="middle"),
        viewBox="0 0 200 8",
        class_="worth",
        aria_hidden="true",
        preserveAspectRatio="none",
    )


def _place(region: Region) -> str:
    return f"x {region.x:,.0f}, y {region.y:,.0f} px"


def _size(region: Region) -> str:
    return f"{region.width:,.0f} \u00d7 {region.height:,.0f} px"


def _ground(walk: Walk, region: Region) -> dict[str, str]:
    """Return a region's place and size in the image's unit, or in its reference system."""
    found = extent(walk, region)
    if found is None:
        return {}
    x, y, wide, high = map(_long, found)
    unit = short(unit_of_places(walk))
    said = {"measures": f"{wide} \u00d7 {high} {unit}".rstrip()}
    if walk.transform is not None:
        said = {"corner": f"{x}, {y} {unit}".rstrip()} | said
    return said


def short(unit: str | None) -> str:
    """Return a unit as short as it is written."""
    return _SHORT.get(unit or "", unit or "")


def _long(value: float) -> str:
    """Return a length or a coordinate with the digits that count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _resolution(walk: Walk, index: int) -> str:
    """Return what a pixel of the view covers, of level 0 and on the ground."""
    view = walk.view if index or walk.first_view is None else walk.first_view
    scale = walk.glimpses[index].region.width / view[0]
    if walk.spacing is None or not walk.unit:
        return f"{scale:.3g} px of the image per px"
    return f"{scale * walk.spacing[0]:.3g} {short(walk.unit)}/px (level 0: {walk.spacing[0]:.3g})"
