"""Rewards, baselines and cross-entropies: by hand, and that baselines bias nothing."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from tnet.objective import Evidence, Rule, loss
from tnet.rewards import (
    BASELINES,
    Baseline,
    baseline_of,
    cross_entropies,
    hits,
    labelled,
    leave_one_out,
    normalised,
    rewards,
)
from tnet.sampling import plackett_luce_log_probs

CELLS, CHOSEN = 3, 2
ORDERS = list(itertools.permutations(range(CELLS), CHOSEN))
SINGLE = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
MULTI = torch.tensor([[2.0, -1.0, 0.5], [-3.0, -1.0, 1.0]])
PRESENT = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])


def test_hits() -> None:
    assert hits(SINGLE, torch.tensor([1, 1, 1])).tolist() == [1, 0, 1]
    assert hits(MULTI, PRESENT).tolist() == pytest.approx([2 / 3, 1 / 3])


def test_the_reward_of_a_probability_is_the_true_class_s() -> None:
    label = torch.tensor([1, 1, -100])
    got = rewards(SINGLE.clone().requires_grad_(), label, "probability")
    assert got.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(3)), 0])
    assert not got.requires_grad
    assert rewards(SINGLE, label, "hit").tolist() == [1, 0, 0]


def test_with_several_labels_the_reward_is_the_geometric_mean() -> None:
    p = MULTI.sigmoid()
    right = torch.where(PRESENT > 0, p, 1 - p)
    wanted = right.prod(dim=1) ** (1 / 3)
    torch.testing.assert_close(rewards(MULTI, PRESENT, "probability"), wanted)
    unknown = torch.stack([PRESENT[0], torch.full((3,), -100.0)])
    assert labelled(unknown).tolist() == [True, False]
    assert rewards(MULTI, unknown, "probability")[1] == 0
    assert rewards(MULTI, unknown, "hit")[1] == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropies_of_several_labels_by_hand(smoothing: float) -> None:
    weight = torch.tensor([1.0, 3.0, 0.5])
    wanted = []
    for row, present in zip(MULTI.tolist(), PRESENT.tolist(), strict=True):
        terms = []
        for logit, t, w in zip(row, present, weight.tolist(), strict=True):
            soft = t * (1 - smoothing) + smoothing / 2
            p = 1 / (1 + math.exp(-logit))
            terms.append(-w * soft * math.log(p) - (1 - soft) * math.log(1 - p))
        wanted.append(sum(terms) / 3)
    got = cross_entropies(MULTI, PRESENT, smoothing, weight)
    assert got.tolist() == pytest.approx(wanted, abs=1e-6)


def test_label_smoothing_by_hand() -> None:
    log_p = SINGLE.log_softmax(dim=1)
    got = cross_entropies(SINGLE, torch.tensor([1, 1, -100]), 0.2)
    wanted = [-(0.9 * row[1] + 0.1 * row[0]) for row in log_p.tolist()]
    assert got.tolist() == pytest.approx([*wanted[:2], 0], abs=1e-6)


def test_leave_one_out_by_hand() -> None:
    reward = torch.tensor([1.0, 0.0, 0.5, 7.0, 0.2])
    counted = torch.tensor([True, True, True, False, True])
    group = torch.tensor([0, 0, 0, 1, 1])
    got = leave_one_out(reward, counted, group, torch.tensor(0.9))
    assert got.tolist() == pytest.approx([0.25, 0.75, 0.5, 0.2, 0.9])


def test_which_walks_a_walk_is_compared_with() -> None:
    reward = torch.tensor([1.0, 0.0, 0.4, 0.8])
    everyone = torch.ones(4, dtype=torch.bool)
    running = torch.tensor(0.3)
    got = [baseline_of(reward, everyone, kind, 2, running).tolist() for kind in BASELINES]
    assert got[0] == pytest.approx([0.3] * 4)
    assert got[1] == pytest.approx([0, 1, 0.8, 0.4])
    assert got[2] == pytest.approx([0.4, 2.2 / 3, 0.6, 1.4 / 3])
    alone = baseline_of(reward[:1], everyone[:1], "batch", 1, running)
    assert alone.tolist() == pytest.approx([0.3])


def test_normalised_advantages_have_unit_mean_square() -> None:
    advantage = torch.tensor([0.3, -0.1, 0.2, 99.0])
    counted = torch.tensor([True, True, True, False])
    got = normalised(advantage, counted)[:3]
    assert float(got.square().mean()) == pytest.approx(1)
    torch.testing.assert_close(got / got[0], advantage[:3] / 0.3)
    assert normalised(torch.zeros(3), counted[:3]).tolist() == [0, 0, 0]
    assert normalised(advantage, torch.zeros(4, dtype=torch.bool)).isfinite().all()


def batch_of(
    theta: Tensor, draws: tuple[tuple[int, ...], ...], worth: Tensor
) -> tuple[Evidence, Tensor]:
    """Walks with one first look and two draws each, whose rewards are known.

    Args:
        theta: float64 (walks, CELLS), the logits that each walk drew from.
        draws: the cells of each walk, in order.
        worth: float64 (walks, CELLS), the probability of the true class at each cell; a whole
            walk is worth the product over the cells in its order.
    """
    walks = len(draws)
    cells = torch.tensor(draws)
    log_prob = plackett_luce_log_probs(theta, cells).flatten()
    own = worth.gather(1, cells)
    # The order matters: the first draw counts with its square.
    whole = own[:, 0].square() * own[:, 1]
    first = torch.full((walks,), 0.5, dtype=torch.float64)
    known = torch.cat([first, own.flatten()])
    image = torch.arange(walks)
    return Evidence(
        logits_of(whole),
        logits_of(known),
        torch.cat([torch.zeros(walks, dtype=torch.float64), log_prob]),
        torch.cat([image, image.repeat_interleave(CHOSEN)]),
        torch.cat([torch.zeros(walks), torch.ones(walks * CHOSEN)]).long(),
    ), whole


def logits_of(probability: Tensor) -> Tensor:
    """Logits of two classes of which the first has the probability."""
    return torch.stack([probability.log(), (1 - probability).log()], dim=1)


def expected_gradient(rule: Rule, walks: int, alike: bool) -> tuple[Tensor, Tensor]:
    """The exact expectation over all draws of the loss's gradient, and that of -E[reward].

    Args:
        rule: without any cross-entropy that depends on the logits.
        walks: in the batch.
        alike: whether all walks are of one image.
    """
    torch.manual_seed(4)
    images = 1 if alike else walks
    theta = torch.randn(images, CELLS, dtype=torch.float64, requires_grad=True)
    worth = 0.1 + 0.8 * torch.rand(images, CELLS, dtype=torch.float64)
    got = torch.zeros_like(theta)
    reward = torch.zeros((), dtype=torch.float64)
    for draws in itertools.product(ORDERS, repeat=walks):
        mine = [0 if alike else i for i in range(walks)]
        evidence, whole = batch_of(theta[mine], draws, worth[mine])
        chance = evidence.log_prob_G.sum().exp()
        label = torch.zeros(walks, dtype=torch.int64)
        baseline = torch.tensor(0.3, dtype=torch.float64)
        total = loss(evidence, label, baseline, rule, walks=walks if alike else 1).total
        got += chance.detach() * torch.autograd.grad(total, theta, retain_graph=True)[0]
        reward = reward + chance * whole.mean()
    return got, torch.autograd.grad(-reward, theta)[0]


@pytest.mark.parametrize("kind", BASELINES)
def test_reinforce_follows_the_true_gradient_whatever_the_baseline(kind: Baseline) -> None:
    rule = Rule(
        reinforce=1.0,
        main_ce=1.0,
        main_reinforce=1.0,
        reward="probability",
        baseline=kind,
    )
    alike = kind == "samples"
    got, wanted = expected_gradient(rule, 2, alike)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
    assert wanted.abs().sum() > 1e-3


@pytest.mark.parametrize("kind", ["samples", "batch"])
def test_a_glimpse_s_own_term_is_not_biased_by_the_other_walks(kind: Baseline) -> None:
    def gradient(baseline: Baseline) -> Tensor:
        rule = Rule(1.0, 1.0, 0.0, reward="probability", baseline=baseline)
        return expected_gradient(rule, 2, kind == "samples")[0]

    torch.testing.assert_close(gradient(kind), gradient("running"), rtol=1e-9, atol=1e-12)
    assert gradient(kind).abs().sum() > 1e-3
