"""The picture of a walk: boxes lie where the glimpses are, and any image can be drawn."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tnet.adapters.array import open_array
from tnet.adapters.drawing import (
    PALETTE,
    Stretch,
    drawable,
    font,
    level_colour,
    round_length,
    shortened,
    text_width,
)
from tnet.adapters.footer import _cost, _scale_bar, sure
from tnet.adapters.overlay import draw_walk
from tnet.adapters.sheet import MARGIN, arrange, on_page
from tnet.geometry import Region
from tnet.pyramid import Pyramid
from tnet.record import NO_EVIDENCE, Glimpse, Walk


def glimpse(level: int, region: Region, weight: float = 0.5, contribution: float = 0.1) -> Glimpse:
    root = level == 0
    return Glimpse(
        level=level,
        region=region,
        parent=None if root else 0,
        row=None if root else 0,
        column=None if root else 0,
        probability=1.0,
        log_prob=0.0,
        rank=0,
        weight=weight,
        contributions=(contribution, -contribution),
    )


def walk_over(pyramid: Pyramid, *glimpses: Glimpse, **changes: Any) -> Walk:
    walk = Walk(
        image=pyramid.name,
        width=pyramid.width,
        height=pyramid.height,
        classes=("a", "b"),
        logits=np.array([0.2, -0.2]),
        probabilities=np.array([0.6, 0.4]),
        outcome="class",
        bias=(0.0, 0.0),
        glimpses=(glimpse(0, Region(0, 0, pyramid.width, pyramid.height)), *glimpses),
        view=(64, 64),
        spacing=pyramid.spacing,
        unit=pyramid.unit,
        seconds=1.0,
    )
    return replace(walk, **changes)


def extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom (just past) of what is True."""
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def panel(page: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    """Return the part of a page of size 1024 that shows the whole image."""
    return np.asarray(page)[MARGIN : MARGIN + height, MARGIN : MARGIN + width]


@pytest.mark.parametrize(
    ("size", "square"),
    [
        ((2048, 2048), Region(600, 1000, 400, 300)),
        ((3000, 1700), Region(1501, 333, 701, 999)),
        ((701, 1000), Region(11, 650, 333, 222)),
        ((4096, 2048), Region(0, 0, 1024, 1024)),
        ((4096, 2048), Region(3072, 1024, 1024, 1024)),
    ],
)
def test_a_bright_square_is_in_the_box_that_names_it(size: tuple[int, int], square: Region) -> None:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    x, y = int(square.x), int(square.y)
    pixels[y : y + int(square.height), x : x + int(square.width)] = 255
    pyramid = open_array(pixels)
    page = draw_walk(walk_over(pyramid, glimpse(1, square)), pyramid)
    scale = 1024 / max(size)
    shown = panel(page, round(size[0] * scale), round(size[1] * scale))
    colour = np.array(level_colour(1), np.int64)
    frame = extent(np.abs(shown.astype(np.int64) - colour).max(axis=2) < 6)
    true = tuple(v * scale for v in (square.x, square.y, square.right, square.bottom))
    np.testing.assert_allclose(frame, true, atol=1)
    left, top, right, bottom = frame
    centre = shown[(top + bottom) // 2 - 8 : (top + bottom) // 2 + 8, left + 8 : right - 8]
    assert (centre == 255).all()
    outside = shown.copy()
    outside[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = 0
    assert (outside > 200).all(axis=2).sum() < 300  # the edge of the first look's number


def test_a_crop_shows_the_pixels_of_its_region() -> None:
    pixels = np.full((4000, 4000, 3), 90, np.uint8)
    pixels[1000:1100, 2000:2100, 0] = 250  # two pixels of the whole image's picture
    pyramid = open_array(pixels)
    walk = walk_over(pyramid, glimpse(2, Region(1950, 950, 200, 200), contribution=9))
    page = np.asarray(draw_walk(walk, pyramid))
    x, y, wide, tall = arrange(4000, 4000, 1024, 2).crops[0]
    crop = page[y : y + tall, x : x + wide]
    red = extent((crop[..., 0] > 240) & (crop[..., 1] < 120))
    np.testing.assert_allclose(red, np.array([0.25, 0.25, 0.75, 0.75]) * wide, atol=2)


def test_crops_are_ranked_by_what_they_say_for_the_class() -> None:
    pixels = np.zeros((400, 400, 3), np.uint8)
    shades = (50, 100, 150)
    for index, shade in enumerate(shades):
        pixels[:, 100 * index : 100 * index + 100] = shade
    pyramid = open_array(pixels)
    regions = [Region(100 * index, 0, 100, 100) for index in range(3)]
    values = (0.2, 0.5, 0.3)
    children = [glimpse(1, r, contribution=v) for r, v in zip(regions, values, strict=True)]

    def first_crops(walk: Walk) -> list[int]:
        page = np.asarray(draw_walk(walk, pyramid))
        places = arrange(400, 400, 1024, 4).crops
        return [int(page[y + h // 2, x + w // 2, 0]) for x, y, w, h in places]

    assert first_crops(walk_over(pyramid, *children))[:3] == [100, 150, 50]
    other = {"probabilities": np.array([0.4, 0.6])}
    assert first_crops(walk_over(pyramid, *children, **other))[1:] == [50, 150, 100]
    weighed = [replace(child, weight=w) for child, w in zip(children, (1, 2, 3), strict=True)]
    empty = {"outcome": NO_EVIDENCE, "probabilities": np.array([np.nan, np.nan])}
    assert first_crops(walk_over(pyramid, *weighed, **empty))[:3] == [150, 100, 50]


def test_a_tiny_box_gets_a_ring() -> None:
    pyramid = open_array(np.zeros((2048, 2048, 3), np.uint8))
    here = Region(1000, 1000, 4, 4)
    walk = walk_over(pyramid, glimpse(1, here, contribution=-1))
    shown = panel(draw_walk(walk, pyramid), 1024, 1024).astype(np.int64)
    near = np.abs(shown - np.array(level_colour(1))).max(axis=2) < 6
    left, top, right, bottom = extent(near[480:520, 480:520])
    assert right - left >= 14
    assert bottom - top >= 14


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 13])
def test_any_values_can_be_shown(dtype: str, bands: int) -> None:
    noise = np.random.default_rng(0).integers(0, 100, (64, 80, bands))
    pyramid = open_array((noise * (1 if dtype == "uint8" else 30)).astype(dtype))
    page = draw_walk(walk_over(pyramid, glimpse(1, Region(10, 10, 20, 20))), pyramid, 256)
    assert page.mode == "RGB"
    assert np.asarray(page)[40:180, 40:220].std() > 10


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3), (9000, 40), (40, 9000), (640, 480)])
@pytest.mark.parametrize("length", [256, 1024])
def test_any_shape_can_be_shown(size: tuple[int, int], length: int) -> None:
    pyramid = open_array(np.full((size[1], size[0], 3), 77, np.uint8))
    children = [
        glimpse(
            level, Region(size[0] * 0.1 * level, size[1] * 0.1 * level, size[0] / 4, size[1] / 4)
        )
        for level in range(1, 10)
    ]
    page = draw_walk(walk_over(pyramid, *children), pyramid, length)
    assert page.width >= length if size[0] >= size[1] else page.height >= length


def test_regions_may_reach_past_the_image() -> None:
    pyramid = open_array(np.full((100, 200, 3), 77, np.uint8))
    outside = [glimpse(1, Region(-50, -90, 80, 80)), glimpse(1, Region(150, 50, 400, 400))]
    walk = walk_over(pyramid, *outside, glimpse(1, Region(900, 900, 5, 5)))
    assert draw_walk(walk, pyramid, 256).height > 128
    sheet = arrange(200, 100, 256, 4)
    assert on_page(Region(900, 900, 5, 5), (200, 100), sheet) is None
    assert on_page(Region(150, 50, 400, 400), (200, 100), sheet) is not None


def test_the_same_picture_every_time() -> None:
    pyramid = open_array(np.full((100, 200, 3), 77, np.uint8))
    walk = walk_over(pyramid, glimpse(1, Region(10, 10, 40, 40)))
    assert draw_walk(walk, pyramid, 256) == draw_walk(walk, pyramid, 256)


def test_missing_pixels_do_not_stretch() -> None:
    view = np.full((10, 10, 1), 500.0, np.float32)
    view[:5] = 300
    view[0], view[1] = np.nan, -9999
    shown = np.asarray(Stretch(view, -9999.0)(view))
    assert (shown[0].max(), shown[1].max(), shown[3].max(), shown[7].max()) == (0, 0, 0, 255)
    nothing = np.full((4, 4, 1), np.nan, np.float32)
    assert not np.asarray(Stretch(nothing, None)(nothing)).any()


@pytest.mark.parametrize(
    ("spacing", "unit", "said"),
    [
        ((0.25, 0.25), "µm", "100 µm"),
        ((10.0, 10.0), "metre", "5 km"),
        ((2.0, 2.0), "m", "1 km"),
        ((0.1, 0.1), "metre", "50 m"),
        ((1e-4, 1e-4), "degree", None),
        (None, None, None),
    ],
)
def test_the_scale_bar(
    spacing: tuple[float, float] | None, unit: str | None, said: str | None
) -> None:
    pyramid = open_array(np.zeros((2560, 2560, 3), np.uint8))
    walk = walk_over(pyramid, spacing=spacing, unit=unit)
    bar = _scale_bar(walk, arrange(2560, 2560, 1024, 1))
    assert (bar and bar[1]) == said
    if bar is not None and said == "5 km":
        assert bar[0] == round(5000 / 10 * 1024 / 2560)


def test_what_it_cost() -> None:
    pyramid = open_array(np.zeros((100, 100, 3), np.uint8))
    walk = walk_over(pyramid, seconds=0.123)
    said = "1 glimpse · 4,096 pixels looked at · 41 % of 10,000 (100 x 100) · 0.12 s"
    assert _cost(walk) == said
    big = replace(walk, width=40_000, height=30_000, glimpses=walk.glimpses * 300)
    assert "300 glimpses · 1.23 million pixels looked at · 0.1 % of 1.2 billion" in _cost(big)


def test_probabilities_are_not_rounded_to_certainty() -> None:
    assert [sure(p) for p in (0.5, 0.99949, 0.99999, 1.0)] == [
        "50.0 %", "99.9 %", "> 99.9 %", "100.0 %",
    ]  # fmt: skip


def test_round_lengths() -> None:
    lengths = [round_length(v) for v in (1, 1.9, 2.1, 7, 9.99, 0.034)]
    assert lengths == pytest.approx([1, 1, 2, 5, 5, 0.02])


def test_text_is_what_the_font_can_draw() -> None:
    missing = bytes(font(20).getmask("\U0010ffff"))
    every = "".join(map(chr, range(32, 0x2100)))
    assert all(bytes(font(20).getmask(c)) != missing for c in set(drawable(every)))
    assert drawable("Länge · 木.tif") == "Lange · ?.tif"
    short = shortened("a very long name.svs", 20, 90)
    assert "…" in short
    assert short.endswith("s")
    assert text_width(short, 20) <= 90
    assert shortened("abc", 20, 3) == "…"


def test_levels_have_colours_that_differ() -> None:
    assert len({level_colour(level) for level in range(len(PALETTE))}) == len(PALETTE)
    assert level_colour(len(PALETTE)) == level_colour(1)
