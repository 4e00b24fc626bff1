"""A walk over its image as SVG: boxes that lead to their glimpses, and the heat map.

The picture of the image is in the page once; every drawing uses it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from tnet.adapters.drawing import Box, Colour, css, is_light, level_colour
from tnet.adapters.exports.colours import Scale
from tnet.adapters.exports.heat import Heat
from tnet.adapters.footer import length_text, round_bar
from tnet.adapters.overlay import holds_number, number_spots
from tnet.geometry import Region
from tnet.record import Walk
from tnet.scripts.markup import Html, embedded, joined, tag
from tnet.scripts.report_pictures import MOST_GROUND, jpeg, png

SIDE = 1000  # units of a drawing's longer side
_HEAT_SIDE = 720  # pixels of a heat map's longer side
_RADIUS = 13.0  # of a number's disc
_TINY = 8.0  # a box with a shorter side gets a ring around it
_MOST_BOXES = 1000
_NUMBERED = 12  # glimpses whose numbers stand on the image
_BAR = (160, 12)  # pixels of the colours' legend


@dataclass(frozen=True)
class Sight:
    """A walk on a drawing.

    Attributes:
        walk: the record.
        order: numbers of the glimpses, those that say most first.
    """

    walk: Walk
    order: Sequence[int]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in units."""
        longest = max(self.walk.width, self.walk.height)
        return SIDE * self.walk.width / longest, SIDE * self.walk.height / longest

    def box(self, index: int) -> Region | None:
        """Return the part of a glimpse inside the image, in units; None where there is none."""
        walk = self.walk
        inside = walk.glimpses[index].region.intersection(Region(0, 0, walk.width, walk.height))
        if inside is None:
            return None
        scale = SIDE / max(walk.width, walk.height)
        return Region(*(v * scale for v in (inside.x, inside.y, inside.width, inside.height)))


def walk_drawing(sight: Sight, ground: Image.Image | None) -> Html:
    """Draw the image with all glimpses, deeper ones on top; each leads to its own numbers."""
    walk = sight.walk
    deeper = [i for i in range(len(walk.glimpses)) if i]
    deeper = sorted(deeper, key=lambda i: -walk.glimpses[i].weight)[:_MOST_BOXES]
    deeper.sort(key=lambda i: (walk.glimpses[i].level, walk.glimpses[i].weight))
    return _drawing(
        sight,
        "The image, and where the model looked",
        _ground(sight, ground),
        tag("use", href="#ground"),
        *(_frame(sight, index) for index in deeper),
        *_numbers(sight),
        _scale_bar(sight),
    )


def heat_figure(sight: Sight, heat: Heat) -> Html:
    """Draw a heat map over the image in grey, with what its colours mean.

    Where the model never looked there is no colour. Glimpses too small to show theirs are discs.
    """
    walk = sight.walk
    values = heat.map(walk, _heat_size(walk))
    scale, title = heat.scale(walk, values), heat.title(walk)
    wide, high = sight.size
    picture = tag(
        "image",
        href=embedded(png(scale.painted(values)), "png"),
        width=wide,
        height=high,
        preserveAspectRatio="none",
        class_="heat",
    )
    colours = scale.colours(heat.of_glimpses(walk, values))[: _MOST_BOXES + 1]
    drawing = _drawing(
        sight,
        title.capitalize(),
        tag("use", href="#ground", class_="pale"),
        picture,
        *(
            _disc(sight, index, (int(red), int(green), int(blue)))
            for index, (red, green, blue) in enumerate(colours)
            if index
        ),
        tag("rect", width=wide, height=high, class_="edge"),
    )
    return tag("figure", drawing, tag("figcaption", _heat_legend(scale, title)))


def _heat_legend(scale: Scale, title: str) -> Html:
    """Return the colours with their values and what they mean."""
    low, high = scale.ends()
    bar = embedded(png(scale.bar(*_BAR)), "png")
    return tag(
        "p",
        tag("span", low),
        tag("img", src=bar, width=_BAR[0], height=_BAR[1], alt="colours from low to high"),
        tag("span", high),
        tag("span", f"{title}, {scale.steps()}", class_="aside"),
        class_="legend",
    )


def level_legend(walk: Walk) -> Html:
    """Return the colours of the levels."""
    counts: dict[int, int] = {}
    for glimpse in walk.glimpses[1:]:
        counts[glimpse.level] = counts.get(glimpse.level, 0) + 1
    parts = [
        joined(_swatch(level), tag("span", f"level {level}: {count}"))
        for level, count in sorted(counts.items())
    ]
    return tag("p", *parts, class_="legend")


def badge(index: int, level: int) -> Html:
    """Return a glimpse's number in its level's colour."""
    return tag(
        "svg",
        tag("circle", cx=14, cy=14, r=13, fill=css(level_colour(level))),
        _number(str(index), 14, 19, level_colour(level)),
        viewBox="0 0 28 28",
        class_="badge",
        aria_hidden="true",
    )


