"""Temperature scaling: probabilities that mean what they say, and logits that stay sums."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import fake_model, noise
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tnet.adapters.array import open_array
from tnet.calibration import (
    COLDEST,
    HOTTEST,
    LEAST_IMAGES,
    calibrate,
    negative_log_likelihood,
    probabilities_of,
)
from tnet.errors import DataError
from tnet.faithfulness import faithfulness
from tnet.plan import Plan, Step
from tnet.record import Walk
from tnet.traversal import walk
from tnet.validation import Scores

PLAN = Plan(view=(40, 40), steps=(Step(4, 4, 0.375, 2),))


def said(
    images: int, classes: int, scale: float, seed: int, *, several: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64 | np.bool_]]:
    """Logits, and labels that are drawn with the probabilities of the logits over ``scale``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (images, classes)) * scale
    chances = probabilities_of(logits / scale, multilabel=several)
    if several:
        return logits, rng.random((images, classes)) < chances
    return logits, np.array([rng.choice(classes, p=row) for row in chances])


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several"])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_finds_the_temperature_that_logits_were_multiplied_by(scale: float, several: bool) -> None:
    logits, target = said(4000, 3, scale, 0, several=several)
    found = calibrate(logits, target)
    assert found.temperature == pytest.approx(scale, rel=0.08)
    assert (found.images, found.reason) == (4000, None)


@given(
    st.integers(LEAST_IMAGES, 40),
    st.integers(2, 4),
    st.floats(0.05, 8),
    st.integers(0, 10**6),
    st.booleans(),
)
def test_never_worse_and_never_another_class(
    images: int, classes: int, scale: float, seed: int, several: bool
) -> None:
    logits, target = said(images, classes, scale, seed, several=several)
    found = calibrate(logits, target)
    t = found.temperature
    after = negative_log_likelihood(logits, target, t)
    assert after <= negative_log_likelihood(logits, target, 1.0)
    assert COLDEST <= t <= HOTTEST
    before, then = (probabilities_of(logits, multilabel=several, temperature=u) for u in (1.0, t))
    assert (before.argmax(axis=1) == then.argmax(axis=1)).all()
    assert ((before > 0.5) == (then > 0.5)).all() or not several
    if found.reason is None:  # and nothing near it is better
        for other in (t * 1.01, t / 1.01):
            assert negative_log_likelihood(logits, target, other) > after
    else:
        assert t == 1


def test_the_likelihood_is_torchs() -> None:
    logits, target = said(30, 4, 1.0, 1, several=False)
    told = torch.nn.functional.cross_entropy(torch.from_numpy(logits / 2), torch.tensor(target))
    assert negative_log_likelihood(logits, target, 2.0) == pytest.approx(float(told))
    logits, target = said(30, 4, 1.0, 1, several=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    told = loss(torch.from_numpy(logits / 2), torch.tensor(target).double())
    assert negative_log_likelihood(logits, target, 2.0) == pytest.approx(float(told))


RIGHT = np.eye(2).repeat(10, axis=0) * 4
LABELS = np.arange(2).repeat(10)


@pytest.mark.parametrize(
    ("logits", "target", "reason"),
    [
        (RIGHT[:9], LABELS[:9], "9 validation images are fewer than 10"),
        (RIGHT, LABELS * 0, "the same label"),
        (RIGHT, LABELS, "too easy"),
        (RIGHT, 1 - LABELS, "no better than chance"),
        (RIGHT * math.nan, LABELS, "no numbers"),
    ],
    ids=["few", "one class", "all right", "all wrong", "nan"],
)
def test_where_nothing_can_be_fitted_it_says_so(
    logits: NDArray[np.float64], target: NDArray[np.int64], reason: str
) -> None:
    found = calibrate(logits, target)
    assert (found.temperature, found.log_loss) == (1, None)
    assert reason in found.told()


def walked(temperature: float) -> Walk:
    model = fake_model(PLAN)
    model.calibration = temperature
    (found,) = walk(model, [open_array(noise(90, 120))])
    return found


def test_a_walk_alone_gives_its_probabilities() -> None:
    plain, soft = walked(1.0), walked(3.0)
    np.testing.assert_array_equal(plain.logits, soft.logits)
    np.testing.assert_allclose(
        soft.logits, np.sum([g.contributions for g in soft.glimpses], axis=0) + soft.bias, atol=1e-5
    )
    expected = np.exp(plain.logits / 3) / np.exp(plain.logits / 3).sum()
    np.testing.assert_allclose(soft.probabilities, expected)
    again = Walk.from_json(soft.to_json())
    assert (again.temperature, again.label) == (3.0, plain.label)
    assert again.confidence == pytest.approx(expected.max())
    curve = faithfulness(soft)  # with nothing taken away: the walk's own probability
    assert curve.deletion[0] == pytest.approx(soft.confidence)


def test_walks_from_before_have_the_temperature_1() -> None:
    record = walked(1.0).to_dict()
    del record["temperature"], record["made"]

    again = Walk.from_json(json.dumps(record))
    assert (again.temperature, again.made) == (1.0, {})
    bad: list[dict[str, Any]] = [{"temperature": value} for value in (0, -1, "hot", None)]
    for change in [*bad, {"made": [1]}, {"made": 1}, {"made": {"tnet": 1}}]:
        with pytest.raises(DataError):
            Walk.from_json(json.dumps(record | change))


def test_a_validation_gives_it() -> None:
    logits, target = said(200, 3, 2.0, 5, several=False)
    scores = Scores()
    for part in (slice(0, 77), slice(77, None)):
        scores.add(torch.from_numpy(logits[part]), torch.from_numpy(target[part]))
    wanted = calibrate(logits.astype(np.float32).astype(np.float64), target)
    assert scores.calibration() == wanted
    several = Scores()
    logits, target = said(200, 3, 2.0, 5, several=True)
    several.add(torch.from_numpy(logits), torch.from_numpy(target).float())
    assert several.calibration().temperature == pytest.approx(
        calibrate(logits, target).temperature, rel=1e-4
    )
    assert "0 validation images" in str(Scores().calibration().reason)
    assert replace(wanted, reason=None) == wanted
