"""Numbers of glimpses and temperatures that fall while training lasts."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tnet.annealing import Anneal, plan_at, temperature_at
from tnet.errors import UsageError
from tnet.plan import Plan, Step

PLAN = Plan(view=(32, 32), steps=(Step(12, 12, 0.1, 8), Step(3, 3, 0.5, 2)))


def glimpses(progress: float, anneal: Anneal, plan: Plan = PLAN) -> list[int]:
    return [step.glimpses for step in plan_at(plan, anneal, progress).steps]


def test_each_halving_takes_as_long_as_the_one_before() -> None:
    plan = replace(PLAN, steps=PLAN.steps[:1])
    anneal = Anneal((128,), share=0.8)
    assert [glimpses(p, anneal, plan)[0] for p in (0, 0.2, 0.4, 0.6, 0.8, 1)] == [
        *(128, 64, 32, 16),
        *(8, 8),
    ]


def test_at_the_end_the_plan_is_the_plan() -> None:
    assert plan_at(PLAN, Anneal((96,), share=0.7), 0.7) is PLAN


def test_a_grid_has_only_so_many_cells() -> None:
    assert glimpses(0, Anneal((1000, 1000))) == [144, 9]


def test_while_it_explores_the_numbers_stay() -> None:
    plan = replace(PLAN, steps=PLAN.steps[:1])
    anneal = Anneal((128,), share=0.8, explore=0.4)
    assert [glimpses(p, anneal, plan)[0] for p in (0, 0.2, 0.4, 0.6, 0.8, 1)] == [
        *(128, 128, 128, 32),
        *(8, 8),
    ]
    assert [anneal.explores(p) for p in (0, 0.39, 0.4, 1)] == [True, True, False, False]
    assert not Anneal((128,)).explores(0)


@pytest.mark.parametrize("explore", [-0.1, 0.7, 0.8, math.nan])
def test_it_explores_for_less_time_than_numbers_take_to_fall(explore: float) -> None:
    with pytest.raises(UsageError, match="explore"):
        Anneal((4,), 0.7, explore)


def test_steps_without_a_number_keep_the_plan_s() -> None:
    assert glimpses(0, Anneal((96,))) == [96, 2]


def test_a_step_of_no_glimpses_ends_at_none() -> None:
    plan = replace(PLAN, steps=(Step(3, 3, 0.5, 0),))
    anneal = Anneal((9,), share=0.5)
    assert glimpses(0, anneal, plan) == [9]
    assert glimpses(0.49, anneal, plan) == [1]
    assert glimpses(0.5, anneal, plan) == [0]


@given(st.integers(1, 144), st.integers(1, 144), st.floats(0, 1), st.floats(0, 1))
def test_numbers_stay_between_both_ends(start: int, end: int, one: float, two: float) -> None:
    plan = replace(PLAN, steps=(Step(12, 12, 0.1, end),))
    early, late = sorted((one, two))
    anneal = Anneal((start,), share=0.9)
    before, after = glimpses(early, anneal, plan)[0], glimpses(late, anneal, plan)[0]
    assert min(start, end) <= after <= max(start, end)
    assert (before >= after) if start >= end else (before <= after)


def test_more_numbers_than_steps_are_refused() -> None:
    with pytest.raises(UsageError, match="3 numbers of glimpses and the plan 2 steps"):
        plan_at(PLAN, Anneal((9, 9, 9)), 0.0)


@pytest.mark.parametrize("start", [(), (0,), (4, -1)], ids=str)
def test_senseless_starts_are_refused(start: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="start needs a number"):
        Anneal(start)


@pytest.mark.parametrize("share", [0, -1, 1.5, math.nan])
def test_senseless_shares_are_refused(share: float) -> None:
    with pytest.raises(UsageError, match="share must be"):
        Anneal((4,), share)


def test_temperature_falls_to_one() -> None:
    assert [temperature_at(4.0, 0.5, p) for p in (0, 0.25, 0.5, 1)] == pytest.approx([4, 2, 1, 1])
    assert temperature_at(1.0, 1.0, 0.3) == 1
