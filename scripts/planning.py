"""From the sizes of images to a plan, and from a plan to what it costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, cast

from tnet.errors import DataError, UsageError
from tnet.plan import Plan, Step
from tnet.scripts.config import Config
from tnet.scripts.output import counted

if TYPE_CHECKING:
    from tnet.datasets.checking import ImageFacts

_GLIMPSES = (8, 2, 1)  # level by level, where nothing is said; further levels have one
_OF_PLAN = (
    *("model", "glimpses", "view", "first_view", "zoom", "overlap", "finest", "finest_mpp"),
    *("aspect", "background", "snap"),
)
_MOST_SIDE = 64  # candidates along a side
_BARELY_LARGER = 1.25  # than a view: nothing to zoom into
_ABSURD = 8  # times finer than the pixels there are, or coarser than the whole image


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the plan needs to know of the images.

    Attributes:
        side: the median over the images of the root of their area, in pixels of level 0.
        pixels: the median number of pixels.
        mpp: the median µm per px of level 0; None where an image does not know it.
        largest: the longest side of any image in µm; 0 where an image does not know its scale.
        unscaled: names of images that do not know it.
    """

    side: float
    pixels: float
    mpp: float | None = None
    largest: float = 0.0
    unscaled: tuple[str, ...] = ()


def sizes_of(facts: "Sequence[ImageFacts]", names: Sequence[str], mpp: float | None) -> Sizes:
    """Return the medians of the images' sizes.

    Args:
        facts: of each image.
        names: of each image, for messages.
        mpp: of all images, instead of what the files say.
    """
    pixels = median(fact.width * fact.height for fact in facts)
    scales = [mpp or fact.mpp for fact in facts]
    unscaled = tuple(name for name, scale in zip(names, scales, strict=True) if not scale)
    known = [scale for scale in scales if scale]
    if unscaled:
        return Sizes(math.sqrt(pixels), pixels, unscaled=unscaled)
    sides = [max(fact.width, fact.height) for fact in facts]
    largest = max(side * scale for side, scale in zip(sides, known, strict=True))
    return Sizes(math.sqrt(pixels), pixels, median(known), largest)


def plan_for(config: Config, sizes: Sizes, base: Plan) -> Plan:
    """Return the plan of a training.

    The whole zoom, from an image that fits a view to the finest pixels, is spread evenly over
    as few steps as keep each at ``zoom`` at most, or over as many as there are numbers of
    glimpses. Candidates overlap, so that nothing lies on a border of all of them.

    Args:
        config: the training's.
        sizes: of the images.
        base: the recipe's plan, for what the configuration says nothing of.

    Raises:
        UsageError: if the numbers do not fit each other.
        DataError: if the plan is in µm and an image does not know its scale.
    """
    view = base.view if config.view is None else (config.view, config.view)
    first = base.first_view
    if config.first_view is not None:
        first = (config.first_view, config.first_view)
    plan = replace(
        base,
        view=view,
        first_view=None if first == view else first,
        steps=(),
        until="steps",
        tiles=None,
        aspect=cast(Any, config.aspect) or base.aspect,
        background=config.background,
        snap=config.snap,
        policy="uniform" if config.model == "random" else "greedy",
    )
    if config.model == "thumbnail":
        return replace(plan, background=None)
    if config.model == "tiles":
        return replace(plan, tiles=_tiles(config, sizes), first_view=None)
    if base.rule == "official" and base.steps:
        # Their grids belong to their taps of the map.
        official = replace(plan, steps=base.steps, background=base.background)
        return official.with_glimpses(config.glimpses) if config.glimpses else official
    steps = _steps(config, sizes, plan)
    if config.finest_mpp is None or not steps:
        return replace(plan, steps=steps)
    return replace(plan, steps=steps, until=config.finest_mpp)


def says_plan(config: Config) -> bool:
    """Say whether a configuration speaks of the plan, so that a model's own is not kept."""
    usual = Config()
    return any(getattr(config, name) != getattr(usual, name) for name in _OF_PLAN)


def _tiles(config: Config, sizes: Sizes) -> 'float | Literal["native"]':
    if config.tiles == "native":
        return "native"
    try:
        scale = float(config.tiles)
    except ValueError as error:
        raise UsageError(
            f"tiles must be native or a number of µm per px, got {config.tiles!r}"
        ) from error
    _need_scale(sizes, "tiles")
    return scale


def _need_scale(sizes: Sizes, key: str) -> float:
    if sizes.mpp is None:
        some = ", ".join(sizes.unscaled[:3])
        more = f" and {len(sizes.unscaled) - 3} more" if len(sizes.unscaled) > 3 else ""
        count = counted(len(sizes.unscaled), "image")
        raise DataError(
            f"{key} is in µm, and the scale of {count} is unknown: {some}{more}; add a column mpp "
            "to the table, or say --set mpp=0.5"
        )
    return sizes.mpp


