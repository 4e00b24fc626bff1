"""Distilling the aggregate's weights into the location module."""

from typing import Any

import pytest
import torch
from fakes import fake_model, noise
from torch import Tensor

from tnet.adapters.array import open_array
from tnet.distillation import distillation_loss, subtree_weights
from tnet.plan import Plan, Step
from tnet.trace import Trace
from tnet.traversal import traverse

PLAN = Plan(view=(16, 16), steps=(Step(3, 3, 0.5, 3), Step(2, 2, 0.5, 2)))


def walked(plan: Plan = PLAN, images: int = 2) -> Trace:
    """Walks whose weights are any numbers that sum to 1 over an image."""
    pictures = [open_array(noise(64 + 8 * i, 96, seed=i)) for i in range(images)]
    trace = traverse(fake_model(plan), pictures, plan, seed=3, policy="categorical")
    weight = torch.rand(len(trace.visits), generator=torch.Generator().manual_seed(1))
    total = torch.zeros(images).index_add(0, trace.image_G, weight)
    trace.weight_G = weight / total[trace.image_G]
    return trace


def below(trace: Trace, index: int) -> float:
    """The weight of a visit and of all below it, by recursion."""
    children = [i for i, v in enumerate(trace.visits) if v.parent == index]
    return float(trace.weight_G[index]) + sum(below(trace, child) for child in children)


def by_hand(trace: Trace) -> float:
    total = weights = 0.0
    for choice in trace.choices:
        for row, parent in enumerate(choice.parents):
            children = [i for i, v in enumerate(trace.visits) if v.parent == parent]
            if len(children) < 2:
                continue
            logits = choice.logits_PN[row].detach()
            log_p = torch.stack([logits[trace.visits[c].cell] for c in children]).log_softmax(0)
            teacher = torch.tensor([below(trace, c) for c in children])
            teacher /= teacher.sum()
            total -= below(trace, parent) * float((teacher * log_p).sum())
            weights += below(trace, parent)
    return total / weights


ONE_BELOW = Plan(view=(16, 16), steps=(Step(3, 3, 0.5, 3), Step(2, 2, 0.5, 1)))


@pytest.mark.parametrize("plan", [PLAN, ONE_BELOW], ids=["2", "1"])
def test_the_loss_by_hand(plan: Plan) -> None:
    trace = walked(plan)
    assert float(distillation_loss(trace)) == pytest.approx(by_hand(trace), abs=1e-6)
    wanted = [below(trace, i) for i in range(len(trace.visits))]
    assert subtree_weights(trace).tolist() == pytest.approx(wanted, abs=1e-6)
    assert wanted[:2] == pytest.approx([1, 1])


def test_only_cells_that_were_looked_at_are_taught() -> None:
    trace = walked()
    leaves = []
    for choice in trace.choices:
        choice.logits_PN = choice.logits_PN.detach().requires_grad_()
        leaves.append(choice.logits_PN)
    trace.weight_G = trace.weight_G.clone().requires_grad_()
    distillation_loss(trace).backward()
    assert trace.weight_G.grad is None
    for choice, leaf in zip(trace.choices, leaves, strict=True):
        looked = torch.zeros_like(leaf, dtype=torch.bool)
        for visit in choice.visits:
            assert visit.parent is not None
            looked[choice.parents.index(visit.parent), visit.cell] = True
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert (leaf.grad[~looked] == 0).all()
        assert (leaf.grad[looked] != 0).all()


def test_the_student_becomes_the_teacher() -> None:
    plan = Plan(view=(16, 16), steps=(Step(3, 3, 0.5, 4),))
    trace = walked(plan, images=1)
    choice = trace.choices[0]
    logits = choice.logits_PN.detach().clone().requires_grad_()
    choice.logits_PN = logits
    adam = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        adam.zero_grad()
        distillation_loss(trace).backward()
        adam.step()
    cells = [visit.cell for visit in choice.visits]
    weight = trace.weight_G[1:]
    torch.testing.assert_close(
        logits[0, cells].softmax(0), weight / weight.sum(), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("steps", [(), (Step(3, 3, 0.5, 1), Step(2, 2, 0.5, 1))], ids=len)
def test_without_siblings_there_is_nothing_to_learn(steps: Any) -> None:
    trace = walked(Plan(view=(16, 16), steps=steps))
    assert float(distillation_loss(trace)) == 0


def test_branches_without_weight_teach_nothing() -> None:
    trace = walked()
    trace.weight_G = torch.zeros_like(trace.weight_G)
    assert float(distillation_loss(trace)) == 0
    # All on the last glimpse: the branches without it have no say.
    last = trace.visits[-1]
    trace.weight_G[-1] = 1.0
    ways: list[Tensor] = []
    index: int | None = len(trace.visits) - 1
    for choice in reversed(trace.choices):
        visit = trace.visits[index] if index is not None else last
        assert visit.parent is not None
        row = choice.parents.index(visit.parent)
        siblings = [v.cell for v in choice.visits if v.parent == visit.parent]
        log_p = choice.logits_PN[row, siblings].log_softmax(0)
        ways.append(-log_p[siblings.index(visit.cell)])
        index = visit.parent
    torch.testing.assert_close(distillation_loss(trace), torch.stack(ways).mean())


def test_the_order_of_the_images_does_not_matter() -> None:
    pictures = [open_array(noise(64, 96, seed=i)) for i in range(3)]
    model = fake_model(PLAN, weighting=True)
    one = traverse(model, pictures, seed=[1, 2, 3], policy="categorical")
    other = traverse(model, pictures[::-1], seed=[3, 2, 1], policy="categorical")
    torch.testing.assert_close(distillation_loss(one), distillation_loss(other))
