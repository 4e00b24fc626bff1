"""Plans: what they mean, and what they refuse."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tnet.errors import DataError, UsageError
from tnet.geometry import Region
from tnet.plan import Plan, Step

STEP = Step(3, 3, 0.5, 2)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    rows, columns = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    return Step(rows, columns, draw(st.floats(0.05, 0.9)), draw(st.integers(0, rows * columns)))


plans = st.builds(
    Plan,
    view=st.tuples(st.integers(1, 512), st.integers(1, 512)),
    steps=st.lists(steps(), min_size=1, max_size=4).map(tuple),
    until=st.sampled_from(["steps", "native"]) | st.floats(0.01, 100),
    rule=st.sampled_from(["exact", "official"]),
    resampling=st.sampled_from(["antialias", "official"]),
    outside=st.sampled_from(["image", "zero"]),
    aspect=st.sampled_from(["stretch", "keep"]),
    revisit=st.booleans(),
    background=st.none() | st.floats(0, 1),
    positions=st.sampled_from(["cells", "centres"]),
    policy=st.sampled_from(["greedy", "categorical", "uniform"]),
    first_view=st.none() | st.tuples(st.integers(1, 512), st.integers(1, 512)),
)


@given(plans)
def test_a_plan_survives_json(plan: Plan) -> None:
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict(), allow_nan=False))) == plan


def test_nothing_said_is_the_default() -> None:
    assert Plan.from_dict({}) == Plan()


WRONG_STEPS: list[dict[str, Any]] = [
    {"glimpses": -1},
    {"glimpses": 10},
    {"glimpses": 1.5},
    {"glimpses": True},
    {"rows": 0},
    {"rows": 10**9},
    {"rows": 257, "columns": 256},
    {"rows": 2.5},
    {"rows": "3"},
    {"columns": None},
    {"patch": 0},
    {"patch": 1.5},
    {"patch": math.nan},
    {"patch": "half"},
    {"colour": "red"},
]


@pytest.mark.parametrize("change", WRONG_STEPS, ids=str)
def test_senseless_steps_are_refused(change: dict[str, Any]) -> None:
    step = {"rows": 3, "columns": 3, "patch": 0.5, "glimpses": 2} | change
    with pytest.raises(UsageError, match="plan: "):
        Plan.from_dict({"steps": [step]})


WRONG: list[dict[str, Any]] = [
    {"view": [224]},
    {"view": [224, 224, 3]},
    {"view": [0, 224]},
    {"view": [224.5, 224]},
    {"view": ["a", "b"]},
    {"view": None},
    {"view": 224},
    {"view": [4097, 10]},
    {"view": [10**12, 1]},
    {"view": [math.inf, 1]},
    {"steps": 3},
    {"steps": None},
    {"steps": [3]},
    {"steps": ["abc"]},
    {"steps": [{"rows": 3}]},
    {"steps": [{"rows": 1, "columns": 1, "patch": 0.5, "glimpses": 1}] * 33},
    {"until": "bottom"},
    {"until": "native"},
    {"until": 0.5},
    {"until": None},
    {"until": []},
    {"rule": "rough"},
    {"rule": []},
    {"resampling": "nearest"},
    {"outside": {}},
    {"aspect": "crop"},
    {"positions": 1},
    {"policy": "argmax"},
    {"revisit": "no"},
    {"revisit": 1},
    {"background": 1.5},
    {"background": -0.1},
    {"background": math.nan},
    {"background": "glass"},
    {"speed": 3},
]


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_senseless_plans_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="plan: "):
        Plan.from_dict(values)


@pytest.mark.parametrize("until", [0, -1.0, math.nan, math.inf, True, [1]])
def test_senseless_ends_are_refused(until: Any) -> None:
    with pytest.raises(UsageError, match="plan: "):
        Plan(steps=(STEP,), until=until)


@pytest.mark.parametrize("values", [None, 3, "plan", [1], [["view", [224, 224]]]])
def test_what_is_no_plan_at_all_is_refused(values: Any) -> None:
    with pytest.raises(UsageError, match="plan: "):
        Plan.from_dict(values)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["rows", "columns", "patch", "glimpses"]), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(Plan().to_dict())), json_values))
def test_hostile_values_are_a_plan_or_a_sentence(values: dict[str, Any]) -> None:
    try:
        plan = Plan.from_dict(values)
    except UsageError:
        return
    assert json.loads(json.dumps(plan.to_dict(), allow_nan=False))


def test_a_last_step_that_does_not_shrink_has_no_end() -> None:
    with pytest.raises(UsageError, match="patch is smaller than 1"):
        Plan(steps=(Step(2, 2, 1.0, 1),), until="native")


def test_steps_end_or_are_repeated() -> None:
    other = Step(2, 2, 0.5, 1)
    plan = Plan(steps=(STEP, other))
    assert [plan.step(level) for level in range(4)] == [STEP, other, None, None]
    deep = Plan(steps=(STEP, other), until="native")
    assert [deep.step(level) for level in range(4)] == [STEP, other, other, other]
    assert Plan().step(0) is None


@pytest.mark.parametrize(
    ("until", "side", "mpp", "enough"),
    [
        ("steps", 1.0, None, False),
        ("native", 224.0, None, True),
        ("native", 224.5, None, False),
        ("native", 224.00000000000003, None, True),
        (0.5, 448.0, (0.25, 0.25), True),
        (0.5, 449.0, (0.25, 0.25), False),
        (0.5, 448.0, (0.25, 0.26), False),
    ],
)
def test_fine_enough(
    until: Any, side: float, mpp: tuple[float, float] | None, enough: bool
) -> None:
    plan = Plan(steps=(STEP,), until=until)
    assert plan.fine_enough(Region(3, 4, side, side), mpp) is enough


def test_the_first_view_has_its_own_fineness() -> None:
    plan = Plan(view=(100, 100), first_view=(400, 200), steps=(STEP,), until="native")
    assert [plan.view_at(level) for level in range(3)] == [(400, 200), (100, 100), (100, 100)]
    region = Region(0, 0, 400, 200)
    assert plan.fine_enough(region, None, 0)
    assert not plan.fine_enough(region, None, 1)


def test_a_plan_in_micrometres_needs_an_image_that_knows_its_scale() -> None:
    plan = Plan(steps=(STEP,), until=0.5)
    with pytest.raises(DataError, match="give --mpp"):
        plan.fine_enough(Region(0, 0, 9, 9), None)


def test_other_numbers_of_glimpses() -> None:
    other = Step(2, 2, 0.5, 1)
    plan = Plan(steps=(STEP, other), until="native")
    deeper = plan.with_glimpses([9, 4, 3, 0])
    assert deeper.until == "steps"
    assert [(s.rows, s.glimpses) for s in deeper.steps] == [(3, 9), (2, 4), (2, 3), (2, 0)]
    assert plan.with_glimpses([1]).steps == (Step(3, 3, 0.5, 1),)
    assert plan.with_glimpses([]).steps == ()
    assert Plan().with_glimpses([]).steps == ()
    with pytest.raises(UsageError, match="between 0 and 4"):
        plan.with_glimpses([1, 5])
    with pytest.raises(UsageError, match="no grid"):
        Plan().with_glimpses([1])
    with pytest.raises(UsageError, match="32"):
        plan.with_glimpses([1] * 33)


def test_no_glimpses_below_none() -> None:
    plan = Plan(steps=(STEP, STEP))
    assert plan.with_glimpses([2, 0]).steps[1].glimpses == 0
    with pytest.raises(UsageError, match="below a step of 0 glimpses"):
        plan.with_glimpses([2, 0, 1])
