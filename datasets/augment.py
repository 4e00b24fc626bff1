"""Augmentation around the pyramid: one draw an image and epoch, the same for all its glimpses.

A flipped, cropped or recoloured image is a pyramid around a pyramid: the walk reads it as it reads
any other, and only what is looked at is ever changed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng
from numpy.typing import NDArray

from tnet.adapters import crop
from tnet.adapters.views import View, facts_of
from tnet.datasets.colour import Colours, recolour
from tnet.datasets.symmetry import Symmetry, turn
from tnet.errors import UsageError
from tnet.geometry import Region
from tnet.pyramid import Pyramid

Name = Literal["none", "light", "slide", "scene", "strong"]

_SWITCHES = ("flips", "rotate")


@dataclass(frozen=True)
class Augment:
    """How far an image may be changed; each number is the most that is drawn, either way.

    Attributes:
        flips: whether left and right, and top and bottom, may change places.
        rotate: whether the image may be turned by quarters; with flips, all eight symmetries.
        crop: least share of the image's area that is kept; 1 keeps all.
        shift: how far the image moves, as a share of its side; what comes in is background.
        brightness: what is added, as a share of the values' range.
        contrast: share by which values move away from the data's mean.
        saturation: share by which colours move away from grey; three bands alone.
        hue: turn of the colour circle, at most 0.5; three bands alone.
        stain: share by which haematoxylin and eosin grow or shrink, and what is added to their
            density; three bands alone.
        blur: standard deviation in pixels of the view, drawn from 0 on.
        noise: standard deviation as a share of the values' range, drawn from 0 on.

    Raises:
        UsageError: if a number makes no sense.
    """

    flips: bool = False
    rotate: bool = False
    crop: float = 1.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    stain: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        most = {"hue": 0.5, "blur": 10.0}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _SWITCHES:
                if not isinstance(value, bool):
                    raise UsageError(f"augment: {field.name} must be true or false, got {value!r}")
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"augment: {field.name} must be a number, got {value!r}")
            high = most.get(field.name, 1.0)
            low = 0.01 if field.name == "crop" else 0.0
            if not low <= value <= high:
                raise UsageError(
                    f"augment: {field.name} must be from {low:g} to {high:g}, got {value!r}"
                )

    @classmethod
    def named(cls, name: str) -> "Augment":
        """Return a usual one: none, light, slide (H&E), scene (seen from above) or strong.

        Raises:
            UsageError: if there is none of that name.
        """
        if name not in _NAMED:
            raise UsageError(f"augment must be one of {', '.join(get_args(Name))}, got {name!r}")
        return _NAMED[name]

    def but(self, changes: Mapping[str, Any]) -> "Augment":
        """Return the same with other numbers: {"shift": 0.1}.

        Raises:
            UsageError: if there is no such number, or one makes no sense.
        """
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise UsageError(f"augment: there is no {name!r}, only {', '.join(known)}")
        return replace(self, **changes)


_NAMED = {
    "none": Augment(),
    "light": Augment(flips=True, shift=0.02, brightness=0.05, contrast=0.05),
    "slide": Augment(
        flips=True, rotate=True, crop=0.8, shift=0.05, brightness=0.05, contrast=0.1,
        saturation=0.1, hue=0.02, stain=0.1, blur=0.5, noise=0.01,
    ),
    "scene": Augment(
        flips=True, rotate=True, crop=0.8, shift=0.05, brightness=0.1, contrast=0.15,
        saturation=0.15, hue=0.02, noise=0.01,
    ),
    "strong": Augment(
        flips=True, rotate=True, crop=0.6, shift=0.1, brightness=0.2, contrast=0.3,
        saturation=0.3, hue=0.05, stain=0.2, blur=1.0, noise=0.015,
    ),
}  # fmt: skip


class Augmented(View):
    """What ``augmented`` makes: it knows where the original image went.

    Attributes:
        part: what of the original is shown, in its pixels of level 0.
        symmetry: how the part is turned.
    """

    def __init__(
        self, pyramid: Pyramid, part: Region | None, symmetry: Symmetry, shown: Pyramid
    ) -> None:
        super().__init__(shown, facts_of(shown))
        self.part = part or Region(0, 0, pyramid.width, pyramid.height)
        self.symmetry = symmetry


def augmented(
    pyramid: Pyramid,
    augment: Augment,
    seed: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    boxes: Sequence[Region] = (),
) -> Pyramid:
    """Return an image changed by one draw; closing it closes the original.

    Args:
        pyramid: the image.
        augment: how far it may be changed.
        seed: of the draw, see :func:`draw_seed`.
        mean: of each band of the data, in units of the pixels; contrast is around it.
        std: likewise; for values that are no bytes it says what their range is.
        boxes: regions of the original that a crop must not cut away, where it can help it.
    """
    chance = default_rng(seed)
    # All is drawn, wanted or not: what is switched on changes nothing of the rest.
    symmetry = _symmetry(augment, chance.random(3))
    part = _part(pyramid, augment, chance.random(5), boxes)
    colours = _colours(augment, chance, seed)
    shown = pyramid if part is None else crop(pyramid, part)
    shown = recolour(turn(shown, symmetry), colours, mean, std)
    return pyramid if shown is pyramid else Augmented(pyramid, part, symmetry, shown)


def mapped_boxes(pyramid: Pyramid, boxes: Sequence[Region]) -> tuple[Region, ...]:
    """Return boxes of the original image in pixels of what ``augmented`` made of it.

    They are cut at its border; those that lie beyond are left out.
    """
    if not isinstance(pyramid, Augmented):
        return tuple(boxes)
    part = pyramid.part
    seen = (box.intersection(part) for box in boxes)
    return tuple(
        pyramid.symmetry.forth(
            Region(box.x - part.x, box.y - part.y, box.width, box.height), part.width, part.height
        )
        for box in seen
        if box is not None
    )


def draw_seed(seed: int, epoch: int, index: int) -> int:
    """Return the seed of an image's draw in an epoch: 32 bits, whoever asks and in what order."""
    return int(SeedSequence([seed % 2**63, epoch, index]).generate_state(1)[0])


