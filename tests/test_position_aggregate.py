"""Codes of a place, and bags of features."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from fakes import fake_model, noise
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tnet.adapters.array import open_array
from tnet.aggregate import (
    GatedAttention,
    LevelFusion,
    Maxout,
    named_aggregate,
)
from tnet.errors import UsageError
from tnet.model import Classifier, TNet
from tnet.plan import Plan, Step
from tnet.position import Position, sinusoidal_code
from tnet.standard import Standard
from tnet.traversal import walk


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


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.sampled_from(["mean", "weighting", "attention", "maxout"]),
    st.integers(0, 99),
)
def test_padding_changes_nothing(lengths: list[int], name: Any, seed: int) -> None:
    torch.manual_seed(seed)
    module = named_aggregate(name, 6)
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
        if name == "mean":
            torch.testing.assert_close(weight[0], torch.full((length,), 1 / length))


def test_gated_attention_by_hand() -> None:
    torch.manual_seed(1)
    module = GatedAttention(6, width=3).double()
    features = 2 + 3 * torch.randn(1, 4, 6, dtype=torch.float64)
    fused, weights = module(features, torch.ones(1, 4, dtype=torch.bool))
    scores = []
    for feature in features[0]:
        h = (feature - feature.mean()) / (feature.var(unbiased=False) + 1e-5).sqrt()
        value = torch.tanh(module.value.weight @ h + module.value.bias)
        gate = torch.sigmoid(module.gate.weight @ h + module.gate.bias)
        scores.append((module.score.weight[0] * value * gate).sum())
    wanted = torch.stack(scores).softmax(0)
    torch.testing.assert_close(weights[0], wanted)
    torch.testing.assert_close(fused[0], (wanted[:, None] * features[0]).sum(0))


def test_maxout_by_hand() -> None:
    module = Maxout(2, kinds=3)
    with torch.no_grad():
        module.evidence.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
        module.evidence.bias.zero_()
    features = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [-2.0, -2.0]]])
    fused, weights = module(features, torch.ones(1, 3, dtype=torch.bool))
    # Evidence (0, 0, 0), (3, 0, -3) and (-2, -2, 4): each has a mean of 0.
    wanted = torch.tensor([0.0, 3.0, 4.0]).softmax(0)
    torch.testing.assert_close(weights[0], wanted)
    torch.testing.assert_close(fused[0], wanted @ features[0])


def test_standard_features_are_of_one_scale() -> None:
    torch.manual_seed(0)
    features = 3 + torch.tensor([1.0, 100.0, 0.0]) * torch.randn(500, 3)
    module = Standard(3)
    for part in features.split(50):
        module(part)
    seen = module.eval()(features)
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.std(0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-2, rtol=0)
    assert not list(module.parameters())


def test_the_scale_is_that_of_the_first_steps() -> None:
    torch.manual_seed(0)
    module = Standard(4, steps=2)
    one = torch.randn(1, 4)
    assert torch.equal(Standard(4).eval()(one), one)
    module(torch.randn(30, 4) * 5 + 2)
    module(one)
    kept = module(one)
    module(torch.randn(30, 4) * 50)
    torch.testing.assert_close(module(one), kept)
    torch.testing.assert_close(module.eval()(one), kept)
    again = Standard(4, steps=2)
    again.load_state_dict(module.state_dict())
    again(torch.randn(30, 4) * 50)
    torch.testing.assert_close(again(one), kept)


@pytest.mark.parametrize("scale", [1e-2, 1e3])
def test_attention_does_not_mind_the_backbone_s_scale(scale: float) -> None:
    module = GatedAttention(16)
    features, there = torch.randn(2, 5, 16) + 1, torch.ones(2, 5, dtype=torch.bool)
    _, weights = module(features, there)
    _, scaled = module(features * scale, there)
    torch.testing.assert_close(scaled, weights, rtol=1e-2, atol=1e-3)


def test_attention_is_the_same_in_any_order() -> None:
    module = GatedAttention(8)
    features, there = torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)
    fused, weights = module(features, there)
    order = torch.tensor([3, 1, 4, 0, 2])
    again, mixed = module(features[:, order], there)
    torch.testing.assert_close(again, fused)
    torch.testing.assert_close(mixed, weights[:, order])


@pytest.mark.parametrize("name", ["mean", "weighting", "attention", "maxout", "aff", "iaff"])
def test_an_empty_bag_is_zero_and_its_gradient_finite(name: str) -> None:
    module = named_aggregate(name, 4)  # type: ignore[arg-type]
    features = torch.randn(2, 3, 4, requires_grad=True)
    there = torch.tensor([[False] * 3, [True] * 3])
    out, weights = module(features, there)
    assert (out[0] == 0).all()
    assert (weights[0] == 0).all()
    out.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


KINDS = ("aff", "iaff")
LEVEL = torch.tensor([[0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]])
THERE = torch.arange(6) < torch.tensor([[6], [4], [1]])


def trained(kind: str, features: int = 8) -> LevelFusion:
    """Return a fusion with gates that depend on what is fused."""
    torch.manual_seed(1)
    module = LevelFusion(features, kind).double()  # type: ignore[arg-type]
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_levels_are_fused_from_coarse_to_fine(kind: str) -> None:
    module = trained(kind)
    features = torch.randn(3, 6, 8, dtype=torch.float64)
    features[~THERE] = 1e6
    fused, weights = module(features, THERE, LEVEL)
    assert (weights[~THERE] == 0).all()
    assert (weights[THERE] > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(3, 8, dtype=torch.float64))
    torch.testing.assert_close(fused, (weights * features * THERE[..., None]).sum(1))
    for i, row in enumerate(features):
        coarse = row[0]
        for level in range(1, int(LEVEL[i].max()) + 1):
            fine = row[THERE[i] & (LEVEL[i] == level)]
            # A level is a map of one column: its glimpses are the pixels.
            x, y = fine.T[None, ..., None], coarse[None, :, None, None]
            gate = module.fusion.gate(x, y)
            coarse = (gate * x + (1 - gate) * y).mean((0, 2, 3))
        torch.testing.assert_close(fused[i], coarse)


@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_of_two_looks_is_the_fusion_of_the_paper(kind: str) -> None:
    module = trained(kind)
    coarse, fine = torch.randn(2, 1, 8, dtype=torch.float64)
    fused, _ = module(torch.stack([coarse, fine], 1), torch.ones(1, 2, dtype=torch.bool))
    paper = module.fusion(fine[..., None, None], coarse[..., None, None]) / module.fusion.gain
    torch.testing.assert_close(fused, paper.flatten(1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_fusion_gives_each_level_half_of_what_came_before(kind: str) -> None:
    module = LevelFusion(8, kind)  # type: ignore[arg-type]
    _, weights = module(torch.randn(3, 6, 8), THERE, LEVEL)
    wanted = torch.tensor([[0.25, 0.125, 0.125, 1 / 6, 1 / 6, 1 / 6], [0.5, *[1 / 6] * 3, 0, 0]])
    torch.testing.assert_close(weights[:2], wanted[..., None].expand(2, 6, 8))
    assert (weights[2, 0] == 1).all()


@pytest.mark.parametrize("name", ["mean", "weighting", "attention", "maxout", *KINDS])
def test_logits_are_exact_sums_over_the_glimpses(name: str) -> None:
    module = trained(name) if name in KINDS else named_aggregate(name, 8).double()  # type: ignore[arg-type]
    empty = nn.Identity()
    model = TNet(
        *(empty, empty, None, module, Classifier(8, 4).double()),
        plan=Plan(view=(8, 8), steps=()),
        classes=["a", "b", "c", "d"],
    )
    nn.init.normal_(model.classifier.linear.bias)
    features = torch.randn(3, 6, 8, dtype=torch.float64)
    logits, weights, fused = model.classify(features, THERE, LEVEL)
    assert fused.shape == (3, 8)
    for i in range(3):
        parts = model.contributions(features[i], weights[i])
        assert parts.shape == (6, 4)
        total = parts.sum(0) + model.classifier.linear.bias
        torch.testing.assert_close(total, logits[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_a_batch_do_not_touch_each_other(kind: str) -> None:
    module = trained(kind).train()
    features = torch.randn(3, 6, 8, dtype=torch.float64)
    together, _ = module(features, THERE, LEVEL)
    for i, length in enumerate((6, 4, 1)):
        mine = slice(i, i + 1), slice(length)
        alone, _ = module(features[mine], THERE[mine], LEVEL[mine])
        torch.testing.assert_close(together[i], alone[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_says_what_each_look_added(kind: str) -> None:
    steps = (Step(3, 3, 0.5, 2), Step(3, 3, 0.5, 1))
    model = fake_model(Plan(view=(16, 16), steps=steps))
    model.aggregate = trained(kind).float()
    pictures = [open_array(noise(128, 128)), open_array(noise(16, 40, seed=1))]
    for picture, found in zip(pictures, walk(model, pictures), strict=True):
        contributions = [glimpse.contributions for glimpse in found.glimpses]
        total = np.sum(contributions, axis=0, dtype=np.float64) + np.asarray(found.bias)
        np.testing.assert_allclose(total, found.logits, atol=1e-6, rtol=1e-6)  # of float32
        assert sum(glimpse.weight for glimpse in found.glimpses) == pytest.approx(1, abs=1e-5)
        (alone,) = walk(model, [picture])
        np.testing.assert_allclose(found.logits, alone.logits, atol=1e-6, rtol=1e-6)


def test_an_unknown_aggregate_is_refused() -> None:
    with pytest.raises(UsageError, match="'attention', 'maxout', 'aff' or 'iaff', got 'max'"):
        named_aggregate("max", 4)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'aff' or 'iaff', got 'add'"):
        LevelFusion(4, "add")  # type: ignore[arg-type]
