"""The learning rule: by hand, at its borders, and where its gradients go."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tnet.errors import UsageError
from tnet.objective import Evidence, Rule, loss
from tnet.penalties import contrastive, l2_penalty
from tnet.rewards import hits

HALF = torch.tensor(0.5)


def evidence(levels: int = 3, images: int = 2, classes: int = 3) -> tuple[Evidence, Tensor]:
    """Each level has two more glimpses of every image than the one before."""
    torch.manual_seed(1)
    per_level = [1, 2, 4][:levels]
    image = torch.cat([torch.arange(images).repeat_interleave(n) for n in per_level])
    level = torch.cat([torch.full((images * n,), i) for i, n in enumerate(per_level)])
    log_prob = torch.where(level > 0, -torch.rand(len(level)), 0.0)
    return Evidence(
        torch.randn(images, classes, requires_grad=True),
        torch.randn(len(image), classes, requires_grad=True),
        log_prob.requires_grad_(),
        image,
        level,
        torch.randn(images, 4, requires_grad=True),
    ), torch.arange(images) % classes


def by_hand(e: Evidence, label: Tensor, beta: float, rule: Rule) -> tuple[float, float]:
    """The equation of the released code, glimpse by glimpse."""
    e = Evidence(*(None if part is None else part.detach() for part in e))  # type: ignore[arg-type]
    total = seen = 0.0
    images = len(label)
    for b in range(images):
        mine = [g for g in range(len(e.image_G)) if int(e.image_G[g]) == b]
        cap = 99 if rule.cap is None else rule.cap
        below = [g for g in mine if int(e.level_G[g]) < cap]
        chosen = [g for g in below if int(e.level_G[g]) > 0]
        y = int(label[b])
        hit = float(int(e.logits_BK[b].argmax()) == y)
        ways = -float(e.log_prob_G[mine].sum())
        own = e.glimpse_logits_GK
        own_hit = {g: float(int(own[g].argmax()) == y) for g in mine}
        total += rule.main_ce * -float(e.logits_BK[b].log_softmax(0)[y])
        total += rule.reinforce * rule.main_reinforce * (hit - beta) * ways
        ce = sum(-float(own[g].log_softmax(0)[y]) for g in below)
        total += (1 - rule.main_ce) * ce / max(1, len(below))
        pg = sum((own_hit[g] - beta) * -float(e.log_prob_G[g]) for g in chosen)
        total += rule.reinforce * (1 - rule.main_reinforce) * pg / max(1, len(chosen))
        share = rule.main_reinforce if chosen else 1.0
        seen += share * hit
        seen += (1 - share) * sum(own_hit[g] for g in chosen) / max(1, len(chosen))
    return total / images, 0.9 * beta + 0.1 * seen / images


@pytest.mark.parametrize("cap", [None, 0, 1, 2, 3, 9])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_whole_loss_by_hand(cap: int | None, levels: int) -> None:
    e, label = evidence(levels)
    rule = Rule(cap=cap)
    got = loss(e, label, HALF, rule)
    total, baseline = by_hand(e, label, 0.5, rule)
    assert float(got.total.detach()) == pytest.approx(total, abs=1e-5)
    assert float(got.baseline) == pytest.approx(baseline, abs=1e-6)
    got.total.backward()
    for leaf in (e.logits_BK, e.glimpse_logits_GK, e.log_prob_G):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_many_walks_of_an_image_weigh_as_one() -> None:
    e, label = evidence()
    images = len(label)
    once = loss(e, label, HALF, Rule(contrastive=0.5))
    twice = loss(
        Evidence(
            e.logits_BK.repeat(2, 1),
            e.glimpse_logits_GK.repeat(2, 1),
            e.log_prob_G.repeat(2),
            torch.cat([e.image_G, e.image_G + images]),
            e.level_G.repeat(2),
            None if e.aggregate_BD is None else e.aggregate_BD.repeat(2, 1),
        ),
        label.repeat(2),
        HALF,
        Rule(contrastive=0.5),
    )
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(a, b)


def ragged(right: bool) -> tuple[Evidence, Tensor]:
    """Image 0 has a first look alone, image 1 two glimpses more; all right, or all wrong."""
    label = torch.tensor([0, 0])
    logit = torch.tensor([9.0, 0.0]) if right else torch.tensor([0.0, 9.0])
    return Evidence(
        logit.repeat(2, 1),
        logit.repeat(4, 1),
        torch.tensor([0.0, 0.0, -1.0, -2.0]),
        torch.tensor([0, 1, 1, 1]),
        torch.tensor([0, 0, 1, 1]),
    ), label


@pytest.mark.parametrize("right", [True, False])
def test_the_baseline_follows_the_reward(right: bool) -> None:
    e, label = ragged(right)
    got = loss(e, label, HALF, Rule())
    for _ in range(200):
        got = loss(e, label, got.baseline, Rule())
        assert got.total.isfinite()
    assert float(got.baseline) == pytest.approx(float(right), abs=1e-6)
    # With the baseline at the reward there is nothing to learn for the location module.
    assert float(got.main_reinforce) == pytest.approx(0, abs=1e-6)
    assert float(got.glimpse_reinforce) == pytest.approx(0, abs=1e-6)


def test_reinforce_alone_moves_the_log_probs() -> None:
    e, label = evidence()
    got = loss(e, label, HALF, Rule())
    (got.main_ce + got.glimpse_ce).backward(retain_graph=True)
    assert [e.log_prob_G.grad] == [None]
    assert e.logits_BK.grad is not None
    before = e.logits_BK.grad.clone()
    (got.main_reinforce + got.glimpse_reinforce).backward()
    torch.testing.assert_close(e.logits_BK.grad, before, rtol=0, atol=0)
    assert e.log_prob_G.grad is not None
    assert float(e.log_prob_G.grad.abs().sum()) > 0


def test_hits() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    assert hits(logits, torch.tensor([1, 1, 1])).tolist() == [1, 0, 1]


def test_contrastive_by_hand() -> None:
    feature = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.6, 0.8], [0.0, 2.0]])
    label = torch.tensor([0, 0, 1, 0])
    # Same class: 0-1 (cos 1), 0-3 and 1-3 (cos 0); other class: 0.6, 0.6 and 0.8.
    wanted = 2 * (0 + 1 + 1 + 0.2 + 0.2 + 0.4) / 16
    assert float(contrastive(feature, label, 0.4)) == pytest.approx(wanted, abs=1e-6)
    assert contrastive(torch.zeros(2, 3), torch.tensor([0, 1]), 0.4).isfinite()


def test_terms_that_need_more_evidence_say_so() -> None:
    e, label = evidence()
    with pytest.raises(UsageError, match="aggregated features"):
        loss(e._replace(aggregate_BD=None), label, HALF, Rule(contrastive=0.1))


def test_l2_leaves_out_batch_norms() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1), nn.Sequential(nn.Linear(1, 1)))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 2.0)
    frozen = list(model.parameters())[-1]
    frozen.requires_grad_(False)
    assert float(l2_penalty(model.named_modules()).detach()) == 4 * 4
    assert float(l2_penalty(nn.ReLU().named_modules()).detach()) == 0


WRONG: list[dict[str, Any]] = [
    {"main_ce": 1.1},
    {"main_ce": math.nan},
    {"main_reinforce": -0.1},
    {"momentum": 2},
    {"likelihood": "other"},
    {"cap": -1},
    {"reinforce": -1.0},
    {"reinforce": math.nan},
    {"contrastive": -0.5},
    {"l2": math.inf},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_senseless_rules_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be"):
        replace(Rule(), **change)
