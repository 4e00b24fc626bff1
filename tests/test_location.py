"""From a map to logits over any grid."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tnet.geometry import Grid
from tnet.location import ContextLocation, SqueezeLocation, Tap, l2_normalised, to_grid

sides = st.integers(1, 12)


@given(sides, sides, sides, sides, st.floats(0.05, 1))
def test_a_constant_map_gives_a_constant_grid(
    h: int, w: int, rows: int, columns: int, patch: float
) -> None:
    got = to_grid(torch.full((2, 3, h, w), 4.0), Grid(rows, columns, patch))
    assert got.shape == (2, 3, rows, columns)
    torch.testing.assert_close(got, torch.full_like(got, 4.0))


def test_a_map_of_the_grid_s_own_size_is_interpolated_at_its_centres() -> None:
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    got = to_grid(ramp, Grid(4, 4, 0.25))
    torch.testing.assert_close(got, ramp)


@given(st.integers(2, 6), st.integers(0, 35))
def test_the_brightest_pixel_is_the_brightest_cell(side: int, place: int) -> None:
    row, column = divmod(place % (side * side), side)
    pixels = torch.zeros(1, 1, 8 * side, 8 * side)
    pixels[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    got = to_grid(pixels, Grid(side, side, 1 / side)).flatten()
    assert int(got.argmax()) == row * side + column


def test_a_tap_picks_or_falls_back() -> None:
    feature_map = torch.arange(14.0 * 14).view(1, 1, 14, 14)
    tap = Tap(2, None, 4)
    picked = to_grid(feature_map, Grid(3, 3, 0.5), tap)
    torch.testing.assert_close(picked, feature_map[:, :, [2, 6, 10]][:, :, :, [2, 6, 10]])
    for other in (Grid(3, 4, 0.5), Grid(5, 5, 0.34375)):
        got = to_grid(feature_map, other, tap)
        torch.testing.assert_close(got, to_grid(feature_map, other))


@pytest.mark.parametrize("grid", [Grid(1, 1, 1.0), Grid(2, 5, 0.3), Grid(3, 3, 0.5)], ids=str)
@pytest.mark.parametrize("kind", ["squeeze", "context"])
def test_modules_give_a_logit_a_cell(kind: str, grid: Grid) -> None:
    torch.manual_seed(0)
    module: SqueezeLocation | ContextLocation
    if kind == "squeeze":
        module = SqueezeLocation(6)
    else:
        module = ContextLocation(6, 4, width=8)
    feature_map = torch.randn(3, 6, 7, 5, requires_grad=True)
    context = torch.randn(3, 4, requires_grad=True)
    logits = module(feature_map, context, grid)
    assert logits.shape == (3, grid.cells)
    logits.sum().backward()
    assert [feature_map.grad, context.grad] == [None, None]
    module.detach = False
    module(feature_map, context, grid).square().sum().backward()
    assert feature_map.grad is not None
    assert (context.grad is not None) == (kind == "context")


def test_normalised_logits_have_length_one() -> None:
    logits = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    got = l2_normalised(logits)
    torch.testing.assert_close(got, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    got.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=25))
def test_normalised_logits_are_never_peaked(values: list[float]) -> None:
    p = l2_normalised(torch.tensor([values])).softmax(1)
    assert float(p.max() / p.min()) <= math.exp(math.sqrt(2)) * (1 + 1e-4)
