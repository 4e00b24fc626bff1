"""What is empty in a view, and how much of each candidate is not."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tnet.adapters.array import open_array
from tnet.background import cell_shares, foreground
from tnet.geometry import Grid, Region


@pytest.mark.parametrize(
    ("pixel", "seen"),
    [
        ((255, 255, 255), False),
        ((242, 242, 242), False),
        ((240, 244, 238), False),
        ((250, 225, 240), True),  # pale eosin
        ((120, 60, 130), True),
        ((200, 200, 200), True),
        ((0, 0, 0), True),
    ],
)
def test_white_glass_is_empty_and_tissue_is_not(pixel: tuple[int, int, int], seen: bool) -> None:
    view = np.full((4, 5, 3), pixel, dtype=np.uint8)
    assert (foreground(view, open_array(view)) == seen).all()


def test_a_coloured_background_and_a_map_have_no_other_glass() -> None:
    view = np.full((1, 3, 3), (250, 200, 230), dtype=np.uint8)
    view[0, 1] = 235
    view[0, 2] = 120
    image = open_array(view, background=(250.0, 200.0, 230.0))
    assert foreground(view, image).tolist() == [[False, False, True]]
    image.crs = "EPSG:4326"
    assert foreground(view, image).tolist() == [[False, True, True]]


def test_what_was_never_written_is_empty() -> None:
    view = np.zeros((1, 2, 3), dtype=np.uint8)
    view[0, 1] = (0, 0, 1)
    image = open_array(view)
    image.unwritten = 0.0
    assert foreground(view, image).tolist() == [[False, True]]


@given(st.integers(1, 5), st.sampled_from(["uint8", "uint16", "int16", "float32"]), st.data())
def test_only_pixels_that_are_background_in_every_band_are_empty(
    bands: int, dtype: str, data: st.DataObject
) -> None:
    view = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 2, (6, 7, bands))
    pixels = view.astype(dtype)
    pyramid = open_array(pixels, background=(1.0,) * bands)
    wanted = [[any(v != 1 for v in pixel) for pixel in row] for row in view.tolist()]
    assert foreground(pixels, pyramid).tolist() == wanted


def test_nan_is_empty_where_every_band_is() -> None:
    view = np.array([[[math.nan, math.nan], [math.nan, 3.0], [0.0, 0.0], [1.0, 2.0]]])
    assert foreground(view, open_array(view)).tolist() == [[False, True, False, True]]


def slow_share(seen: Any, parent: Region, cell: Region) -> float:
    """Count the pixels of a view, whose borders must fall on the cell's."""
    height, width = seen.shape
    sx, sy = width / parent.width, height / parent.height
    inside = [
        seen[v, u]
        for v in range(height)
        for u in range(width)
        if (cell.y - parent.y) * sy <= v + 0.5 <= (cell.bottom - parent.y) * sy
        and (cell.x - parent.x) * sx <= u + 0.5 <= (cell.right - parent.x) * sx
    ]
    return sum(inside) / len(inside)


@given(
    st.sampled_from([(4, 4, 0.25), (2, 2, 0.5), (3, 3, 0.5), (1, 3, 0.5), (1, 1, 1.0)]),
    st.integers(0, 999),
)
def test_shares_are_counts(grid: tuple[int, int, float], seed: int) -> None:
    seen = np.random.default_rng(seed).random((16, 24)) < 0.4
    parent = Region(-7.5, 100.0, 240.0, 80.0)
    cells = Grid(*grid)
    wanted = [slow_share(seen, parent, cell) for cell in cells.children(parent)]
    np.testing.assert_allclose(cell_shares(seen, parent, cells), wanted)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.floats(0.01, 1))
def test_shares_of_full_and_empty_views(height: int, width: int, side: int, patch: float) -> None:
    grid, parent = Grid(side, side, patch), Region(3, 4, 5, 6)
    np.testing.assert_allclose(cell_shares(np.ones((height, width), bool), parent, grid), 1)
    np.testing.assert_allclose(cell_shares(np.zeros((height, width), bool), parent, grid), 0)


def test_official_cells_may_leave_the_view() -> None:
    seen = np.ones((8, 8), dtype=bool)
    shares = cell_shares(seen, Region(0, 0, 331, 331), Grid(3, 3, 0.5, "official"))
    np.testing.assert_allclose(shares, 1)