def _swatch(level: int) -> Html:
    square = tag("rect", width=14, height=14, fill=css(level_colour(level)))
    return tag("svg", square, viewBox="0 0 14 14", class_="swatch", aria_hidden="true")


def _heat_size(walk: Walk) -> tuple[int, int]:
    scale = _HEAT_SIDE / max(walk.width, walk.height)
    return max(1, round(walk.width * scale)), max(1, round(walk.height * scale))


def _drawing(sight: Sight, title: str, *parts: Html | None) -> Html:
    wide, high = sight.size
    return tag(
        "svg",
        tag("title", title),
        *parts,
        viewBox=f"0 0 {wide:.1f} {high:.1f}",
        preserveAspectRatio="xMinYMin",
        role="img",
        aria_label=title,
        class_="drawing",
    )


def _ground(sight: Sight, ground: Image.Image | None) -> Html:
    """Define what lies under every drawing: the image, or plain grey."""
    wide, high = sight.size
    under = tag("rect", id="ground", width=wide, height=high, fill="#ececee")
    if ground is not None:
        under = tag(
            "image",
            id="ground",
            href=embedded(jpeg(ground, MOST_GROUND), "jpeg"),
            width=wide,
            height=high,
            preserveAspectRatio="none",
        )
    return tag("defs", under)


def _frame(sight: Sight, index: int) -> Html | None:
    """Draw a glimpse's box between dark lines, with a ring around one that is tiny."""
    box, level = sight.box(index), sight.walk.glimpses[index].level
    if box is None:
        return None
    place = {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
    shapes = [
        tag("rect", **place, class_="halo"),
        tag("rect", **place, class_="box", stroke=css(level_colour(level))),
    ]
    if max(box.width, box.height) < _TINY:
        ring = {"cx": box.x + box.width / 2, "cy": box.y + box.height / 2, "r": 1.25 * _TINY}
        shapes.append(tag("circle", **ring, class_="halo"))
        shapes.append(tag("circle", **ring, class_="box", stroke=css(level_colour(level))))
    about = tag("title", f"glimpse {index}, level {level}")
    return tag("a", about, *shapes, href=f"#glimpse-{index}")


def _numbers(sight: Sight) -> list[Html]:
    """Put numbers at the glimpses that say most, beside numbers that stand there already."""
    shown = [index for index in sight.order if index][:_NUMBERED]
    boxes = [_pixels(sight.box(index)) for index in shown]
    wide, high = sight.size
    panel = (0, 0, round(wide), round(high))
    lines, discs = [], []
    for index, box, spot in zip(shown, boxes, number_spots(boxes, _RADIUS, panel), strict=True):
        if box is None or spot is None:
            continue
        colour = level_colour(sight.walk.glimpses[index].level)
        x, y = spot
        if not holds_number(box, _RADIUS):
            ends = {"x1": x, "y1": y, "x2": (box[0] + box[2]) / 2, "y2": (box[1] + box[3]) / 2}
            lines.append(tag("line", **ends, class_="halo"))
            lines.append(tag("line", **ends, class_="box", stroke=css(colour)))
        disc = tag("circle", cx=x, cy=y, r=_RADIUS, fill=css(colour), class_="number")
        text = _number(str(index), x, y + 5, colour)
        discs.append(tag("a", disc, text, href=f"#glimpse-{index}"))
    return [*lines, *reversed(discs)]


def _pixels(box: Region | None) -> Box | None:
    if box is None:
        return None
    return round(box.x), round(box.y), round(box.right), round(box.bottom)


def _number(text: str, x: float, y: float, ground: Colour) -> Html:
    return tag("text", text, x=x, y=y, class_="dark" if is_light(ground) else "light")


def _disc(sight: Sight, index: int, colour: Colour) -> Html | None:
    """Draw what a heat map is too coarse to show."""
    box = sight.box(index)
    if box is None or max(box.width, box.height) >= 3 * _TINY:
        return None
    return tag(
        "circle",
        tag("title", f"glimpse {index}"),
        cx=box.x + box.width / 2,
        cy=box.y + box.height / 2,
        r=0.75 * _TINY,
        fill=css(colour),
        stroke=css(level_colour(sight.walk.glimpses[index].level)),
        class_="disc",
    )


def _scale_bar(sight: Sight) -> Html | None:
    """Draw a bar of a round length at the lower left, where the size of a pixel is known."""
    bar = round_bar(sight.walk, 1 / 5)
    if bar is None:
        return None
    length, share = bar
    wide, high = sight.size
    across = share * wide
    return tag(
        "g",
        tag("rect", x=14, y=high - 46, width=across + 20, height=34, rx=4, class_="plate"),
        tag("rect", x=24, y=high - 22, width=across, height=4, class_="bar-scale"),
        tag("text", length_text(length), x=24 + across / 2, y=high - 27, class_="scale"),
    )
