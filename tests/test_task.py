"""Training: where gradients go, and that a small model learns."""

import math
import warnings
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from fakes import fake_model, noise, quiet_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tnet.adapters.array import open_array
from tnet.evidence import evidence, mean_entropy
from tnet.model import TNet
from tnet.objective import Rule, loss
from tnet.plan import Plan, Step
from tnet.recipes import build
from tnet.task import Sample, Settings, Training
from tnet.traversal import traverse

PLAN = Plan(view=(32, 32), steps=(Step(3, 3, 0.5, 2), Step(2, 2, 0.5, 1)))
LAST_ONE = Plan(view=(32, 32), steps=(Step(2, 2, 0.5, 2),), until="native")


def learner(**options: Any) -> TNet:
    torch.manual_seed(0)
    model = build("default", classes=["dark", "bright"], backbone="test_resnet", **options)
    model.plan = PLAN
    return model


def samples(count: int = 4, size: int = 64) -> list[Sample]:
    batch = []
    for i in range(count):
        pixels = noise(size, size, 3, seed=i) // 4 + (120 if i % 2 else 0)
        batch.append(Sample(open_array(pixels, name=str(i)), i % 2, i))
    return batch


def gradients(model: TNet, rule: Rule, training: bool = False) -> dict[str, Tensor]:
    model.train(training)
    model.zero_grad()
    batch = samples()
    trace = traverse(model, [s.pyramid for s in batch], seed=1, policy="categorical")
    label = torch.tensor([s.label for s in batch])
    loss(evidence(model, trace, rule), label, torch.tensor(0.5), rule).total.backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


@pytest.mark.parametrize("aggregate", ["mean", "weighting"])
@pytest.mark.parametrize("likelihood", ["plackett_luce", "marginal"])
def test_gradients_go_where_they_belong(aggregate: str, likelihood: str) -> None:
    model = learner(aggregate=aggregate)
    with_it = gradients(model, Rule(reinforce=0.1, likelihood=likelihood))
    without = gradients(model, Rule(reinforce=0.0, likelihood=likelihood))
    for name, gradient in with_it.items():
        assert gradient.isfinite().all(), name
        if name.startswith("location."):
            assert (without[name] == 0).all(), name
        else:
            torch.testing.assert_close(gradient, without[name], rtol=0, atol=0, msg=name)
    for part in ("location.", "backbone.", "position.", "classifier."):
        assert any(bool((g != 0).any()) for n, g in with_it.items() if n.startswith(part)), part


def test_without_detach_the_backbone_hears_of_the_reward() -> None:
    model = learner()
    model.location.detach = False  # type: ignore[assignment]
    with_it = gradients(model, Rule(reinforce=0.1))
    without = gradients(model, Rule(reinforce=0.0))
    changed = [n for n in with_it if not torch.equal(with_it[n], without[n])]
    assert any(name.startswith("backbone.") for name in changed)


def test_masked_cells_leave_gradients_finite() -> None:
    model = learner()
    model.plan = replace(PLAN, background=0.02)
    pixels = np.full((96, 96, 3), 255, dtype=np.uint8)
    pixels[:40, :40] = noise(40, 40, 3)
    batch = [Sample(open_array(pixels), 0, 1), *samples(2)]
    training = Training(model, Settings(entropy=0.1, supervise=0.1))
    total = step(training, batch)
    total.backward()
    assert total.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def step(training: Training, batch: list[Sample]) -> Tensor:
    """One training step outside a trainer, where nothing can be logged."""
    training.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    training.train()
    return training.training_step(batch, 0)


