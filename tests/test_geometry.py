"""Regions, and where the candidates lie inside them."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tnet.errors import TNetError
from tnet.geometry import Grid, Region

sides = st.floats(0.5, 1e6)
places = st.floats(-1e6, 1e6)
regions = st.builds(Region, places, places, sides, sides)
counts = st.integers(1, 9)
patches = st.floats(0.01, 1.0)


def close(a: float, b: float, scale: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9 * scale)


@given(regions, counts, counts, patches)
def test_exact_cells_reach_from_border_to_border(
    parent: Region, rows: int, columns: int, patch: float
) -> None:
    grid = Grid(rows, columns, patch)
    cells = grid.children(parent)
    scale = 1e6 + abs(parent.x) + abs(parent.y)
    assert len(cells) == grid.cells == rows * columns
    for cell in cells:
        assert close(cell.width, parent.width * patch, scale)
        assert close(cell.height, parent.height * patch, scale)
    first, last = cells[0], cells[-1]
    if columns > 1:
        assert close(first.x, parent.x, scale)
        assert close(last.right, parent.right, scale)
        steps = [b.x - a.x for a, b in itertools.pairwise(cells[:columns])]
        assert all(close(step, steps[0], scale) for step in steps)
    else:
        assert close(first.x + first.width / 2, parent.x + parent.width / 2, scale)
    if rows > 1:
        assert close(first.y, parent.y, scale)
        assert close(last.bottom, parent.bottom, scale)
    else:
        assert close(first.y + first.height / 2, parent.y + parent.height / 2, scale)


@given(regions, counts, counts, patches)
def test_every_way_to_ask_for_a_cell_agrees(
    parent: Region, rows: int, columns: int, patch: float
) -> None:
    grid = Grid(rows, columns, patch)
    down, across = grid.spans(parent)
    for cell, child in enumerate(grid.children(parent)):
        row, column = grid.row_column(cell)
        assert cell == row * columns + column
        assert child == grid.child(parent, cell)
        assert (child.y, child.height) == down[row]
        assert (child.x, child.width) == across[column]


def test_a_grid_of_known_cells() -> None:
    cells = Grid(2, 3, 0.5).children(Region(10, 20, 100, 40))
    assert [(c.x, c.y) for c in cells] == [
        *[(10, 20), (35, 20), (60, 20)],
        *[(10, 40), (35, 40), (60, 40)],
    ]
    assert {(c.width, c.height) for c in cells} == {(50, 20)}


@pytest.mark.parametrize(
    ("side", "count", "patch", "length", "stride", "pad"),
    [
        (448, 3, 0.5, 224, 112, 0),
        (331, 3, 0.5, 166, 83, 1),
        (250, 3, 0.5, 125, 63, 1),
        (224, 5, 0.34375, 77, 37, 1),
        (308, 5, 0.34375, 106, 51, 1),
        (448, 2, 0.5, 224, 224, 0),
        (1792, 5, 0.35, 627, 292, 2),
    ],
)
def test_the_official_rule_of_the_released_code(
    side: int, count: int, patch: float, length: int, stride: int, pad: int
) -> None:
    wanted = [(i * stride - pad, length) for i in range(count)]
    down, across = Grid(count, count, patch, "official").spans(Region(0, 0, side, side))
    assert down == across == wanted
    moved, _ = Grid(count, count, patch, "official").spans(Region(5, 1000, side, side))
    assert moved == [(1000 + start, length) for start, _ in wanted]


@given(st.integers(2, 5000), counts, st.floats(0.3, 1.0))
def test_official_cells_cover_the_parent_symmetrically(side: int, count: int, patch: float) -> None:
    down, _ = Grid(count, 1, patch, "official").spans(Region(0, 0, side, side))
    before, after = -down[0][0], sum(down[-1]) - side
    if count > 1:
        assert before >= 0
        assert after >= 0
    assert before - after in (0, 1)
    assert all(start == int(start) and length == int(length) for start, length in down)


def test_an_official_patch_of_no_pixel_is_a_sentence() -> None:
    with pytest.raises(TNetError, match=r"a patch of 0\.2 of 2 pixels is less than one pixel"):
        Grid(3, 3, 0.2, "official").spans(Region(0, 0, 2, 2))


@pytest.mark.parametrize(
    ("rows", "columns", "patch", "rule"),
    [
        (0, 1, 0.5, "exact"),
        (1, -1, 0.5, "exact"),
        (1, 1, 0.0, "exact"),
        (1, 1, 1.01, "exact"),
        (1, 1, math.nan, "exact"),
        (1, 1, 0.5, "other"),
    ],
)
def test_senseless_grids_are_refused(rows: int, columns: int, patch: float, rule: str) -> None:
    with pytest.raises(ValueError, match=r"row|patch|rule"):
        Grid(rows, columns, patch, rule)  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", [-1, 6, 100])
def test_there_is_no_such_cell(cell: int) -> None:
    with pytest.raises(IndexError, match="between 0 and 5"):
        Grid(2, 3, 0.5).row_column(cell)


@pytest.mark.parametrize(
    "numbers", [(0, 0, 0, 1), (0, 0, 1, -1), (math.nan, 0, 1, 1), (0, math.inf, 1, 1)]
)
def test_senseless_regions_are_refused(numbers: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="region needs"):
        Region(*numbers)


small = st.builds(Region, *[st.integers(-9, 9).map(float)] * 2, *[st.integers(1, 9).map(float)] * 2)


@given(small, small)
def test_intersection_is_what_both_cover(a: Region, b: Region) -> None:
    def squares(r: Region) -> set[tuple[int, int]]:
        return {
            (x, y) for x in range(int(r.x), int(r.right)) for y in range(int(r.y), int(r.bottom))
        }

    both = a.intersection(b)
    assert both == b.intersection(a)
    assert squares(a) & squares(b) == (squares(both) if both else set())
    assert a.contains(b) == (squares(b) <= squares(a))
    assert a.area == len(squares(a))


@given(counts, counts, patches)
def test_centres_are_fractions_of_the_parent(rows: int, columns: int, patch: float) -> None:
    down, across = Grid(rows, columns, patch).centres()
    assert len(down) == rows
    assert len(across) == columns
    assert all(0 < c < 1 for c in down + across)
    # Symmetric about the middle.
    assert down == pytest.approx([1 - c for c in reversed(down)])
    assert across == pytest.approx([1 - c for c in reversed(across)])
