"""Choosing without replacement: the frequencies and log-probabilities, by enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tnet.sampling import (
    POLICIES,
    choose,
    gumbel,
    marginal_log_probs,
    plackett_luce_log_probs,
    scores,
)

LOGITS = torch.tensor([0.5, -1.0, 1.5, 0.0], dtype=torch.float64)
INF = float("inf")
numbers = st.floats(-20, 20, width=32)


def plackett_luce(logits: list[float], order: tuple[int, ...]) -> float:
    """The probability of an ordered sample, drawn from an urn, one by one."""
    weight = [math.exp(v) for v in logits]
    chance, left = 1.0, sum(weight)
    for cell in order:
        chance *= weight[cell] / left
        left -= weight[cell]
    return chance


@given(st.lists(numbers, min_size=1, max_size=12), st.integers(0, 14))
def test_greedy_takes_the_best_and_ties_go_to_the_lowest_index(
    values: list[float], count: int
) -> None:
    # Whole numbers are far enough apart not to count as tied by rounding.
    whole = [float(round(v)) for v in values]
    wanted = sorted(range(len(whole)), key=lambda i: (-whole[i], i))[:count]
    assert choose(scores(torch.tensor(whole), "greedy", None), count) == wanted


def test_rounding_noise_is_a_tie() -> None:
    assert choose(torch.tensor([1.0, 1.0 + 1e-7, 1.0 - 1e-7, 0.0]), 3) == [0, 1, 2]
    assert choose(torch.zeros(9), 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_forbidden_cell_is_never_chosen(policy: str) -> None:
    logits = torch.tensor([-INF, 0.0, -INF, 3.0, -50.0])
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        cells = choose(scores(logits, policy, generator), 4)  # type: ignore[arg-type]
        assert sorted(cells) == [1, 3, 4]


@pytest.mark.parametrize("policy", ["categorical", "uniform"])
def test_draws_are_seeded(policy: str) -> None:
    def draw(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return choose(scores(torch.zeros(100), policy, generator), 10)  # type: ignore[arg-type]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    with pytest.raises(ValueError, match="needs a seed"):
        scores(torch.zeros(3), policy, None)  # type: ignore[arg-type]


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="greedy, categorical, uniform"):
        scores(torch.zeros(3), "softmax", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["categorical", "uniform"])
def test_frequencies_of_ordered_samples_are_plackett_luce(policy: str) -> None:
    draws, count = 12_000, 2
    generator = torch.Generator().manual_seed(11)
    seen: dict[tuple[int, ...], int] = {}
    for _ in range(draws):
        order = tuple(choose(scores(LOGITS, policy, generator), count))  # type: ignore[arg-type]
        seen[order] = seen.get(order, 0) + 1
    logits = LOGITS.tolist() if policy == "categorical" else [0.0] * 4
    orders = list(itertools.permutations(range(4), count))
    expected = [draws * plackett_luce(logits, order) for order in orders]
    chi = sum((seen.get(o, 0) - e) ** 2 / e for o, e in zip(orders, expected, strict=True))
    assert sum(seen.values()) == draws
    # 11 degrees of freedom: 31.3 is exceeded once in a thousand tries.
    assert chi < 31.3


def test_gumbel_has_its_mean_and_variance() -> None:
    values = gumbel(200_000, torch.Generator().manual_seed(0))
    assert values.isfinite().all()
    assert float(values.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(values.var()) == pytest.approx(math.pi**2 / 6, abs=0.03)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("forbidden", [(), (1,), (0, 3)])
def test_log_probs_of_all_ordered_samples_sum_to_one(
    count: int, forbidden: tuple[int, ...]
) -> None:
    allowed = [i for i in range(4) if i not in forbidden]
    if count > len(allowed):
        count = len(allowed)
    logits = LOGITS.clone()
    logits[list(forbidden)] = -INF
    orders = list(itertools.permutations(allowed, count))
    log_p = plackett_luce_log_probs(logits.expand(len(orders), 4), torch.tensor(orders))
    assert float(log_p.sum(1).exp().sum()) == pytest.approx(1.0, abs=1e-12)
    wanted = [plackett_luce(logits.tolist(), order) for order in orders]
    np.testing.assert_allclose(log_p.sum(1).exp().numpy(), wanted, atol=1e-12)


@given(st.lists(numbers, min_size=2, max_size=8), st.data())
def test_log_probs_and_their_gradients_are_finite(values: list[float], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(values))))
    count = data.draw(st.integers(1, len(values)))
    logits = torch.tensor([[*values, 7.0]], requires_grad=True)
    masked = logits.masked_fill(torch.tensor([[False] * len(values) + [True]]), -INF)
    log_p = plackett_luce_log_probs(masked, torch.tensor([order[:count]]))
    assert log_p.isfinite().all()
    assert (log_p <= 1e-5).all()
    log_p.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert float(logits.grad[0, -1]) == 0
    # The probabilities do not change when all logits do.
    assert float(logits.grad.sum()) == pytest.approx(0, abs=1e-4)


def test_the_last_cell_that_is_left_is_certain_even_after_a_sure_draw() -> None:
    logits = torch.tensor([[100.0, 0.0, -INF]])
    log_p = plackett_luce_log_probs(logits, torch.tensor([[0, 1]]))
    torch.testing.assert_close(log_p, torch.zeros(1, 2))


def test_gradient_is_that_of_the_enumerated_probability() -> None:
    logits = LOGITS.clone().requires_grad_()
    plackett_luce_log_probs(logits[None], torch.tensor([[2, 0]])).sum().backward()
    step = 1e-6
    for i in range(4):
        ends = []
        for sign in (1, -1):
            moved = LOGITS.tolist()
            moved[i] += sign * step
            ends.append(math.log(plackett_luce(moved, (2, 0))))
        assert logits.grad is not None
        assert float(logits.grad[i]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


def test_marginals_are_as_released() -> None:
    p = LOGITS.softmax(0)
    got = marginal_log_probs(LOGITS[None], torch.tensor([[2, 0]]))
    wanted: Tensor = torch.log(p[[2, 0]] + 1e-10)
    torch.testing.assert_close(got[0], wanted)
    sure = marginal_log_probs(torch.tensor([[0.0, -1e4]]), torch.tensor([[1]]))
    assert float(sure) == pytest.approx(math.log(1e-10))


def test_no_draw_has_no_log_prob() -> None:
    none = torch.empty(2, 0, dtype=torch.int64)
    assert plackett_luce_log_probs(torch.zeros(2, 3), none).shape == (2, 0)
    assert marginal_log_probs(torch.zeros(2, 3), none).shape == (2, 0)


@given(st.lists(numbers, min_size=6, max_size=6), st.permutations(range(6)), st.integers(1, 6))
def test_any_number_of_draws_has_the_probability_and_gradient_of_its_definition(
    values: list[float], order: list[int], count: int
) -> None:
    cells = torch.tensor([order[:count]])
    logits = torch.tensor([[*values, -INF]], dtype=torch.float64, requires_grad=True)
    log_p = plackett_luce_log_probs(logits, cells)
    (gradient,) = torch.autograd.grad(log_p.sum(), logits)
    terms = [
        logits[0, order[j]] - logits.scatter(1, cells[:, :j], -INF).logsumexp(dim=1)
        for j in range(count)
    ]
    wanted = torch.stack(terms, dim=1)
    torch.testing.assert_close(log_p, wanted)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted.sum(), logits)[0])
