"""Heat maps are in register to the pixel, add up, and say nothing of what was never looked at."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from fakes import fake_model, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tnet.adapters.array import open_array
from tnet.errors import UsageError
from tnet.geometry import Region
from tnet.maps import KINDS, Kind, heat_map, path_probabilities
from tnet.plan import Plan, Step
from tnet.record import Chances, Glimpse, Walk, softmax
from tnet.traversal import walk

NESTED = Plan(view=(32, 32), steps=(Step(6, 5, 0.3, 3), Step(4, 4, 0.375, 2)))


def one(region: Region, width: int, height: int, worth: float = 2.0) -> Walk:
    """A walk of one glimpse below the first look, worth something for the second class."""
    top = Glimpse(0, Region(0, 0, width, height), None, None, None, 1, 0, 0, 0.25, (0.5, 0.125))
    child = Glimpse(1, region, 0, 0, 0, 0.5, -0.7, 0, 0.75, (-1.0, worth))
    logits = np.array([-0.5, 0.125 + worth])
    return Walk(
        image="one",
        width=width,
        height=height,
        classes=("a", "b"),
        logits=logits,
        probabilities=softmax(logits.tolist()),
        outcome="class",
        bias=(0.0, 0.0),
        glimpses=(top, child),
        view=(8, 8),
        grids=(Chances(0, 1, 2, 0.5, (0.5, 0.5)),),
    )


def by_counting(region: Region, width: int, height: int, fine: int = 1) -> NDArray[np.float64]:
    """How much of each pixel of level 0 a region covers, by counting points."""
    x, y = (np.arange(side * fine) / fine + 0.5 / fine for side in (width, height))
    inside = np.logical_and.outer(
        (y > region.y) & (y < region.bottom), (x > region.x) & (x < region.right)
    )
    return inside.reshape(height, fine, width, fine).mean(axis=(1, 3))


def test_every_kind_is_named() -> None:
    assert get_args(Kind) == KINDS


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_region_is_where_it_is_to_the_pixel(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(3, 61)), data.draw(st.integers(3, 61))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    wide, high = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    w, h = data.draw(st.integers(1, 3 * width)), data.draw(st.integers(1, 3 * height))
    record = one(Region(x, y, wide, high), width, height)
    found = heat_map(record, (w, h), "weight")
    # Level 0 in its own pixels, each cut into w x h, put together again w x h to a map's pixel.
    exact = by_counting(Region(x, y, wide, high), width, height)
    fine = exact.repeat(h, axis=0).repeat(w, axis=1)
    wanted = fine.reshape(h, height, w, width).mean(axis=(1, 3))
    np.testing.assert_allclose(np.nan_to_num(found), 0.75 * wanted, atol=1e-6)
    np.testing.assert_array_equal(np.isnan(found), wanted == 0)


@pytest.mark.parametrize("size", [(37, 23), (370, 230), (5, 3), (1, 1), (64, 7)])
def test_fractions_of_pixels_and_what_hangs_over(size: tuple[int, int]) -> None:
    region = Region(-3.5, 10.25, 12.5, 20.5)
    found = heat_map(one(region, 37, 23), size, "contribution")
    area = 9.0 * 12.75  # what lies inside of the image
    assert np.nansum(found.astype(np.float64)) / found.size == pytest.approx(2 * area / (37 * 23))


def test_the_largest_value_is_where_the_best_glimpse_is() -> None:
    region = Region(1001, 333, 17, 17)
    for w, h in ((1999, 1111), (333, 185), (77, 43)):
        found = heat_map(one(region, 1999, 1111), (w, h))
        row, column = np.unravel_index(np.nanargmax(found), found.shape)
        assert abs((column + 0.5) * 1999 / w - 1009.5) <= max(9, 1999 / w)
        assert abs((row + 0.5) * 1111 / h - 341.5) <= max(9, 1111 / h)


def test_what_each_kind_shows() -> None:
    record = one(Region(2, 4, 4, 2), 8, 8)
    inside = np.zeros((8, 8), dtype=bool)
    inside[4:6, 2:6] = True
    for kind, target, value in (
        ("weight", None, 0.75),
        ("contribution", None, 2.0),
        ("contribution", "a", -1.0),
        ("contribution", 0, -1.0),
    ):
        found = heat_map(record, (8, 8), kind, target)  # type: ignore[arg-type]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[inside], value)
        assert np.isnan(found[~inside]).all()
    whole = heat_map(record, (8, 8), "contribution", "b", first=True)
    np.testing.assert_array_equal(whole[~inside], 0.125)
    np.testing.assert_array_equal(whole[inside], 2.125)


def test_probability_is_spread_over_the_last_cells() -> None:
    # The grid's two cells are the middle rows of the left and the right half; the left one was
    # chosen, and looked at a pixel further to the right.
    record = one(Region(1, 2, 4, 4), 8, 8)
    found = heat_map(record, (8, 8), "probability")
    share = 0.5 * 64 / 16
    wanted = np.full((8, 8), np.nan)
    wanted[2:6, 0:5] = [0.0, share, share, share, share * 2]
    wanted[2:6, 5:8] = share
    # Of the place where the chosen cell would have been, nothing is left but that it was asked.
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("size", [(517, 301), (50, 31), (1000, 999)])
@pytest.mark.parametrize("background", [None, 0.5])
def test_probabilities_add_up(size: tuple[int, int], background: float | None) -> None:
    pixels = noise(301, 517)
    if background:
        pixels[:, :200] = 255
    plan = replace(NESTED, background=background)
    (record,) = walk(fake_model(plan), [open_array(pixels, nodata=255)])
    found = heat_map(record, size, "probability")
    assert np.nansum(found.astype(np.float64)) / found.size == pytest.approx(1, abs=1e-4)
    assert np.isnan(found).any() == (background is not None)


def test_contributions_add_up_to_the_logits() -> None:
    (record,) = walk(fake_model(NESTED), [open_array(noise(301, 517))])
    for number, name in enumerate(record.classes):
        whole = heat_map(record, (517, 301), "contribution", name, first=True).astype(np.float64)
        areas = [glimpse.region.area / (517 * 301) for glimpse in record.glimpses]
        parts = [glimpse.contributions[number] for glimpse in record.glimpses]
        assert np.mean(whole) == pytest.approx(np.dot(areas, parts), abs=1e-5)


def test_paths() -> None:
    (record,) = walk(fake_model(NESTED), [open_array(noise(301, 517))])
    found = path_probabilities(record)
    for index, glimpse in enumerate(record.glimpses):
        wanted = 1.0
        at: int | None = index
        while at:
            wanted *= record.glimpses[at].probability
            at = record.glimpses[at].parent
        assert found[index] == pytest.approx(wanted)
        assert glimpse.level or found[index] == 1


def test_the_record_holds_every_distribution() -> None:
    (record,) = walk(fake_model(NESTED), [open_array(noise(301, 517))])
    assert [grid.parent for grid in record.grids] == [0, 1, 2, 3]
    for chances in record.grids:
        said = [p for p in chances.probabilities if p is not None]
        assert sum(said) == pytest.approx(1, abs=1e-4)
        parent = record.glimpses[chances.parent].region
        for glimpse in record.glimpses:
            if glimpse.parent == chances.parent:
                assert glimpse.row is not None
                assert glimpse.column is not None
                cell = glimpse.row * chances.columns + glimpse.column
                assert chances.probabilities[cell] == pytest.approx(glimpse.probability, rel=1e-5)
                assert chances.grid().child(parent, cell) == glimpse.region
    assert Walk.from_json(record.to_json(1)) == record


def test_cells_that_could_not_be_chosen_have_none() -> None:
    plan = Plan(view=(32, 32), steps=(Step(3, 3, 0.5, 9), Step(3, 3, 0.5, 1)))
    (record,) = walk(fake_model(plan), [open_array(noise(64, 64))])
    assert any(None in chances.probabilities for chances in record.grids[1:])
    assert None not in record.grids[0].probabilities


def test_without_evidence_nothing_is_said() -> None:
    plan = replace(NESTED, background=0.5)
    empty = open_array(np.full((64, 64), 255, dtype=np.uint8), nodata=255)
    (record,) = walk(fake_model(plan), [empty])
    assert record.label is None
    for kind in KINDS:
        assert np.isnan(heat_map(record, (9, 7), kind)).all()


def test_tiles_are_shown_where_they_are() -> None:
    plan = Plan(view=(32, 32), tiles="native")
    (record,) = walk(fake_model(plan), [open_array(noise(70, 100))])
    found = heat_map(record, (100, 70), "weight", first=True)
    np.testing.assert_allclose(found, 1 / 12, rtol=1e-6)
    assert np.isnan(heat_map(record, (100, 70), "probability")).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"size": (0, 5)}, "a heat map has 1 to"),
        ({"size": (10**6, 10**6)}, "a heat map has 1 to"),
        ({"size": (5, 5), "kind": "heat"}, "kind must be one of probability, weight, contribution"),
        ({"size": (5, 5), "target": "c"}, "no class 'c'; there are a, b"),
        ({"size": (5, 5), "target": 2}, "no class 2; there are 2"),
        ({"size": (5, 5), "target": -1}, "no class -1"),
    ],
    ids=str,
)
def test_senseless_maps_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        heat_map(one(Region(0, 0, 2, 2), 8, 8), **options)  # type: ignore[arg-type]
