"""From flags to what the engine takes: numbers out of text, a changed plan, a fitting image."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from tnet.adapters import Limits, open_pyramid, rescale, select_bands
from tnet.adapters.limits import DEFAULT
from tnet.adapters.views import View, facts_of
from tnet.errors import DataError, UsageError, counted
from tnet.model import Input
from tnet.plan import Plan
from tnet.pyramid import Pyramid
from tnet.scripts.inputs import Source
from tnet.scripts.options import check_mpp

Number = TypeVar("Number", int, float)

_COLOUR = 3
_OTHER_SCALE = 1.5


@dataclass(frozen=True)
class Wishes:
    """What the user says of all images.

    Attributes:
        mpp: µm per px.
        bands: counted from 0.
        value_range: the values that become 0 and 255.
        limits: what a file may declare.
        remote: whether images are read over the network.
    """

    mpp: float | None
    bands: tuple[int, ...] | None
    value_range: tuple[float, float] | None
    limits: Limits = DEFAULT
    remote: bool = False


def wishes(
    *,
    mpp: float | None,
    bands: str | None,
    value_range: str | None,
    limits: Limits = DEFAULT,
    remote: bool = False,
) -> Wishes:
    """Read the flags that say how images are to be taken.

    Raises:
        UsageError: naming the flag that makes no sense.
    """
    check_mpp(mpp)
    chosen = (
        None if bands is None else _numbers("--bands", bands, int, "whole numbers, such as 4,3,2")
    )
    if chosen is not None and min(chosen) < 1:
        raise UsageError(f"--bands counts from 1, got {bands}")
    extent = None
    if value_range is not None:
        ends = _numbers("--range", value_range, float, "two numbers, such as 0,10000")
        if len(ends) != 2 or not ends[0] < ends[1]:
            raise UsageError(
                f"--range takes two numbers, the lower one first, such as 0,10000; "
                f"got {value_range!r}"
            )
        extent = (ends[0], ends[1])
    return Wishes(mpp, chosen and tuple(band - 1 for band in chosen), extent, limits, remote)


def changed_plan(
    plan: Plan,
    *,
    glimpses: str | None,
    until: str | None,
    background: str | None,
    snap: float | None = None,
) -> Plan:
    """Return the model's plan with what the flags change.

    Raises:
        UsageError: if a flag makes no sense, or does not fit the plan.
    """
    if glimpses is not None:
        plan = plan.with_glimpses(
            _numbers("--glimpses", glimpses, int, "whole numbers, such as 8,2,1")
        )
    if until is not None:
        plan = replace(plan, until=_depth(until))
    if background == "off":
        plan = replace(plan, background=None)
    elif background is not None:
        plan = replace(plan, background=_number("--background", background, "off or a fraction"))
    if snap is not None:
        plan = replace(plan, snap=snap)
    return plan


def opened(path: Source, wished: Wishes, expects: Input) -> Pyramid:
    """Open an image the way the user wishes it and the model needs it.

    Raises:
        DataError: if it cannot be opened, or does not fit the model; with the way out.
    """
    pyramid = open_pyramid(path, mpp=wished.mpp, limits=wished.limits, remote=wished.remote)
    try:
        return _fitted(pyramid, wished, expects)
    except BaseException:
        pyramid.close()
        raise


def _fitted(pyramid: Pyramid, wished: Wishes, expects: Input) -> Pyramid:
    if wished.bands is not None:
        if max(wished.bands) >= pyramid.bands:
            raise DataError(
                f"{pyramid.name} has {counted(pyramid.bands, 'band')}, and --bands asks for band "
                f"{max(wished.bands) + 1}"
            )
        pyramid = select_bands(pyramid, wished.bands)
    if wished.value_range is not None:
        pyramid = rescale(pyramid, *wished.value_range)
    notes = []
    if pyramid.bands == 1 and expects.bands == _COLOUR:
        pyramid = select_bands(pyramid, (0, 0, 0))
        notes.append("its one band is shown to the model three times")
    _check(pyramid, expects)
    notes += _scale_note(pyramid, expects)
    if not notes:
        return pyramid
    facts = facts_of(pyramid)
    return View(pyramid, replace(facts, notes=(*facts.notes, *notes)))


def _check(pyramid: Pyramid, expects: Input) -> None:
    """Say what to do where the model cannot take the image."""
    if pyramid.bands != expects.bands:
        some = ",".join(str(band + 1) for band in range(expects.bands))
        way_out = (
            f"choose them with --bands, such as --bands {some}"
            if pyramid.bands > expects.bands
            else "name another model"
        )
        raise DataError(
            f"{pyramid.name} has {counted(pyramid.bands, 'band')} and the model "
            f"expects {expects.bands}; {way_out}"
        )
    if pyramid.dtype != np.dtype(expects.dtype):
        way_out = (
            "map them with --range LOW,HIGH, which become 0 and 255"
            if expects.dtype == "uint8"
            else f"leave --range out, or convert the image to {expects.dtype}"
        )
        raise DataError(
            f"{pyramid.name} has pixels of {pyramid.dtype} and the model expects "
            f"{expects.dtype}; {way_out}"
        )


def _scale_note(pyramid: Pyramid, expects: Input) -> list[str]:
    if pyramid.mpp is None or expects.mpp is None:
        return []
    if not all(0 < side < math.inf for side in pyramid.mpp):
        x, y = pyramid.mpp
        return [f"its pixels cannot be {x:g} x {y:g} µm, as its file says; say with --mpp"]
    mine = math.sqrt(pyramid.mpp[0] * pyramid.mpp[1])
    if max(mine / expects.mpp, expects.mpp / mine) <= _OTHER_SCALE:
        return []
    said = f"its pixels are {mine:.3g} µm a side and the model learned from {expects.mpp:.3g} µm"
    return [f"{said}; expect worse results"]


def _numbers(flag: str, text: str, kind: Callable[[str], Number], what: str) -> tuple[Number, ...]:
    try:
        values = tuple(kind(part) for part in text.split(","))
        if not all(math.isfinite(value) for value in values):
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{flag} takes {what}, with commas between; got {text!r}") from error
    return values


def _depth(until: str) -> Literal["steps", "native"] | float:
    if until == "steps":
        return "steps"
    if until == "native":
        return "native"
    return _number("--until", until, "steps, native or a number of µm per px")


def _number(flag: str, text: str, choices: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{flag} takes {choices}, got {text!r}")
    return value
