"""One step down: what may be chosen, what is chosen, and how it is written down."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from fakes import noise
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tnet.adapters.array import open_array
from tnet.descent import Choice, Journey, Visit, descend, root
from tnet.errors import UsageError
from tnet.geometry import Region
from tnet.plan import Plan, Step
from tnet.sampling import plackett_luce_log_probs

PLAN = Plan(view=(32, 32), steps=(Step(3, 3, 0.5, 4),))


def journey(plan: Plan, images: int = 1, seed: int | None = None, side: int = 64) -> Journey:
    pyramids = [open_array(noise(side, side)) for _ in range(images)]
    generators = [
        None if seed is None else torch.Generator().manual_seed(seed + i) for i in range(images)
    ]
    return Journey.start(pyramids, plan, plan.policy, generators)


def go(
    trip: Journey, logits: list[list[float]], shares: NDArray[np.float64] | None = None
) -> Choice:
    front = [root(pyramid, trip.plan, i) for i, pyramid in enumerate(trip.pyramids)]
    return descend(front, 0, torch.tensor(logits), shares, trip)


def cells(choice: Choice) -> list[int | None]:
    return [visit.cell for visit in choice.visits]


@given(st.lists(st.integers(-5, 5), min_size=9, max_size=9), st.integers(0, 9))
def test_the_best_in_raster_order(logits: list[int], count: int) -> None:
    plan = dataclasses.replace(PLAN, steps=(Step(3, 3, 0.5, count),))
    choice = go(journey(plan), [[float(v) for v in logits]])
    best = sorted(range(9), key=lambda i: (-logits[i], i))[:count]
    assert cells(choice) == sorted(best)
    assert [v.rank for v in choice.visits] == [best.index(c) for c in sorted(best)]
    for visit in choice.visits:
        assert visit.cell is not None
        assert visit.cell == 3 * (visit.row or 0) + (visit.column or 0)
        assert (visit.level, visit.parent, visit.image) == (1, 0, 0)
        chance = math.exp(logits[visit.cell]) / sum(math.exp(v) for v in logits)
        assert visit.probability == pytest.approx(chance, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_log_probs_follow_the_draw_and_not_the_raster(seed: int) -> None:
    plan = dataclasses.replace(PLAN, policy="categorical")
    logits = torch.randn(2, 9)
    choice = go(journey(plan, 2, seed), logits.tolist())
    for image in range(2):
        mine = [i for i, v in enumerate(choice.visits) if v.image == image]
        drawn = sorted(mine, key=lambda i: choice.visits[i].rank)
        order = [choice.visits[i].cell or 0 for i in drawn]
        wanted = plackett_luce_log_probs(logits[image][None], torch.tensor([order]))[0]
        torch.testing.assert_close(choice.log_prob[drawn], wanted)
        marginal = torch.log(logits[image].softmax(0)[order] + 1e-10)
        torch.testing.assert_close(choice.marginal[drawn], marginal)


def test_parents_that_draw_unequally_keep_their_rows() -> None:
    plan = dataclasses.replace(PLAN, background=0.5)
    logits = torch.randn(3, 9)
    # Of the last view the cells 0, 1 and 3 are at least half full.
    corner = np.array([1.0, 0.5, 0.0, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0])
    shares = np.stack([np.zeros(9), np.ones(9), corner])
    choice = go(journey(plan, 3), logits.tolist(), shares)
    assert [v.image for v in choice.visits] == [1] * 4 + [2] * 3
    assert cells(choice)[4:] == [0, 1, 3]
    assert choice.parents == [1, 2]
    assert choice.logits_PN.shape == (2, 9)
    assert torch.isinf(choice.logits_PN[1]).tolist() == [i not in (0, 1, 3) for i in range(9)]
    for i, visit in enumerate(choice.visits):
        row = choice.logits_PN[choice.parents.index(visit.parent or 0)]
        assert visit.probability == pytest.approx(float(row.softmax(0)[visit.cell or 0]), rel=1e-5)
        if visit.rank == 0:
            torch.testing.assert_close(choice.log_prob[i].exp(), row.softmax(0)[visit.cell or 0])


def test_where_nothing_may_be_chosen_nothing_is() -> None:
    plan = dataclasses.replace(PLAN, background=0.02)
    choice = go(journey(plan), [[0.0] * 9], np.zeros((1, 9)))
    assert choice.visits == []
    assert choice.log_prob.shape == choice.marginal.shape == (0,)
    assert choice.logits_PN.shape == (0, 9)


def test_two_parents_do_not_choose_the_same_child() -> None:
    # Neighbours of the 3x3 grid of halves share three of their own candidates.
    plan = Plan(view=(32, 32), steps=(Step(1, 3, 0.5, 3),) * 2)
    trip = journey(plan)
    first = go(trip, [[3.0, 2.0, 1.0]])
    assert len(first.visits) == 3
    second = descend(first.visits, 1, torch.zeros(3, 3), None, trip)
    places = [(v.region.x, v.region.y) for v in second.visits]
    assert len(places) == len(set(places)) == 7
    again = dataclasses.replace(plan, revisit=True)
    trip = journey(again)
    second = descend(go(trip, [[3.0, 2.0, 1.0]]).visits, 1, torch.zeros(3, 3), None, trip)
    assert len(second.visits) == 9


def test_zero_fill_is_bounded_by_all_ancestors() -> None:
    plan = Plan(
        view=(8, 8), steps=(Step(3, 3, 0.5, 9),) * 2, rule="official", outside="zero", revisit=True
    )
    trip = journey(plan, side=11)
    first = go(trip, [[0.0] * 9])
    assert {v.valid for v in first.visits} == {Region(0, 0, 11, 11)}
    second = descend(first.visits, 1, torch.zeros(9, 9), None, trip)
    for visit in second.visits:
        assert visit.parent is not None
        parent = first.visits[visit.parent - 1].region
        assert visit.valid is not None
        assert visit.valid == parent.intersection(Region(0, 0, 11, 11))


@pytest.mark.parametrize("positions", ["cells", "centres"])
def test_positions(positions: str) -> None:
    plan = Plan(
        view=(8, 8),
        steps=(Step(2, 4, 0.25, 8), Step(2, 2, 0.5, 1)),
        positions=positions,  # type: ignore[arg-type]
    )
    trip = journey(plan)
    first = go(trip, [[float(i) for i in range(8)]])
    second = descend(first.visits[-1:], 8, torch.zeros(1, 4), None, trip)
    trip_root = root(trip.pyramids[0], plan, 0)
    if positions == "cells":
        found = [trip_root.position, first.visits[5].position, second.visits[0].position]
        assert found == [(0, 0, 0), (1, 1, 1), (2, 6, 2)]
    else:
        found = [trip_root.position, first.visits[0].position, second.visits[0].position]
        np.testing.assert_allclose(found, [(50, 50, 0), (12.5, 12.5, 2), (81.25, 81.25, 3)])


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 99), st.integers(1, 99))
def test_the_first_look_sees_all_and_keeps_shapes(
    height: int, width: int, across: int, down: int
) -> None:
    pyramid = open_array(np.broadcast_to(np.uint8(3), (height, width)))
    plan = Plan(view=(across, down))
    whole = Region(0, 0, width, height)
    assert root(pyramid, plan, 0).region == whole
    kept = root(pyramid, dataclasses.replace(plan, aspect="keep"), 0).region
    assert kept.width / across == pytest.approx(kept.height / down)
    assert min(kept.width - width, kept.height - height) == pytest.approx(0, abs=1e-6)
    assert kept.x + kept.width / 2 == pytest.approx(width / 2)
    assert kept.y + kept.height / 2 == pytest.approx(height / 2)


def test_too_many_regions_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tnet.descent.MOST_GLIMPSES", 4)
    with pytest.raises(UsageError, match="more than 4 regions"):
        go(journey(PLAN), [[0.0] * 9])


def test_a_visit_is_what_it_says() -> None:
    visit = Visit(0, 0, Region(0, 0, 1, 1), None, (0, 0, 0))
    assert (visit.parent, visit.cell, visit.probability, visit.rank) == (None, None, 1.0, 0)