@pytest.mark.parametrize("plan", [PLAN, Plan(view=(32, 32)), LAST_ONE], ids=["2", "0", "native"])
@pytest.mark.parametrize("cap", [None, 0, 1])
def test_a_step_is_finite_whatever_the_plan(plan: Plan, cap: int | None) -> None:
    # With "native" these images are seen whole at once, and nothing is chosen.
    rule = Rule(cap=cap, contrastive=0.1, l2=1e-4)
    training = Training(learner(), Settings(rule=rule, entropy=0.1), plan=plan)
    total = step(training, samples(size=32))
    total.backward()
    assert total.isfinite()
    assert training.baseline.isfinite()
    assert not training.baseline.requires_grad
    for name, parameter in training.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_a_batch_of_nothing_but_background_is_finite() -> None:
    model = learner()
    model.plan = replace(PLAN, background=0.02)
    white = np.full((64, 64, 3), 255, dtype=np.uint8)
    training = Training(model, Settings(entropy=0.1))
    assert step(training, [Sample(open_array(white), i, i) for i in range(2)]).isfinite()


def test_seeds_may_be_large() -> None:
    batch = [s._replace(seed=2**62 + s.seed) for s in samples(2)]
    assert step(Training(learner(), Settings(samples=3)), batch).isfinite()


def test_samples_draw_differently_and_weigh_as_one() -> None:
    model = fake_model(PLAN)
    picture = open_array(noise(64, 64))
    training = Training(model, Settings(samples=8))
    seen = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        trace = traverse(*args, **kwargs)
        seen.append([v.region for v in trace.visits if v.level > 0])
        return trace

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tnet.task.traverse", spy)
        step(training, [Sample(picture, 0, 5)])
        step(training, [Sample(picture, 0, 5)])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 8 * 4
    assert len(set(seen[0][:16])) > 2


def test_entropy_by_hand() -> None:
    model = fake_model(Plan(view=(16, 16), steps=(Step(2, 2, 0.5, 1),)), sharpness=0.0)
    trace = traverse(model, [open_array(noise(32, 32))])
    assert float(mean_entropy(trace)) == pytest.approx(math.log(4), abs=1e-6)
    trace.choices[0].logits_PN[0, 1:3] = -math.inf
    assert float(mean_entropy(trace)) == pytest.approx(math.log(2), abs=1e-6)


def test_a_small_model_learns() -> None:
    model = learner()
    batch = samples(8)
    rates = Settings(lr=3e-3, head_lr=3e-3, steps=32, rule=Rule(main_ce=0.5))
    training = Training(model, rates)
    loader: DataLoader[Any] = DataLoader(cast(Any, batch), batch_size=4, collate_fn=list)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with warnings.catch_warnings():
        # What a machine has, and does not use, is no matter here.
        warnings.simplefilter("ignore")
        trainer = quiet_trainer(16)
        trainer.fit(training, loader, loader)
    assert float(trainer.callback_metrics["train_accuracy"]) == 1
    assert float(trainer.callback_metrics["val_loss"]) < 0.7
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    for part in ("location.", "backbone.", "position.", "classifier."):
        assert any(name.startswith(part) for name in moved), part
    assert "baseline" in training.state_dict()
    assert float(training.baseline) > 0.5


def test_two_learning_rates() -> None:
    model = learner()
    optimizer: Any = Training(model, Settings(lr=1e-3, head_lr=2e-3)).configure_optimizers()
    groups = optimizer.param_groups
    assert [group["lr"] for group in groups] == [1e-3, 2e-3]
    held = [parameter for group in groups for parameter in group["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(model.parameters()))
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in model.backbone.parameters()}


def test_training_takes_a_level_as_one_batch() -> None:
    model = learner()
    sizes: list[int] = []
    look = model.backbone.forward

    def counted(view: Tensor) -> Any:
        sizes.append(len(view))
        return look(view)

    model.backbone.forward = counted
    model.train()
    pictures = [s.pyramid for s in samples(5)]
    traverse(model, pictures, seed=1, policy="categorical", micro_batch=2)
    assert sizes == [5, 10, 10]
    sizes.clear()
    model.eval()
    traverse(model, pictures, micro_batch=2)
    assert sizes == [2, 2, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