def _steps(config: Config, sizes: Sizes, plan: Plan) -> tuple[Step, ...]:
    """Return the steps down, each with its grid and its glimpses."""
    view = plan.view[0]
    zoom = sizes.side / (view * config.finest)
    if config.finest_mpp is not None:
        _need_scale(sizes, "finest_mpp")
        # Of the largest image: smaller ones are fine enough before the last step.
        zoom = sizes.largest / (view * config.finest_mpp)
    # A larger first look sees more by itself, and its candidates are smaller parts of it.
    ahead = plan.view_at(0)[0] / view
    zoom /= ahead
    if config.glimpses is None and zoom < _BARELY_LARGER:
        return ()
    if config.glimpses is None:
        count = max(1, math.ceil(math.log(zoom) / math.log(config.zoom) - 1e-9))
    else:
        count = len(config.glimpses)
    each = max(zoom, _BARELY_LARGER) ** (1 / max(count, 1))
    steps = []
    for level in range(count):
        patch = 1 / (each * ahead) if level == 0 else 1 / each
        side = _candidates(patch, config.overlap)
        if config.glimpses is None:
            wanted = min(_GLIMPSES[level] if level < len(_GLIMPSES) else 1, side * side)
        else:
            wanted = config.glimpses[level]
        # Not rounded: candidates of whole pixels are to lie on whole pixels, and need no filter.
        steps.append(Step(side, side, patch, wanted))
    return tuple(steps)


def _candidates(patch: float, overlap: float) -> int:
    """Return how many candidates along a side make neighbours overlap by a share."""
    # The first starts at one border and the last ends at the other.
    count = math.ceil((1 - patch) / (patch * (1 - overlap)) - 1e-9) + 1
    return min(max(count, 2), _MOST_SIDE)


def looks(plan: Plan, sizes: Sizes) -> int:
    """Return about how many views of an image the plan looks at."""
    if plan.tiles is not None:
        scale = _finest(plan, sizes)
        return max(1, math.ceil(sizes.pixels / (plan.view[0] * plan.view[1] * scale**2)))
    total = front = 1
    for step in plan.steps:
        front *= step.glimpses
        total += front
    return total


def odd_plan(plan: Plan, config: Config, sizes: Sizes) -> list[str]:
    """Say what of a plan can hardly be meant: views much finer or coarser than the images are."""
    shown = _finest(plan, sizes)
    asked = config.finest_mpp if plan.tiles is None else plan.tiles
    way_out = ""
    if isinstance(asked, float) and sizes.mpp is not None:
        way_out = (
            f"; {asked:g} µm per pixel are asked for and the images have {sizes.mpp:g}: is the "
            "mpp of the table or the files right?"
        )
    if shown < 1 / _ABSURD:
        what = "tiles" if plan.tiles is not None else "last views"
        return [f"the {what} enlarge the image's own pixels {1 / shown:,.0f} times{way_out}"]
    whole = sizes.side / plan.view_at(0)[0]
    wanted = shown if plan.tiles is not None else config.finest
    if plan.tiles is None and config.finest_mpp is not None and sizes.mpp is not None:
        wanted = config.finest_mpp / sizes.mpp
    if wanted > _ABSURD * max(whole, 1):
        said = f"the finest view is to show {wanted:,.0f} image pixels a pixel, and the whole image"
        return [f"{said} at once shows {whole:,.2g}: there is nothing to zoom into{way_out}"]
    return []


def _finest(plan: Plan, sizes: Sizes) -> float:
    """Return how many image pixels a pixel of the finest views shows, of a median image."""
    if plan.tiles is not None:
        return 1.0 if plan.tiles == "native" or not sizes.mpp else float(plan.tiles) / sizes.mpp
    if not plan.steps:
        return 1.0  # one look at the whole image, small or large
    shown = sizes.side
    for step in plan.steps:
        shown *= step.patch
    return shown / plan.view[0]


def shown_plan(plan: Plan, sizes: Sizes) -> list[str]:
    """Return lines that say how the plan walks an image of the median size."""
    width, height = plan.view
    if plan.tiles is not None:
        scale = "native scale" if plan.tiles == "native" else f"{plan.tiles:g} µm per px"
        count = looks(plan, sizes)
        return [f"all tiles of {width} x {height} px with foreground at {scale}: about {count:,}"]
    first = plan.first_view or plan.view
    lines = [f"first look: the whole image at {first[0]} x {first[1]} px"]
    shown = sizes.side
    for level, step in enumerate(plan.steps, start=1):
        shown *= step.patch
        wide = f"{shown:,.0f}" if shown >= 1 else f"{shown:.2g}"
        lines.append(
            f"level {level}: {step.glimpses} of {step.rows} x {step.columns} candidates of each "
            f"view, {wide} px wide, at {shown / width:.2g} image px per pixel"
        )
    count = looks(plan, sizes)
    seen = (count - 1) * width * height + first[0] * first[1]
    share = min(100.0, 100 * seen / sizes.pixels)
    lines.append(
        f"{count} look{'s'[: count > 1]} at an image: {share:.3g} % as many pixels as a median "
        f"image has ({sizes.pixels / 1e6:,.3g} megapixels)"
    )
    return lines
