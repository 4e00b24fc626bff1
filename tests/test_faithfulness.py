"""Glimpses taken away: the record reckons as the model does, and where it cannot, it says so."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import CLASSES, FEATURES, fake_model, noise
from hypothesis import given, settings
from hypothesis import strategies as st

from tnet.adapters.array import open_array
from tnet.aggregate import AggregateName, named_aggregate
from tnet.errors import UsageError
from tnet.faithfulness import faithfulness, leave_one_out, subset_logits
from tnet.model import TNet
from tnet.plan import Plan, Step
from tnet.record import Walk, softmax
from tnet.traversal import walk

PLAN = Plan(view=(32, 32), steps=(Step(4, 4, 0.25, 3), Step(4, 4, 0.5, 2)))
AGGREGATES: tuple[AggregateName, ...] = ("mean", "weighting", "attention", "maxout", "aff", "iaff")


def walked(aggregate: AggregateName, plan: Plan = PLAN, seed: int = 0) -> tuple[TNet, Walk]:
    model = fake_model(plan)
    torch.manual_seed(seed)
    model.aggregate = named_aggregate(aggregate, FEATURES).eval()
    for parameter in model.aggregate.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model, walk(model, [open_array(noise(200, 300, seed=seed))])[0]


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(AGGREGATES), st.integers(0, 10**6))
def test_contributions_add_up_exactly(aggregate: AggregateName, seed: int) -> None:
    _, record = walked(aggregate, seed=seed)
    parts = np.array([glimpse.contributions for glimpse in record.glimpses])
    np.testing.assert_allclose(parts.sum(axis=0) + record.bias, record.logits, atol=1e-5)
    assert record.aggregate == aggregate
    assert record.additive == (aggregate not in ("aff", "iaff"))
    assert record.to_dict()["additive"] == record.additive


@pytest.mark.parametrize("aggregate", ["mean", "attention", "maxout"])
@pytest.mark.parametrize("plan", [PLAN, Plan(view=(32, 32), tiles="native")], ids=["walk", "tiles"])
def test_the_record_alone_is_enough(aggregate: AggregateName, plan: Plan) -> None:
    model, record = walked(aggregate, plan)
    kept = np.random.default_rng(0).random((20, len(record.glimpses))) < 0.4
    kept[0] = False
    kept[1] = True
    found = subset_logits(record, kept)
    np.testing.assert_allclose(found, subset_logits(record, kept, model), atol=1e-5)
    np.testing.assert_allclose(found[0], record.bias, atol=1e-9)
    np.testing.assert_allclose(found[1], record.logits, atol=1e-5)
    saved = Walk.from_json(record.to_json())
    np.testing.assert_allclose(leave_one_out(saved), leave_one_out(record, model), atol=1e-5)


@pytest.mark.parametrize("aggregate", ["weighting", "aff", "iaff"])
def test_others_need_the_model(aggregate: AggregateName) -> None:
    model, record = walked(aggregate)
    with pytest.raises(UsageError, match=f"aggregate '{aggregate}'.*give the model"):
        leave_one_out(record)
    assert record.features is not None
    losses = leave_one_out(record, model)
    for gone in range(len(record.glimpses)):
        rest = [i for i in range(len(record.glimpses)) if i != gone]
        levels = torch.tensor([[record.glimpses[i].level for i in rest]])
        with torch.inference_mode():
            logits, _, _ = model.classify(
                torch.from_numpy(record.features[rest])[None],
                torch.ones(1, len(rest), dtype=torch.bool),
                levels,
            )
        np.testing.assert_allclose(record.logits - logits[0].numpy(), losses[gone], atol=1e-5)
    with pytest.raises(UsageError, match="has no features"):
        leave_one_out(replace(record, features=None), model)


def test_leave_one_out_of_a_mean_by_hand() -> None:
    _, record = walked("mean")
    count = len(record.glimpses)
    parts = np.array([glimpse.contributions for glimpse in record.glimpses])
    for gone, lost in enumerate(leave_one_out(record)):
        without = (parts.sum(axis=0) - parts[gone]) * count / (count - 1)
        np.testing.assert_allclose(parts.sum(axis=0) - without, lost, atol=1e-9)


def test_curves_start_and_end_where_they_must() -> None:
    _, record = walked("attention")
    found = faithfulness(record, controls=3)
    nothing = softmax(list(record.bias))[found.target]
    assert found.target == CLASSES.index(str(record.label))
    assert record.confidence is not None
    for curve in (found.deletion, found.random_deletion[1]):
        np.testing.assert_allclose(curve[[0, -1]], [record.confidence, nothing], atol=1e-6)
    for curve in (found.insertion, found.random_insertion[2]):
        np.testing.assert_allclose(curve[[0, -1]], [nothing, record.confidence], atol=1e-6)
    assert found.deletion.shape == (len(record.glimpses) + 1,)
    assert found.random_deletion.shape == (3, len(record.glimpses) + 1)
    assert sorted(found.order) == list(range(len(record.glimpses)))


# What is left weighs more, so that no order is sure to beat chance: that of "maxout" does not here.
@pytest.mark.parametrize("aggregate", [name for name in AGGREGATES if name != "maxout"])
def test_what_is_named_matters_more_than_chance(aggregate: AggregateName) -> None:
    model, record = walked(aggregate)
    for name in record.classes:
        areas = faithfulness(record, name, model=model).areas()
        assert areas["deletion"] < areas["random_deletion"]
        assert areas["insertion"] > areas["random_insertion"]


def test_controls_are_those_of_the_seed() -> None:
    _, record = walked("mean")
    same, other = faithfulness(record, seed=4), faithfulness(record, seed=5)
    np.testing.assert_array_equal(
        same.random_deletion, faithfulness(record, seed=4).random_deletion
    )
    assert not np.array_equal(same.random_deletion, other.random_deletion)


def test_several_labels_have_probabilities_of_their_own() -> None:
    model = fake_model(PLAN)
    model.multilabel = True
    (record,) = walk(model, [open_array(noise(200, 300))])
    found = faithfulness(record, 1)
    assert found.deletion[0] == pytest.approx(record.probabilities[1], abs=1e-6)


def test_senseless_requests_are_refused() -> None:
    model, record = walked("mean")
    with pytest.raises(UsageError, match="no class 'fox'"):
        faithfulness(record, "fox")
    with pytest.raises(UsageError, match="at least one random order"):
        faithfulness(record, controls=0)
    with pytest.raises(UsageError, match="no class was predicted"):
        faithfulness(replace(record, outcome="no evidence"))
    with pytest.raises(UsageError, match="other classes"):
        leave_one_out(replace(record, classes=("x", "y", "z")), model)
