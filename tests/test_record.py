"""A walk as a value: JSON and back, and what is refused."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tnet.errors import DataError
from tnet.geometry import Region
from tnet.plan import Plan
from tnet.record import NO_EVIDENCE, SCHEMA, Chances, Glimpse, Walk, softmax

finite = st.floats(-1e9, 1e9)
parts = st.floats(0, 1)
sides = st.floats(1e-3, 1e6)


@st.composite
def chances(draw: st.DrawFn, glimpses: int) -> Chances:
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    cells = st.lists(st.none() | parts, min_size=rows * columns, max_size=rows * columns)
    parent = draw(st.integers(0, glimpses - 1))
    return Chances(parent, rows, columns, draw(st.floats(0.01, 1)), tuple(draw(cells)))


@st.composite
def walks(draw: st.DrawFn) -> Walk:
    count = draw(st.integers(1, 4))
    classes = tuple(draw(st.lists(st.text(), min_size=count, max_size=count, unique=True)))
    numbers = st.lists(finite, min_size=count, max_size=count).map(tuple)
    glimpses = [
        Glimpse(0, Region(0.0, 0.0, 9.0, 9.0), None, None, None, 1.0, 0.0, 0, 1.0, draw(numbers))
    ]
    for i in range(draw(st.integers(0, 5))):
        parent = draw(st.integers(0, i))
        region = Region(draw(finite), draw(finite), draw(sides), draw(sides))
        glimpses.append(
            Glimpse(
                glimpses[parent].level + 1,
                region,
                parent,
                draw(st.integers(0, 9)),
                draw(st.integers(0, 9)),
                draw(parts),
                draw(st.floats(-99, 0)),
                draw(st.integers(0, 9)),
                draw(parts),
                draw(numbers),
            )
        )
    empty = draw(st.booleans())
    logits = np.full(count, math.nan) if empty else np.array(draw(numbers), dtype=np.float64)
    return Walk(
        image=draw(st.text()),
        width=draw(st.integers(1, 10**6)),
        height=draw(st.integers(1, 10**6)),
        classes=classes,
        logits=logits,
        probabilities=softmax(logits.tolist()),
        outcome=NO_EVIDENCE if empty else "class",
        bias=draw(numbers),
        glimpses=tuple(glimpses),
        view=(draw(st.integers(1, 999)), draw(st.integers(1, 999))),
        spacing=draw(st.none() | st.tuples(sides, sides)),
        unit=draw(st.none() | st.just("µm")),
        crs=draw(st.none() | st.text()),
        transform=draw(st.none() | st.tuples(*[finite] * 6)),
        plan=Plan().to_dict(),
        model=draw(st.text()),
        seconds=draw(st.floats(0, 99)),
        notes=tuple(draw(st.lists(st.text(), max_size=2))),
        grids=tuple(draw(st.lists(chances(len(glimpses)), max_size=2))),
        aggregate=draw(st.text()),
        features=np.zeros((len(glimpses), 2), dtype=np.float32),
    )


@given(walks(), st.none() | st.integers(0, 3))
def test_a_walk_survives_json(walk: Walk, indent: int | None) -> None:
    text = walk.to_json(indent)
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert record["schema"] == SCHEMA
    assert "features" not in record
    assert record["label"] == walk.label
    again = Walk.from_json(text)
    assert again.features is None
    assert again == walk
    assert again.glimpses == walk.glimpses
    assert (again.view, again.spacing, again.transform) == (walk.view, walk.spacing, walk.transform)
    np.testing.assert_array_equal(again.logits, walk.logits)
    assert (again.label, again.confidence) == (walk.label, walk.confidence)


def one() -> Walk:
    glimpse = Glimpse(0, Region(0, 0, 8, 8), None, None, None, 1.0, 0.0, 0, 0.5, (1.0, -1.0))
    child = Glimpse(1, Region(4, 4, 4, 4), 0, 1, 1, 0.25, -1.5, 0, 0.5, (0.5, 0.25))
    return Walk(
        image="a",
        width=8,
        height=8,
        classes=("x", "y"),
        logits=np.array([1.5, -0.75]),
        probabilities=softmax([1.5, -0.75]),
        outcome="class",
        bias=(0.0, 0.0),
        glimpses=(glimpse, child),
        view=(4, 4),
        grids=(Chances(0, 1, 2, 0.5, (0.25, None)),),
        aggregate="mean",
    )


def test_what_a_walk_says_of_itself() -> None:
    walk = one()
    assert walk.label == "x"
    assert walk.confidence == pytest.approx(1 / (1 + math.exp(-2.25)))
    assert walk.log_prob == -1.5
    assert (walk.pixels, walk.share) == (32, 0.5)
    assert walk.to_dict()["cost"] == {"glimpses": 2, "pixels": 32, "share": 0.5}
    assert walk != "a walk"
    assert walk != replace(walk, image="b")
    assert walk == replace(walk, features=np.ones((2, 3), dtype=np.float32))


DAMAGED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "later schema": (("schema",), "tnet.walk/2"),
    "no schema": (("schema",), None),
    "glimpses number": (("glimpses",), 3),
    "glimpses none": (("glimpses",), None),
    "glimpse number": (("glimpses", 0), 3),
    "glimpse list": (("glimpses", 0), []),
    "region": (("glimpses", 0, "region"), [0, 0, 1, 1]),
    "region size": (("glimpses", 0, "region", "width"), -3),
    "region text": (("glimpses", 0, "region", "x"), "left"),
    "region huge": (("glimpses", 0, "region", "x"), 10**400),
    "region more": (("glimpses", 0, "region", "depth"), 3),
    "glimpse more": (("glimpses", 0, "colour"), 3),
    "contributions": (("glimpses", 1, "contributions"), [1.0]),
    "contributions none": (("glimpses", 1, "contributions"), None),
    "parent itself": (("glimpses", 1, "parent"), 1),
    "parent later": (("glimpses", 0, "parent"), 1),
    "parent negative": (("glimpses", 1, "parent"), -1),
    "parent text": (("glimpses", 1, "parent"), "0"),
    "level": (("glimpses", 1, "level"), 2),
    "logits short": (("logits",), [1.0]),
    "logits text": (("logits",), ["a", "b"]),
    "logits huge": (("logits",), [10**400, 0]),
    "logits none": (("logits",), None),
    "probabilities": (("probabilities",), [[1, 2], [3, 4]]),
    "bias": (("bias",), [0.0]),
    "classes": (("classes",), 5),
    "class numbers": (("classes",), [1, 2]),
    "view": (("view",), [4]),
    "width": (("width",), 0),
    "height": (("height",), "tall"),
    "outcome": (("outcome",), "maybe"),
    "no glimpses": (("glimpses",), []),
    "grid of nobody": (("grids", 0, "parent"), 2),
    "grid negative": (("grids", 0, "parent"), -1),
    "grid larger": (("grids", 0, "rows"), 2),
    "grid without rows": (("grids", 0, "rows"), 0),
    "grid patch": (("grids", 0, "patch"), 1.5),
    "grid above one": (("grids", 0, "probabilities"), [1.5, None]),
    "grid text": (("grids", 0, "probabilities"), ["a", None]),
    "grid more": (("grids", 0, "colour"), 3),
    "grids": (("grids",), 3),
    "aggregate": (("aggregate",), 3),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_records_are_refused(name: str) -> None:
    keys, value = DAMAGED[name]
    record = json.loads(one().to_json())
    inner = record
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    with pytest.raises(DataError, match="this"):
        Walk.from_json(json.dumps(record))


def test_walks_from_before_are_read() -> None:
    record = json.loads(one().to_json())
    del record["first_view"], record["multilabel"], record["grids"], record["aggregate"]
    read = Walk.from_json(json.dumps(record))
    assert read == replace(one(), grids=(), aggregate="")
    assert (read.first_view, read.multilabel, read.additive) == (None, False, False)


def test_a_grid_takes_one_line() -> None:
    text = one().to_json(indent=1)
    assert json.loads(text) == json.loads(one().to_json())
    assert sum('"probabilities": [0.25, null]' in line for line in text.splitlines()) == 1
    assert json.loads(replace(one(), grids=()).to_json(indent=0))["grids"] == []


@pytest.mark.parametrize(
    "change",
    [{"first_view": [3]}, {"first_view": [-1, 5]}, {"first_view": 3}, {"multilabel": "yes"}],
    ids=str,
)
def test_senseless_views_and_kinds_are_noticed(change: dict[str, Any]) -> None:
    record = json.loads(one().to_json()) | change
    with pytest.raises(DataError, match="incomplete or damaged"):
        Walk.from_json(json.dumps(record))


def test_pixels_count_what_the_network_looked_at() -> None:
    walk = one()
    others = (len(walk.glimpses) - 1) * walk.view[0] * walk.view[1]
    assert replace(walk, first_view=(30, 20)).pixels == 600 + others
    assert replace(walk, first_view=(0, 0)).pixels == others


LATER = {"first_view", "multilabel", "grids", "aggregate", "temperature", "made"}


def test_every_missing_field_is_noticed() -> None:
    record = json.loads(one().to_json())
    for key in sorted(set(record) - LATER - {"label", "cost", "additive"}):
        with pytest.raises(DataError, match="this"):
            Walk.from_json(json.dumps({k: v for k, v in record.items() if k != key}))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"walk"', "[" * 100_000])
def test_what_is_no_walk(text: str) -> None:
    with pytest.raises(DataError, match="this is not a walk"):
        Walk.from_json(text)


@given(st.data())
def test_truncated_json_is_refused(data: st.DataObject) -> None:
    text = one().to_json()
    with pytest.raises(DataError, match="this is not a walk"):
        Walk.from_json(text[: data.draw(st.integers(0, len(text) - 1))])


def test_softmax() -> None:
    np.testing.assert_allclose(softmax([0.0, math.log(3)]), [0.25, 0.75])
    np.testing.assert_allclose(softmax([1000.0, 0.0]), [1, 0])
