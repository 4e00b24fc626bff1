"""Procedural tissue for the synthetic slides: seamless textures, nuclei and the small objects.

Everything is drawn from random numbers, no picture is read. Colours are R, G, B from 0 to 255,
lengths are pixels of the full resolution, arrays are (y, x) or (channel, y, x).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

PERIOD = 2048
GLASS = 242
RAGGED = 66.0  # pixels by which an outline strays at most
KINDS = ("decoy", "ring", "cluster")

_NUCLEUS = (92, 58, 132)
_PATCH_GROUND = (204, 166, 205)
_OBJECT_MEAN = (143, 103, 160)  # the same for every kind of object
_OBJECT_SWING = (-62, -56, -40)  # from that mean to a nucleus
_STEPS = 12  # of a texture's colours
_UNIT = 25  # one ring or one cluster, side of its cell
_NUCLEI = 8  # in one unit
_BLUR = 4.5  # objects differ only in detail finer than this


@dataclass(frozen=True, slots=True)
class Textures:
    """Seamless square tiles of side ``PERIOD``: three (3, y, x) pictures and a (y, x) noise."""

    loose: Bytes
    dense: Bytes
    patch: Bytes
    ragged: Floats


@lru_cache(maxsize=1)
def textures() -> Textures:
    """Draw the textures that all slides share; takes two seconds, once in a process."""
    rng = np.random.default_rng(20220617)
    loose = _stroma(rng, (243, 218, 229), (214, 158, 188), fibre=26)
    gaps = _noise(rng, (60, 60), (400, 160)) > 1.9
    loose[:, gaps] = GLASS
    dense = _stroma(rng, (232, 186, 207), (201, 132, 170), fibre=14)
    ragged = np.clip(22 * _noise(rng, (24, 24), (120, 120)), -RAGGED, RAGGED)
    return Textures(loose, dense, _crowded(rng), ragged)


def _noise(rng: Generator, shortest: tuple[int, int], longest: tuple[int, int]) -> Floats:
    """Return seamless noise of mean 0 and deviation 1, of wavelengths given along (x, y)."""
    fx = np.fft.rfftfreq(PERIOD).astype(np.float32)
    fy = np.fft.fftfreq(PERIOD).astype(np.float32)[:, None]
    fine = np.hypot(fx * shortest[0], fy * shortest[1])
    coarse = np.hypot(fx * longest[0], fy * longest[1])
    band = np.exp(-(fine**2)) * (1 - np.exp(-(coarse**2)))
    white = rng.standard_normal((PERIOD, PERIOD), np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * band, (PERIOD, PERIOD)).astype(np.float32)
    field -= field.mean()
    return field / field.std()


def _palette(value: Floats, light: tuple[int, ...], dark: tuple[int, ...]) -> Bytes:
    """Map -2 to ``light`` and 2 to ``dark`` in few steps, which keeps the files small."""
    step = np.clip((value + 2) * (_STEPS / 4), 0, _STEPS - 1).astype(np.uint8)
    share = np.linspace(0, 1, _STEPS)[:, None]
    table = np.rint(np.array(light) * (1 - share) + np.array(dark) * share).astype(np.uint8)
    return np.stack([table[:, c][step] for c in range(3)])


def _ink(picture: Bytes, amount: Floats) -> None:
    """Colour ``picture`` with nuclei, in place; ``amount`` is 0 to 1."""
    where = amount > 0
    share = amount[where]
    for channel, colour in zip(picture, _NUCLEUS, strict=True):
        channel[where] = np.rint(channel[where] * (1 - share) + colour * share)


def _stroma(rng: Generator, light: tuple[int, ...], dark: tuple[int, ...], fibre: int) -> Bytes:
    """Draw wavy fibres with a few spindle-shaped nuclei along them."""
    straight = _noise(rng, (240, fibre), (1200, 6 * fibre))
    bend = (90 * _noise(rng, (500, 500), (1600, 1600))).astype(np.int64)
    rows = (np.arange(PERIOD)[:, None] + bend) % PERIOD
    fibres = straight[rows, np.arange(PERIOD)]
    picture = _palette(0.9 * fibres + 0.25 * _noise(rng, (9, 9), (40, 40)), light, dark)
    slope = (np.roll(bend, -16, 1) - np.roll(bend, 16, 1)) / 32
    amount = np.zeros((PERIOD, PERIOD), np.float32)
    for y, x in rng.integers(0, PERIOD, (1500, 2)):
        angle = -math.atan(slope[y, x]) + rng.normal(0, 0.2)
        _stamp(amount, y, x, _nucleus(rng.uniform(7, 11), rng.uniform(2.2, 3.2), angle) * 0.8)
    _ink(picture, amount)
    return picture


def _crowded(rng: Generator) -> Bytes:
    """Draw the suspicious tissue: lilac, crowded with small round nuclei."""
    light = tuple(c + 14 for c in _PATCH_GROUND)
    dark = tuple(c - 22 for c in _PATCH_GROUND)
    picture = _palette(_noise(rng, (14, 14), (70, 70)), light, dark)
    amount = np.zeros((PERIOD, PERIOD), np.float32)
    spacing = 16
    corners = np.arange(0, PERIOD, spacing)
    for y in corners:
        for x, (dy, dx) in zip(corners, rng.integers(0, spacing, (len(corners), 2)), strict=True):
            long = rng.uniform(3.4, 5.2)
            nucleus = _nucleus(long, long * rng.uniform(0.7, 1), rng.uniform(0, math.pi))
            _stamp(amount, y + dy, x + dx, nucleus * rng.uniform(0.55, 0.95))
    _ink(picture, amount)
    return picture


def _nucleus(long: float, short: float, angle: float) -> Floats:
    """Return a soft ellipse of the given half axes, 0 to 1; quantised, so that it is cached."""
    return _ellipse(round(2 * long), round(2 * short), round(angle / math.pi * 12) % 12)


@lru_cache(maxsize=4096)
def _ellipse(long: int, short: int, turn: int) -> Floats:
    reach = (long + 1) // 2 + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    cos, sin = math.cos(turn * math.pi / 12), math.sin(turn * math.pi / 12)
    radius = 2 * np.hypot((x * cos + y * sin) / long, (y * cos - x * sin) / short)
    body = np.clip((1 - radius) * short / 2 + 0.5, 0, 1)
    rim = 0.82 + 0.18 * np.clip(radius, 0, 1) ** 2  # chromatin gathers at the membrane
    return np.rint(body * rim * 32).astype(np.float32) / 32


def _stamp(canvas: Floats, y: int, x: int, sprite: Floats) -> None:
    """Keep the darker of ``canvas`` and ``sprite`` centred on (y, x), wrapping at the borders."""
    height, width = canvas.shape
    reach = sprite.shape[0] // 2
    top, left = y - reach, x - reach
    if min(top, left) >= 0 and y + reach < height and x + reach < width:
        window = canvas[top : y + reach + 1, left : x + reach + 1]
        np.maximum(window, sprite, out=window)
        return
    rows = np.arange(top, y + reach + 1)[:, None] % height
    columns = np.arange(left, x + reach + 1) % width
    canvas[rows, columns] = np.maximum(canvas[rows, columns], sprite)


def draw_object(rng: Generator, kind: str, side: int) -> tuple[Floats, Floats]:
    """Draw one object: its (3, side, side) colours and its (side, side) opacity, 0 to 1.

    All kinds hold the same nuclei and the same pale gaps in the same outline: a ``ring`` has
    them as rings around a gap, a ``cluster`` as solid clumps with the gap around them, a
    ``decoy`` in no order. What a blur would leave of that order is taken out, so the kinds look
    alike from afar: their mean colour is the same, in the whole and in every part.
    """
    opacity = _outline(rng, side)
    dark = np.zeros((side, side), np.float32)
    pale = np.zeros((side, side), np.float32)
    for y, x in _units(rng, side):
        _UNITS[kind](rng, dark, pale, (y, x))
    detail = _flattened(np.where(dark > 0, dark, -0.75 * pale), opacity)
    swing = np.array(_OBJECT_SWING, np.float32)[:, None, None]
    return np.array(_OBJECT_MEAN, np.float32)[:, None, None] + swing * detail, opacity


def _outline(rng: Generator, side: int) -> Floats:
    """Return the opacity of a slightly irregular disc that fills the square."""
    y, x = np.mgrid[:side, :side].astype(np.float32) - (side - 1) / 2
    angle = np.arctan2(y, x)
    size, phase = rng.uniform(0, 2.2, 2), rng.uniform(0, 2 * math.pi, 2)
    waves = size[0] * np.cos(2 * angle + phase[0]) + size[1] * np.cos(3 * angle + phase[1])
    return np.clip((side / 2 - 4 + waves - np.hypot(x, y)) / 4, 0, 1).astype(np.float32)


def _units(rng: Generator, side: int) -> list[tuple[float, float]]:
    """Return the centres of the units: of some turned, shifted lattices the one that fits best."""
    best: list[tuple[float, float]] = []
    for turn, row, column in rng.uniform(0, 1, (16, 3)):
        rows, columns = np.mgrid[-3:4, -3:4] + np.array([row, column])[:, None, None]
        along, across = (columns + rows / 2) * _UNIT, rows * _UNIT * math.sqrt(0.75)
        sin, cos = math.sin(turn * math.pi / 3), math.cos(turn * math.pi / 3)
        y, x = along * sin + across * cos, along * cos - across * sin
        fits = np.hypot(y, x) < side / 2 - 0.52 * _UNIT
        if np.count_nonzero(fits) > len(best):
            best = list(zip(y[fits] + side / 2, x[fits] + side / 2, strict=True))
    return best


def _put(canvas: Floats, y: float, x: float, sprite: Floats) -> None:
    _stamp(canvas, round(y), round(x), sprite)


def _ring(rng: Generator, dark: Floats, pale: Floats, centre: tuple[float, float]) -> None:
    y, x = centre
    _put(pale, y, x, _nucleus(6, 6, 0))
    start = rng.uniform(0, 2 * math.pi)
    for i in range(_NUCLEI):
        angle = start + 2 * math.pi * i / _NUCLEI
        place = y + 8.6 * math.sin(angle), x + 8.6 * math.cos(angle)
        _put(dark, *place, _nucleus(3.5, 2.5, angle + math.pi / 2))


def _cluster(rng: Generator, dark: Floats, pale: Floats, centre: tuple[float, float]) -> None:
    y, x = centre
    _put(pale, y, x, _nucleus(10, 10, 0))
    start = rng.uniform(0, 2 * math.pi)
    _put(dark, y, x, _nucleus(3.5, 2.5, start))
    for i in range(_NUCLEI - 1):
        angle = start + 2 * math.pi * i / (_NUCLEI - 1)
        place = y + 3.4 * math.sin(angle), x + 3.4 * math.cos(angle)
        _put(dark, *place, _nucleus(3.5, 2.5, angle))


def _scatter(rng: Generator, dark: Floats, pale: Floats, centre: tuple[float, float]) -> None:
    half = len(dark) / 2
    del centre  # anywhere in the object
    for i in range(3 + _NUCLEI):
        angle, reach = rng.uniform(0, 2 * math.pi), (half - 8) * math.sqrt(rng.uniform(0, 1))
        y, x = half + reach * math.sin(angle), half + reach * math.cos(angle)
        if i < 3:
            _put(pale, y, x, _nucleus(3.5, 3.5, 0))
        else:
            _put(dark, y, x, _nucleus(3.5, 2.5, rng.uniform(0, math.pi)))


_UNITS = {"decoy": _scatter, "ring": _ring, "cluster": _cluster}


@lru_cache(maxsize=64)
def _blur(side: int) -> Floats:
    """Return the (side, side) matrix that blurs the columns of what it multiplies."""
    step = np.arange(side, dtype=np.float32)
    return np.exp(-0.5 * ((step[:, None] - step) / _BLUR) ** 2)


def _flattened(detail: Floats, opacity: Floats) -> Floats:
    """Take out of ``detail`` what a blur would leave of it inside the outline; keep it mean 0."""
    blur = _blur(len(detail))
    weight = blur @ opacity @ blur + 1e-6
    once = detail - (blur @ (detail * opacity) @ blur) / weight
    twice = once - (blur @ (once * opacity) @ blur) / weight  # what the outline had left
    middle = float(np.average(twice, weights=opacity))
    return np.clip(twice - middle, -1.4, 1.4).astype(np.float32)
