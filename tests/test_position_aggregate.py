"""Codes of a place, and bags of features."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tnet.aggregate import FeatureWeighting, Mean
from tnet.position import Position, sinusoidal_code


@given(st.integers(6, 40), st.floats(0, 100), st.floats(0, 100), st.floats(0, 9))
def test_the_code_by_hand(channels: int, y: float, x: float, s: float) -> None:
    m = channels // 6
    omega = [math.exp(-i * math.log(100) / max(m - 1, 1)) for i in range(m)]
    wanted = [
        function(value * w)
        for value in (y, x, s)
        for function in (math.sin, math.cos)
        for w in omega
    ]
    wanted += [0.0] * (channels - 6 * m)
    got = sinusoidal_code(torch.tensor([[y, x, s]]), channels)
    torch.testing.assert_close(got[0], torch.tensor(wanted), rtol=0, atol=5e-5)


def test_too_short_a_code_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 6"):
        sinusoidal_code(torch.zeros(1, 3), 5)
    with pytest.raises(ValueError, match="'add' or 'concat'"):
        Position(4, 6, form="multiply")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["add", "concat"])
def test_a_feature_knows_its_place(form: str) -> None:
    torch.manual_seed(0)
    module = Position(5, 12, form=form)  # type: ignore[arg-type]
    feature = torch.randn(1, 5).expand(2, 5)
    here, there = module(feature, torch.tensor([[0.0, 0.0, 0.0], [3.0, 1.0, 2.0]]))
    assert here.shape == (5,)
    assert not torch.allclose(here, there)
    nn.init.zeros_(module.linear.weight)
    here, there = module(feature, torch.tensor([[0.0, 0.0, 0.0], [3.0, 1.0, 2.0]]))
    torch.testing.assert_close(here, there)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.integers(0, 99))
def test_padding_changes_nothing(lengths: list[int], weighting: bool, seed: int) -> None:
    torch.manual_seed(seed)
    module = FeatureWeighting(6) if weighting else Mean()
    longest = max(lengths) + 2
    there = torch.arange(longest) < torch.tensor(lengths)[:, None]
    features = torch.randn(len(lengths), longest, 6)
    features[~there] = 1e6
    together, weights = module(features, there)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(lengths)))
    assert (weights[~there] == 0).all()
    for i, length in enumerate(lengths):
        mine = features[i : i + 1, :length]
        alone, weight = module(mine, torch.ones(1, length, dtype=torch.bool))
        # The mean sums zeros times the padding; nothing is lost but rounding.
        torch.testing.assert_close(together[i], alone[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weights[i, :length], weight[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone[0], (weight[0, :, None] * mine[0]).sum(0))
        if not weighting:
            torch.testing.assert_close(weight[0], torch.full((length,), 1 / length))


@pytest.mark.parametrize("weighting", [False, True])
def test_an_empty_bag_is_zero_and_its_gradient_finite(weighting: bool) -> None:
    module = FeatureWeighting(4) if weighting else Mean()
    features = torch.randn(2, 3, 4, requires_grad=True)
    there = torch.tensor([[False] * 3, [True] * 3])
    out, weights = module(features, there)
    assert (out[0] == 0).all()
    assert (weights[0] == 0).all()
    out.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
