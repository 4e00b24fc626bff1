"""Where everything lies on a synthetic slide: tissue, patches, objects and their kinds."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from tnet.datasets.texture import Floats

Box = tuple[int, int, int, int]  # x, y, width, height in pixels of level 0

_OBJECTS = (14, 18)  # in a patch
_TARGETS = (8, 14)  # in a patch that has any
_SIDES = range(64, 97, 4)  # of an object, pixels
_APART = 112  # from the centre of one object to the next, at least
_MANY = 16384  # side of a slide that has room for four pieces of tissue


@dataclass(frozen=True, slots=True)
class Blob:
    """An irregular ellipse: centre, half axes, turn and the phases of its waves."""

    x: float
    y: float
    long: float
    short: float
    turn: float
    waves: Floats

    def inside(self, x: Any, y: Any) -> Any:
        """Say by about how many pixels (x, y) lies inside the outline; negative is outside."""
        dx, dy = x - self.x, y - self.y
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        u, v = (dx * cos + dy * sin) / self.long, (dy * cos - dx * sin) / self.short
        angle = np.arctan2(v, u)
        edge = 1 + sum(0.16 / n * np.cos(n * angle + w) for n, w in enumerate(self.waves, 2))
        return (edge - np.hypot(u, v)) * self.short

    def around(self, rng: Generator, count: int) -> Any:
        """Draw points in the square around it, (count, 2) as x and y."""
        return rng.uniform(-self.long, self.long, (count, 2)) + np.array([self.x, self.y])

    @property
    def box(self) -> Box:
        """The square around it."""
        side = round(2 * self.long)
        return round(self.x - self.long), round(self.y - self.long), side, side


@dataclass(frozen=True, slots=True)
class Spot:
    """An object: its box, and the index of the patch that it is in."""

    box: Box
    patch: int


class Layout:
    """Where everything lies. All of it but the objects' kinds is drawn without the label."""

    def __init__(self, label: str, seed: int, size: int) -> None:
        self.label, self.seed, self.size = label, seed, size
        rng = default_rng([seed, 0])
        many = size >= _MANY
        self.sections = self._place_sections(rng, 4 if many else 1)
        counts = rng.permutation([2, 2, 1, 1]) if many else [2]
        self.patches: list[Blob] = []
        for section, count in zip(self.sections, counts, strict=True):
            for _ in range(count):
                self.patches.append(self._place_patch(rng, section))
        self.spots: list[Spot] = []
        for index in range(len(self.patches)):
            self.spots += self._place_spots(rng, index)
        self.kinds = self._choose_kinds(default_rng([seed, 1]))

    @property
    def targets(self) -> tuple[Box, ...]:
        """The boxes of the objects that make the label."""
        pairs = zip(self.spots, self.kinds, strict=True)
        return tuple(spot.box for spot, kind in pairs if kind != "decoy")

    @property
    def decoys(self) -> tuple[Box, ...]:
        """The boxes of the other objects."""
        pairs = zip(self.spots, self.kinds, strict=True)
        return tuple(spot.box for spot, kind in pairs if kind == "decoy")

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes of the patches, cut at the border of the image."""
        cut = []
        for x, y, width, height in (patch.box for patch in self.patches):
            left, top = max(x, 0), max(y, 0)
            right, bottom = min(x + width, self.size), min(y + height, self.size)
            cut.append((left, top, right - left, bottom - top))
        return tuple(cut)

    def tissue(self, x: Any, y: Any) -> Any:
        """Say by how many pixels (x, y) lies inside the tissue."""
        return np.max([section.inside(x, y) for section in self.sections], axis=0)

    def _place_sections(self, rng: Generator, count: int) -> list[Blob]:
        shrink = min(1.0, self.size / 5000)
        sections: list[Blob] = []
        for _ in range(count):
            tries = rng.uniform(2400 * shrink, self.size - 2400 * shrink, (200, 2))
            gaps = _distances(tries, sections).min(axis=1, initial=5500)
            long, short = rng.uniform(1850, 2150) * shrink, rng.uniform(1350, 1600) * shrink
            sections.append(_blob(rng, tries[np.argmax(gaps)], long, short))
        return sections

    def _place_patch(self, rng: Generator, section: Blob) -> Blob:
        """Place a patch well inside a section and away from the other patches."""
        long = rng.uniform(620, 860)
        tries = section.around(rng, 200)
        apart = _distances(tries, self.patches) - [p.long + long + 100 for p in self.patches]
        room = np.minimum(section.inside(*tries.T) - long, apart.min(axis=1, initial=math.inf))
        fits = np.flatnonzero(room > -0.15 * long)
        best = fits[0] if len(fits) else np.argmax(room)
        return _blob(rng, tries[best], long, long * rng.uniform(0.85, 1))

    def _place_spots(self, rng: Generator, index: int) -> list[Spot]:
        """Place the objects of a patch, none of them over another."""
        patch = self.patches[index]
        wanted = rng.integers(_OBJECTS[0], _OBJECTS[1] + 1)
        taken = [(s.box[0] + s.box[2] / 2, s.box[1] + s.box[3] / 2) for s in self.spots]
        centres: list[tuple[float, float]] = []
        for x, y in patch.around(rng, 2000):
            free = all(math.hypot(x - a, y - b) > _APART for a, b in taken + centres)
            if free and patch.inside(x, y) > 110 and self.tissue(x, y) > 130:
                centres.append((x, y))
            if len(centres) == wanted:
                break
        sides = rng.choice(_SIDES, len(centres))
        return [
            Spot((round(x - side / 2), round(y - side / 2), int(side), int(side)), index)
            for (x, y), side in zip(centres, sides, strict=True)
        ]

    def _choose_kinds(self, rng: Generator) -> list[str]:
        kinds = ["decoy"] * len(self.spots)
        positive = rng.permutation(len(self.patches))[: rng.integers(1, 3)]
        for patch in positive if self.label != "normal" else ():
            members = [i for i, spot in enumerate(self.spots) if spot.patch == patch]
            count = min(int(rng.integers(_TARGETS[0], _TARGETS[1] + 1)), len(members) - 1)
            for i in rng.choice(members, count, replace=False):
                kinds[i] = self.label
        return kinds


def _blob(rng: Generator, centre: Floats, long: float, short: float) -> Blob:
    waves = rng.uniform(0, 2 * math.pi, 7).astype(np.float32)
    x, y = float(centre[0]), float(centre[1])
    return Blob(x, y, long, short, rng.uniform(0, math.pi), waves)


def _distances(points: Any, blobs: list[Blob]) -> Any:
    """Return the distance of every point to every blob's centre, (points, blobs)."""
    centres = np.array([(blob.x, blob.y) for blob in blobs]).reshape(-1, 2)
    return np.hypot(*(points[:, None] - centres).transpose(2, 0, 1))
