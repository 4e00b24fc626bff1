"""Figures of a report as SVG: accuracy against glimpses, and claimed against true probability.

Colours come from the style sheet, through classes, so that the page decides how they print.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.scripts.evaluation_report import steps_text
from tnet.scripts.markup import Html, joined, tag

_WIDTH, _HEIGHT = 620, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 24, 24, 64
_COUNTS = 70  # height of the bars that count
_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def curve_figure(points: Sequence[Mapping[str, Any]], majority: float | None) -> Html:
    """Draw accuracy against glimpses, with intervals; a dashed line is the commonest class.

    Args:
        points: as ``evaluation_report.curve_point`` makes them.
        majority: accuracy of always giving the same answer.
    """
    known = [point for point in points if point["accuracy"] is not None]
    passes = [point["glimpses"] for point in known]
    # Twice as many glimpses are as far to the right everywhere.
    ends = math.log2(min(passes)) - 0.6, math.log2(max(passes)) + 0.3

    def x(glimpses: float) -> float:
        share = (math.log2(glimpses) - ends[0]) / (ends[1] - ends[0])
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    y = _vertical(_HEIGHT)
    marks = [_mark(point, x(point["glimpses"]), y) for point in known]
    path = " ".join(f"{x(point['glimpses']):.1f},{y(point['accuracy']):.1f}" for point in known)
    return _figure(
        "Accuracy against glimpses",
        _HEIGHT,
        _axes(_HEIGHT, y, "accuracy"),
        _baseline(majority, y),
        tag("polyline", points=path, class_="line"),
        *marks,
        *_numbers([(x(count), _short(count)) for count in passes], _HEIGHT),
        _under("views that went through the network, an image", _HEIGHT),
    )


def _mark(point: Mapping[str, Any], x: float, y: Callable[[float], float]) -> Html:
    """Draw one point of the curve with its interval, and its glimpses when pointed at."""
    steps = steps_text(point["steps"])
    span = point["intervals"]["accuracy"]
    whisker = None
    if span is not None:
        whisker = tag("line", x1=x, x2=x, y1=y(span[0]), y2=y(span[1]), class_="whisker")
    height = y(point["accuracy"])
    return tag(
        "g",
        tag("title", f"{steps}: {point['accuracy']:.3f}"),
        whisker,
        tag("circle", cx=x, cy=height, r=6, class_="point" if point["factor"] != 1 else "own"),
        tag(
            "text",
            f"{point['accuracy']:.2f}",
            x=x - 9,
            y=height - 10,
            text_anchor="end",
            class_="value",
        ),
    )


def _baseline(majority: float | None, y: Callable[[float], float]) -> Html | None:
    if majority is None:
        return None
    at = y(majority)
    return joined(
        tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at, y2=at, class_="dashed"),
        tag(
            "text",
            "always the commonest class",
            x=_WIDTH - _RIGHT,
            y=at - 6,
            text_anchor="end",
            class_="aside",
        ),
    )


def reliability_figure(bins: Sequence[Mapping[str, Any]]) -> Html:
    """Draw how often a claimed probability came true, and below how often it was claimed.

    Args:
        bins: as ``datasets.metrics.reliability`` returns them.
    """
    height = _HEIGHT + _COUNTS
    y = _vertical(_HEIGHT)
    most = max((row["count"] for row in bins), default=0) or 1
    drawn = [_bin(row, y, most, height) for row in bins if row["count"]]
    return _figure(
        "Claimed and true probability",
        height,
        _axes(_HEIGHT, y, "came true"),
        tag("line", x1=_across(0), x2=_across(1), y1=y(0), y2=y(1), class_="dashed"),
        *drawn,
        *_numbers([(_across(tick), f"{tick:g}") for tick in _TICKS], _HEIGHT),
        _under("claimed probability; bars below count the claims", height),
    )


def _bin(row: Mapping[str, Any], y: Callable[[float], float], most: int, height: int) -> Html:
    left, right = _across(row["low"]) + 1, _across(row["high"]) - 1
    high = max(1.0, row["count"] / most * (_COUNTS - 24))
    about = f"{row['count']} claims of {row['claimed']:.3f} on average; true: {row['true']:.3f}"
    return tag(
        "g",
        tag("title", about),
        tag(
            "rect",
            x=left,
            y=y(row["true"]),
            width=right - left,
            height=y(0) - y(row["true"]),
            class_="bar",
        ),
        tag("circle", cx=_across(row["claimed"]), cy=y(row["true"]), r=4, class_="point"),
        tag(
            "rect",
            x=left,
            y=height - 34 - high,
            width=right - left,
            height=high,
            class_="count",
        ),
    )


def removal_figure(
    title: str, what: str, curve_N: NDArray[np.float64], controls_CN: NDArray[np.float64]
) -> Html:
    """Draw how a probability changes glimpse by glimpse, beside what random orders do.

    Args:
        title: of the figure.
        what: the probability's name, for the axis.
        curve_N: after 0, 1, ... of the glimpses.
        controls_CN: the same for random orders; their mean is dashed.
    """
    y = _vertical(_HEIGHT)
    last = max(len(curve_N) - 1, 1)

    def line(values_N: NDArray[np.float64], class_: str) -> Html:
        points = (f"{_across(i / last):.1f},{y(value):.1f}" for i, value in enumerate(values_N))
        return tag("polyline", points=" ".join(points), class_=class_)

    ticks = sorted({0, last // 4, last // 2, last * 3 // 4, last})
    return _figure(
        title,
        _HEIGHT,
        _axes(_HEIGHT, y, what),
        *(line(values_N, "random") for values_N in controls_CN),
        line(controls_CN.mean(axis=0), "mean"),
        line(curve_N, "line"),
        *_numbers([(_across(tick / last), str(tick)) for tick in ticks], _HEIGHT),
        _under("glimpses; dashed is the mean of random orders", _HEIGHT),
    )


def _across(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _vertical(height: int) -> Callable[[float], float]:
    """Return where a share from 0 to 1 stands."""
    return lambda share: height - _BOTTOM - share * (height - _TOP - _BOTTOM)


def _axes(height: int, y: Callable[[float], float], name: str) -> Html:
    """Draw lines across at every tick, with their numbers, and the axis' name."""
    lines = []
    for tick in _TICKS:
        at = y(tick)
        lines.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at, y2=at, class_="grid"))
        lines.append(tag("text", f"{tick:g}", x=_LEFT - 10, y=at + 5, text_anchor="end"))
    middle = (y(0) + y(1)) / 2
    turned = f"rotate(-90 16 {middle:.1f})"
    about = tag("text", name, x=16, y=middle, text_anchor="middle", transform=turned)
    return joined(*lines, about)


def _numbers(places: Sequence[tuple[float, str]], height: int) -> list[Html]:
    return [
        tag("text", text, x=x, y=height - _BOTTOM + 22, text_anchor="middle") for x, text in places
    ]


def _under(text: str, height: int) -> Html:
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return tag("text", text, x=middle, y=height - 10, text_anchor="middle")


def _short(count: float) -> str:
    return f"{count:.0f}" if count >= 10 or count == round(count) else f"{count:.1f}"


def _figure(title: str, height: int, *parts: Html | None) -> Html:
    return tag(
        "svg",
        tag("title", title),
        *parts,
        viewBox=f"0 0 {_WIDTH} {height}",
        role="img",
        aria_label=title,
        xmlns="http://www.w3.org/2000/svg",
    )