def _symmetry(augment: Augment, drawn: NDArray[np.float64]) -> Symmetry:
    first, second, third = (bool(number < 0.5) for number in drawn)
    if augment.flips and augment.rotate:
        return Symmetry(first, second, third)
    if augment.rotate:  # a quarter turn is a swap and one flip, half a turn both flips
        return Symmetry(first, second, second != first)
    return Symmetry(False, second, third) if augment.flips else Symmetry()


def _part(
    pyramid: Pyramid,
    augment: Augment,
    drawn: NDArray[np.float64],
    boxes: Sequence[Region],
) -> Region | None:
    """Return what of the image is shown, in whole pixels; None for all of it."""
    share = math.sqrt(1 - (1 - augment.crop) * float(drawn[0]))
    x, width = _span(
        pyramid.width,
        share,
        (float(drawn[1]), augment.shift * (2 * float(drawn[2]) - 1)),
        [(box.x, box.right) for box in boxes],
    )
    y, height = _span(
        pyramid.height,
        share,
        (float(drawn[3]), augment.shift * (2 * float(drawn[4]) - 1)),
        [(box.y, box.bottom) for box in boxes],
    )
    if (x, y, width, height) == (0, 0, pyramid.width, pyramid.height):
        return None
    return Region(x, y, width, height)


def _span(
    side: int, share: float, places: tuple[float, float], held: Sequence[tuple[float, float]]
) -> tuple[int, int]:
    """Return start and length along one axis.

    Args:
        side: of the image.
        share: of it that is kept.
        places: where the kept part lies, from 0 to 1, and how far it moves, as a share of the side.
        held: what must stay inside, begin and end each; cut at the border of the image.
    """
    begin = max(0.0, min((a for a, _ in held), default=side))
    end = min(float(side), max((b for _, b in held), default=0))
    length = min(side, max(1, round(side * share), math.ceil(end) - math.floor(begin)))
    start = round((side - length) * places[0] + side * places[1])
    if held:
        start = min(max(start, math.ceil(end) - length), math.floor(begin))
    return start, length


def _colours(augment: Augment, chance: Generator, seed: int) -> Colours:
    either = chance.uniform(-1, 1, 4)
    stains = chance.uniform(-1, 1, (3, 2))
    above = chance.random(2)
    return Colours(
        brightness=float(augment.brightness * either[0]),
        contrast=float(augment.contrast * either[1]),
        saturation=float(augment.saturation * either[2]),
        hue=float(augment.hue * either[3]),
        stain=tuple((float(a), float(b)) for a, b in augment.stain * stains)
        if augment.stain
        else (),
        blur=float(augment.blur * above[0]),
        noise=float(augment.noise * above[1]),
        seed=seed,
    )
