"""From the sizes of images to a plan."""

import math

import pytest

from tnet.datasets.checking import ImageFacts
from tnet.errors import DataError, UsageError
from tnet.geometry import Grid, Region
from tnet.plan import Plan, Step
from tnet.scripts.config import Config
from tnet.scripts.planning import Sizes, looks, odd_plan, plan_for, shown_plan, sizes_of

SLIDE = Sizes(side=100_000, pixels=1e10, mpp=0.25, largest=30_000)
PHOTO = Sizes(side=230, pixels=230**2, unscaled=("a.png",))


def plan(sizes: Sizes, base: Plan | None = None, **values: object) -> Plan:
    return plan_for(Config().changed(values), sizes, base or Plan())


def finest(of: Plan, side: float) -> float:
    """Image pixels per pixel of the last view."""
    return side * math.prod(step.patch for step in of.steps) / of.view[0]


def test_large_images_take_as_few_steps_as_the_zoom_allows() -> None:
    found = plan(SLIDE)
    assert len(found.steps) == 3  # 446 times, at most 8 times a step
    assert all(1 / step.patch <= 8 for step in found.steps)
    assert finest(found, SLIDE.side) == pytest.approx(1, rel=1e-4)
    assert [step.glimpses for step in found.steps] == [8, 2, 1]
    assert len(plan(SLIDE, zoom=30).steps) == 2


def test_candidates_cover_the_view_and_overlap() -> None:
    for step in plan(SLIDE, overlap=0.5).steps:
        spacing = (1 - step.patch) / (step.rows - 1)
        assert spacing <= 0.5 * step.patch + 1e-6
        assert step.rows == step.columns


@pytest.mark.parametrize(
    ("side", "view", "first"), [(3072, 64, 384), (1536, 64, 192), (2048, 32, 64)]
)
def test_candidates_of_whole_pixels_lie_on_whole_pixels(side: int, view: int, first: int) -> None:
    sizes = Sizes(side=side, pixels=side**2, mpp=None, largest=0.0)
    (step,) = plan(
        sizes, glimpses="9", view=view, first_view=first, overlap=0, zoom=64, finest=1
    ).steps
    tiles = [(x, y) for y in range(0, side, view) for x in range(0, side, view)]
    cells = Grid(step.rows, step.columns, step.patch).children(Region(0, 0, side, side))
    assert len(cells) == len(tiles)
    for cell, (x, y) in zip(cells, tiles, strict=True):
        assert (cell.x, cell.y, cell.width, cell.height) == pytest.approx((x, y, view, view), 1e-12)


def test_numbers_of_glimpses_set_the_depth() -> None:
    found = plan(SLIDE, glimpses="8,2")
    assert [step.glimpses for step in found.steps] == [8, 2]
    assert finest(found, SLIDE.side) == pytest.approx(1, rel=1e-4)


def test_an_image_no_larger_than_a_view_is_looked_at_once() -> None:
    assert plan(PHOTO).steps == ()
    assert len(plan(PHOTO, glimpses="4").steps) == 1


def test_a_coarser_end_and_a_larger_first_look_need_fewer_steps() -> None:
    assert len(plan(SLIDE, finest=8).steps) == 2
    found = plan(SLIDE, first_view=896)
    assert found.first_view == (896, 896)
    assert finest(found, SLIDE.side) == pytest.approx(1, rel=1e-4)
    # What a first look of four times the pixels resolves need not be zoomed into.
    assert found.steps[0].patch < plan(SLIDE).steps[0].patch


def test_a_scale_ends_the_walk_of_the_largest_image() -> None:
    found = plan(SLIDE, finest_mpp=0.5)
    assert found.until == 0.5
    side = SLIDE.largest * math.prod(step.patch for step in found.steps)
    assert side / found.view[0] <= 0.5 * (1 + 1e-6)


def test_a_scale_needs_images_that_know_theirs() -> None:
    with pytest.raises(
        DataError, match=r"finest_mpp is in µm, and the scale of 1 image is unknown: a\.png; add"
    ):
        plan(PHOTO, finest_mpp=0.5)
    with pytest.raises(DataError, match="tiles is in µm"):
        plan(PHOTO, model="tiles", tiles=0.5)


def test_the_kinds_to_compare_with() -> None:
    assert plan(SLIDE, model="thumbnail", view=448) == Plan(view=(448, 448))
    assert plan(SLIDE, model="random").policy == "uniform"
    assert plan(SLIDE, model="random").steps == plan(SLIDE).steps
    tiles = plan(SLIDE, model="tiles")
    assert (tiles.tiles, tiles.steps) == ("native", ())
    assert looks(tiles, SLIDE) == math.ceil(1e10 / 224**2)
    assert plan(SLIDE, model="tiles", tiles=0.5).tiles == 0.5
    with pytest.raises(UsageError, match="tiles must be native or a number"):
        plan(SLIDE, model="tiles", tiles="coarse")


def test_an_official_plan_keeps_its_grids() -> None:
    base = Plan(view=(77, 77), rule="official", steps=(Step(5, 5, 0.34375, 3),))
    assert plan(SLIDE, base).steps == base.steps
    deeper = plan(SLIDE, base, glimpses="2,1")
    assert [(s.rows, s.glimpses) for s in deeper.steps] == [(5, 2), (5, 1)]
    assert deeper.view == (77, 77)


TOO_COARSE = Sizes(side=4000, pixels=1.6e7, mpp=1000.0, largest=4e6)


def odd(sizes: Sizes, **values: object) -> str:
    config = Config().changed(values)
    return " ".join(odd_plan(plan_for(config, sizes, Plan()), config, sizes))


def test_a_plan_that_can_hardly_be_meant_is_named() -> None:
    for values in ({"finest_mpp": 0.5}, {"model": "tiles", "tiles": "0.5"}):
        said = odd(TOO_COARSE, **values)
        assert "enlarge the image's own pixels 2,000 times; 0.5 µm per pixel are asked" in said
        assert "the images have 1000: is the mpp of the table or the files right?" in said
        assert odd(SLIDE, **values) == ""
    assert "nothing to zoom into" in odd(SLIDE, finest_mpp=1e4)
    assert "100,000 image pixels a pixel" in odd(SLIDE, finest=1e5, glimpses="2")
    assert "nothing to zoom into" in odd(SLIDE, model="tiles", tiles="1e4")


@pytest.mark.parametrize("sizes", [SLIDE, PHOTO])
@pytest.mark.parametrize("values", [{}, {"glimpses": "4"}, {"model": "thumbnail"}, {"finest": 2}])
def test_usual_plans_are_not_named(sizes: Sizes, values: dict[str, object]) -> None:
    assert odd(sizes, **values) == ""


def test_looks_are_counted_down_the_tree() -> None:
    found = plan(SLIDE, glimpses="8,2,1")
    assert looks(found, SLIDE) == 1 + 8 + 16 + 16
    assert any("41 looks" in line for line in shown_plan(found, SLIDE))


def facts(width: int, height: int, mpp: float | None) -> ImageFacts:
    return ImageFacts(width, height, 3, "uint8", mpp, "PNG")


def test_sizes_are_medians() -> None:
    found = sizes_of([facts(100, 400, 0.5), facts(300, 300, 0.25)], ["a", "b"], None)
    assert found.pixels == 65_000
    assert (found.mpp, found.largest) == (0.375, 200)
    assert sizes_of([facts(9, 9, None)], ["a"], None).unscaled == ("a",)
    assert sizes_of([facts(9, 9, None)], ["a"], 2.0).largest == 18
