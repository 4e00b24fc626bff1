"""The saved pixels alone lead to the same answer, and only to that."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import fake_model, noise

from tnet.adapters.array import open_array
from tnet.errors import DataError, UsageError
from tnet.plan import Plan, Step
from tnet.recipes import build
from tnet.record import Walk
from tnet.replaying import Pixels, features_of, pixels_of, replay
from tnet.traversal import walk

STEPS = (Step(4, 4, 0.375, 3), Step(3, 3, 0.5, 2))
PLANS = {
    "default": Plan(view=(32, 24), steps=STEPS),
    "first view": Plan(view=(32, 32), first_view=(64, 48), steps=STEPS),
    "cells": Plan(view=(32, 32), steps=STEPS, positions="cells"),
    "keep": Plan(view=(32, 32), steps=STEPS, aspect="keep"),
    "snap": Plan(view=(32, 32), steps=STEPS, snap=0.3),
    "official": Plan(
        view=(32, 32), steps=STEPS, rule="official", resampling="official", outside="zero"
    ),
    "tiles": Plan(view=(32, 32), tiles="native"),
    "first look only": Plan(view=(32, 32)),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("weighting", [False, True])
def test_the_pixels_are_all_it_takes(name: str, weighting: bool) -> None:
    plan = PLANS[name]
    model = fake_model(plan, bands=3, weighting=weighting)
    image = open_array(noise(201, 303, bands=3))
    (record,) = walk(model, [image])
    kept = Pixels.from_bytes(pixels_of(model, record, image).to_bytes())
    saved = Walk.from_json(record.to_json())
    np.testing.assert_allclose(replay(model, saved, kept), record.logits, atol=1e-5)
    assert record.features is not None
    np.testing.assert_allclose(features_of(model, saved, kept), record.features, atol=1e-5)
    across, down = plan.view
    assert kept.views.shape[1:] == (down, across, 3)
    assert len(kept.first) + len(kept.views) == record.looks
    assert kept.first.shape[1:3] == tuple(reversed(plan.view_at(0)))


@pytest.mark.parametrize("aggregate", ["attention", "aff"])
def test_a_model_with_a_scout(aggregate: str) -> None:
    torch.manual_seed(0)
    model = build(
        "default", classes=["a", "b"], backbone="test_resnet", aggregate=aggregate, scout="bagnet77"
    ).eval()
    model.plan = Plan(view=(64, 64), first_view=(96, 96), steps=STEPS)
    image = open_array(noise(201, 303, bands=3))
    (record,) = walk(model, [image])
    np.testing.assert_allclose(
        replay(model, record, pixels_of(model, record, image)), record.logits, atol=1e-5
    )


def test_missing_and_wide_pixels_are_kept_as_they_were_given() -> None:
    model = fake_model(PLANS["default"], dtype="uint16")
    pixels = noise(201, 303).astype(np.uint16) * 200
    pixels[50:150, 100:250] = 7
    image = open_array(pixels, nodata=7)
    (record,) = walk(model, [image])
    kept = pixels_of(model, record, image)
    assert kept.views.dtype == np.float32
    assert np.isnan(kept.first).any()
    np.testing.assert_allclose(replay(model, record, kept), record.logits, atol=1e-5)


def test_other_pixels_give_another_answer() -> None:
    model = fake_model(PLANS["default"])
    image = open_array(noise(201, 303))
    (record,) = walk(model, [image])
    kept = pixels_of(model, record, image)
    changed = kept.views.copy()
    changed[2] = 255
    assert np.abs(replay(model, record, replace(kept, views=changed)) - record.logits).max() > 0.01


def test_kept_twice_is_the_same_file() -> None:
    model = fake_model(PLANS["default"])
    image = open_array(noise(201, 303))
    (record,) = walk(model, [image])
    kept = [pixels_of(model, record, image).to_bytes() for _ in range(2)]
    assert kept[0] == kept[1]


def test_pixels_of_another_walk_are_refused() -> None:
    model = fake_model(PLANS["default"])
    image = open_array(noise(201, 303))
    (record,) = walk(model, [image])
    kept = pixels_of(model, record, image)
    with pytest.raises(DataError, match="looked at 10 views and there are 9"):
        replay(model, record, replace(kept, views=kept.views[:-1]))
    with pytest.raises(UsageError, match="another model"):
        replay(fake_model(PLANS["default"], bands=3), record, kept)
    with pytest.raises(DataError, match="these are no pixels"):
        Pixels.from_bytes(b"nothing")
    with pytest.raises(DataError, match="these are no pixels"):
        Pixels.from_bytes(kept.to_bytes()[:-100])
