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
from tnet.rewards import rewards

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


EVERYTHING = Rule(
    contrastive=0.2,
    reward="probability",
    baseline="batch",
    normalise=True,
    label_smoothing=0.1,
)


def several(images: int = 2, classes: int = 3) -> Tensor:
    """Several labels an image."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 2, (images, classes), generator=generator).float()


@pytest.mark.parametrize("rule", [Rule(), EVERYTHING, Rule(cap=2)], ids=["old", "new", "cap"])
@pytest.mark.parametrize("many", [False, True], ids=["one", "several"])
def test_the_order_of_images_and_glimpses_does_not_matter(rule: Rule, many: bool) -> None:
    e, label = evidence(images=4)
    label = several(4) if many else label
    weight, class_weight = torch.tensor([1.0, 0.5, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0])
    one = loss(e, label, HALF, rule, weight_B=weight, class_weight_K=class_weight)
    to = torch.tensor([2, 0, 3, 1])  # where each image goes
    new = torch.argsort(to)
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randperm(len(e.image_G), generator=generator)
    assert e.aggregate_BD is not None
    other = loss(
        Evidence(
            e.logits_BK[new],
            e.glimpse_logits_GK[mixed],
            e.log_prob_G[mixed],
            to[e.image_G[mixed]],
            e.level_G[mixed],
            e.aggregate_BD[new],
        ),
        label[new],
        HALF,
        rule,
        weight_B=weight[new],
        class_weight_K=class_weight,
    )
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


def repeated(e: Evidence, times: list[int]) -> Evidence:
    """The evidence with each image as often as said."""
    index = [b for b, count in enumerate(times) for _ in range(count)]
    rows, images = [], []
    for new, old in enumerate(index):
        mine = [g for g in range(len(e.image_G)) if int(e.image_G[g]) == old]
        rows += mine
        images += [new] * len(mine)
    return Evidence(
        e.logits_BK[index],
        e.glimpse_logits_GK[rows],
        e.log_prob_G[rows],
        torch.tensor(images),
        e.level_G[rows],
    )


@pytest.mark.parametrize("reward", ["hit", "probability"])
def test_an_image_of_weight_two_counts_as_two(reward: Any) -> None:
    e, label = evidence(images=3)
    rule = Rule(reward=reward, label_smoothing=0.1)
    times = [2, 0, 1]
    index = torch.tensor([0, 0, 2])
    by_weight = loss(e, label, HALF, rule, weight_B=torch.tensor([2.0, 0.0, 1.0]))
    by_count = loss(repeated(e, times), label[index], HALF, rule)
    for a, b in zip(by_weight, by_count, strict=True):
        torch.testing.assert_close(a, b)


def test_class_weights_are_weights_of_the_images() -> None:
    e, label = evidence(images=3)
    by_class = loss(e, label, HALF, Rule(), class_weight_K=torch.tensor([1.0, 4.0, 0.5]))
    by_image = loss(e, label, HALF, Rule(), weight_B=torch.tensor([1.0, 4.0, 0.5])[label])
    for a, b in zip(by_class, by_image, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    uneven = loss(e, label, HALF, Rule())
    assert float((by_class.total - uneven.total).detach()) != 0


def test_a_batch_of_no_weight_has_no_loss() -> None:
    e, label = evidence()
    got = loss(e, label, HALF, Rule(), weight_B=torch.zeros(2))
    assert float(got.total.detach()) == 0


def test_the_loss_of_several_labels_by_hand() -> None:
    e, label = evidence(), several()
    rule = Rule(reward="probability")
    got = loss(e[0], label, HALF, rule)
    logits, own = e[0].logits_BK.detach(), e[0].glimpse_logits_GK.detach()

    def entropy(row: Tensor, present: Tensor) -> float:
        p = row.sigmoid().double()
        return float(-torch.where(present > 0, p, 1 - p).log().mean())

    total = 0.0
    for b in range(2):
        mine = [g for g in range(len(e[0].image_G)) if int(e[0].image_G[g]) == b]
        chosen = [g for g in mine if int(e[0].level_G[g]) > 0]
        log_p = e[0].log_prob_G.detach()
        main = entropy(logits[b], label[b])
        each = {g: entropy(own[g], label[b]) for g in mine}
        total += rule.main_ce * main + (1 - rule.main_ce) * sum(each.values()) / len(mine)
        whole = (math.exp(-main) - 0.5) * -float(log_p[chosen].sum())
        single = sum((math.exp(-each[g]) - 0.5) * -float(log_p[g]) for g in chosen)
        total += 0.1 * (0.3 * whole + 0.7 * single / len(chosen))
    assert float(got.total.detach()) == pytest.approx(total / 2, abs=1e-5)


def test_several_walks_are_compared_with_each_other() -> None:
    e, label = evidence(images=2)
    rule = Rule(main_ce=0.0, main_reinforce=1.0, reward="probability", baseline="samples")
    # Both are walks of the first image: what one is worth is the other's baseline.
    label = torch.zeros_like(label)
    worth = e.logits_BK.detach().softmax(1)[:, 0]
    got = loss(e, label, HALF, rule, walks=2)
    ways = [-float(e.log_prob_G[e.image_G == b].sum().detach()) for b in range(2)]
    wanted = 0.1 * float(worth[0] - worth[1]) * (ways[0] - ways[1]) / 2
    assert float(got.main_reinforce.detach()) == pytest.approx(wanted, abs=1e-6)
    assert float(got.reward) == pytest.approx(float(worth.mean()))


def test_normalised_advantages_have_a_length_of_one() -> None:
    e, label = evidence(images=2)
    rule = Rule(reinforce=1.0, reward="probability", cap=2)
    plain, unit = (loss(e, label, HALF, replace(rule, normalise=on)) for on in (False, True))
    chosen = (e.level_G > 0) & (e.level_G < 2)
    whole = rewards(e.logits_BK, label, "probability") - 0.5
    single = (rewards(e.glimpse_logits_GK, label[e.image_G], "probability") - 0.5)[chosen]
    torch.testing.assert_close(unit.main_reinforce * rms(whole), plain.main_reinforce)
    torch.testing.assert_close(unit.glimpse_reinforce * rms(single), plain.glimpse_reinforce)
    torch.testing.assert_close(unit.baseline, plain.baseline, rtol=0, atol=0)


def rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def test_a_batch_of_one_falls_back_on_the_running_baseline() -> None:
    e, label = evidence(images=1)
    one = loss(e, label, HALF, Rule(baseline="batch"))
    other = loss(e, label, HALF, Rule(baseline="running"))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


def test_contrastive_by_hand() -> None:
    feature = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.6, 0.8], [0.0, 2.0]])
    label = torch.tensor([0, 0, 1, 0])
    # Same class: 0-1 (cos 1), 0-3 and 1-3 (cos 0); other class: 0.6, 0.6 and 0.8.
    wanted = 2 * (0 + 1 + 1 + 0.2 + 0.2 + 0.4) / 16
    assert float(contrastive(feature, label, 0.4)) == pytest.approx(wanted, abs=1e-6)
    assert contrastive(torch.zeros(2, 3), torch.tensor([0, 1]), 0.4).isfinite()
    # With several labels, all of them have to agree.
    many = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert float(contrastive(feature, many, 0.4)) == pytest.approx(wanted, abs=1e-6)


def test_terms_that_need_more_evidence_say_so() -> None:
    e, label = evidence()
    with pytest.raises(UsageError, match="aggregated features"):
        loss(e._replace(aggregate_BD=None), label, HALF, Rule(contrastive=0.1))
    with pytest.raises(UsageError, match="take 2 samples or more"):
        loss(e, label, HALF, Rule(baseline="samples"))


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
    {"reward": "other"},
    {"baseline": "other"},
    {"label_smoothing": 1.5},
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
