"""Training: where gradients go, and that a small model learns."""

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import pytest
import torch
from fakes import fake_model, noise, quiet_trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tnet.adapters.array import open_array
from tnet.annealing import Anneal
from tnet.errors import UsageError
from tnet.evidence import evidence, mean_entropy
from tnet.geometry import Region
from tnet.memory import Memory
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


FOUND = Region(3, 3, 4, 4)


# No cross-entropy of any image counts, so that what is left comes from the extra term alone.
NO_RULE = Rule(reinforce=0.0)
EXTRAS: list[dict[str, Any]] = [{"entropy": 0.1}, {"distill": 1.0}, {"supervise": 1.0}]


@pytest.mark.parametrize("extra", EXTRAS, ids=str)
def test_the_terms_of_the_walk_teach_the_location_module_alone(extra: dict[str, Any]) -> None:
    model = learner(aggregate="attention")
    training = Training(model, Settings(rule=NO_RULE, **extra))
    batch = [s._replace(boxes=(FOUND,)) for s in samples()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tnet.task.loss", without_cross_entropy)
        step(training, batch).backward()
    taught = {
        name.split(".")[0]
        for name, p in model.named_parameters()
        if p.grad is not None and bool((p.grad != 0).any())
    }
    assert taught == {"location"}


def without_cross_entropy(*args: Any, **kwargs: Any) -> Any:
    terms = loss(*args, **kwargs)
    return terms._replace(total=terms.total - terms.main_ce - terms.glimpse_ce)


@pytest.mark.parametrize("extra", EXTRAS, ids=str)
def test_a_joint_location_module_teaches_the_backbone(extra: dict[str, Any]) -> None:
    model = learner(aggregate="attention")
    model.location.detach = False  # type: ignore[assignment]
    training = Training(model, Settings(rule=NO_RULE, **extra))
    batch = [s._replace(boxes=(FOUND,)) for s in samples()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tnet.task.loss", without_cross_entropy)
        step(training, batch).backward()
    assert any(bool((p.grad != 0).any()) for p in model.backbone.parameters() if p.grad is not None)


def fit(training: Training, batch: list[Sample], epochs: int = 2, **options: Any) -> Any:
    """Fit on one batch, which is also the validation's; return the logged values."""
    loader: DataLoader[Any] = DataLoader(cast(Any, batch), batch_size=4, collate_fn=list)
    trainer = quiet_trainer(epochs, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(training, loader, loader)
    return trainer.callback_metrics


def test_glimpses_and_temperature_fall_while_training() -> None:
    model = learner()
    settings = Settings(anneal=Anneal((9, 2), share=0.6), temperature=4.0, steps=5)
    training = Training(model, settings)
    seen: list[tuple[int, float]] = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        trace = traverse(*args, **kwargs)
        if model.training:
            seen.append((len(trace.visits) // 4, model.temperature))
        return trace

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tnet.task.traverse", spy)
        logged = fit(training, samples(), epochs=5)
    counts, temperatures = zip(*seen, strict=True)
    assert counts[0] > counts[1] > counts[3] == counts[4] == 1 + 2 + 2
    assert temperatures == pytest.approx([4, 4 ** (2 / 3), 4 ** (1 / 3), 1, 1])
    assert float(logged["train_glimpses"]) == 5
    assert float(logged["val_glimpses"]) == 5


def test_while_it_explores_cells_are_drawn_at_random_and_earn_nothing() -> None:
    model = learner()
    settings = Settings(anneal=Anneal((9, 2), share=0.8, explore=0.5), steps=4)
    seen: list[tuple[str, int]] = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        trace = traverse(*args, **kwargs)
        if model.training:
            seen.append((kwargs["policy"], len(trace.visits) // 4))
        return trace

    training = Training(model, settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tnet.task.traverse", spy)
        fit(training, samples(), epochs=2)
        assert all((p.grad is None or not p.grad.any()) for p in model.location.parameters())
        fit(training, samples(), epochs=4)
    assert [policy for policy, _ in seen] == ["uniform"] * 4 + ["categorical"] * 2
    assert seen[-1][1] < min(count for policy, count in seen if policy == "uniform")


def test_what_is_logged() -> None:
    model = learner(aggregate="attention")
    batch = [s._replace(boxes=(FOUND,)) for s in samples()]
    logged = fit(Training(model, Settings(distill=0.1, supervise=0.1)), batch, epochs=1)
    assert set(logged) == {
        *("train_loss", "train_accuracy", "train_main_ce", "train_glimpse_ce"),
        *("train_main_reinforce", "train_glimpse_reinforce", "train_reward", "train_entropy"),
        *("train_glimpses", "train_distill", "train_grad_norm"),
        *("val_loss", "val_accuracy", "val_main_ce", "val_glimpse_ce", "val_glimpses"),
        *("val_balanced_accuracy", "val_auroc", "val_recall", "val_recall_1", "val_recall_2"),
    }
    assert all(value.isfinite() for value in logged.values())


def test_boxes_found_while_validating_are_counted() -> None:
    model = learner()
    model.plan = Plan(view=(32, 32), steps=(Step(2, 2, 0.5, 4),))
    everywhere = fit(Training(model), [s._replace(boxes=(FOUND,)) for s in samples()], epochs=1)
    assert float(everywhere["val_recall"]) == float(everywhere["val_recall_1"]) == 1
    outside = Region(100, 100, 4, 4)
    nowhere = fit(Training(model), [s._replace(boxes=(outside,)) for s in samples()], epochs=1)
    assert float(nowhere["val_recall"]) == 0


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("many", [False, True], ids=["one", "several"])
def test_half_precision_ends_before_the_loss(kind: torch.dtype, many: bool) -> None:
    settings = Settings(
        rule=Rule(reward="probability", baseline="batch", normalise=True, contrastive=0.1),
        supervise=0.5,
        distill=1.0,
        entropy=0.01,
        class_weights=(1.0, 2.0),
        multilabel=many,
    )
    training = Training(learner(aggregate="attention"), settings)
    batch = [
        s._replace(boxes=(FOUND,), label=(1, cast(int, s.label)) if many else s.label)
        for s in samples()
    ]
    with torch.autocast("cpu", kind):
        total = step(training, batch)
        total.backward()
    assert total.isfinite()
    assert total.dtype == training.baseline.dtype == torch.float32
    for name, parameter in training.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_a_frozen_backbone_stays_to_the_bit() -> None:
    model = learner()
    before = weights_of(model.backbone)
    head = model.classifier.linear.weight.detach().clone()
    fit(Training(model, Settings(freeze="backbone")), samples(), epochs=3)
    for name, value in weights_of(model.backbone).items():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(model.classifier.linear.weight, head)
    assert any(key.endswith("running_mean") for key in before)


def test_frozen_norms_keep_their_statistics_and_learn() -> None:
    model = learner()
    before = weights_of(model.backbone)
    fit(Training(model, Settings(freeze="norms")), samples(), epochs=3)
    after = weights_of(model.backbone)
    norms = [n for n in before if "running" in n or "batches_tracked" in n]
    assert norms
    assert all(torch.equal(before[name], after[name]) for name in norms)
    assert not all(torch.equal(before[name], after[name]) for name in set(before) - set(norms))


@pytest.mark.parametrize("mode", ["freeze", "group"])
def test_a_batch_of_one_trains(mode: str) -> None:
    model = learner(norm="group") if mode == "group" else learner()
    # Its last views are looked at one by one, too.
    model.plan = Plan(view=(32, 32), steps=(Step(2, 2, 0.5, 1),))
    settings = Settings(
        rule=Rule(baseline="batch", normalise=True, contrastive=0.1),
        freeze="norms" if mode == "freeze" else "none",
        lr=1e-2,
        head_lr=1e-2,
    )
    training = Training(model, settings)
    optimizer: Any = training.configure_optimizers()
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        total = step(training, samples(1))
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]


def test_several_labels_are_learned() -> None:
    torch.manual_seed(0)
    model = build("default", classes=["red", "bright"], backbone="test_resnet", norm="group")
    model.plan = Plan(view=(32, 32), steps=(Step(2, 2, 0.5, 1),))
    model.multilabel = True
    batch = []
    for i in range(4):
        pixels = noise(64, 64, 3, seed=i) // 8 + (100 if i % 2 else 0)
        pixels[..., 0] += 120 if i >= 2 else 0
        batch.append(Sample(open_array(pixels), (int(i >= 2), i % 2), i))
    settings = Settings(
        rule=Rule(reward="probability", label_smoothing=0.05),
        multilabel=True,
        class_weights=(1.0, 2.0),
        lr=3e-3,
        head_lr=3e-3,
    )
    logged = fit(Training(model, settings), batch, epochs=25)
    assert float(logged["val_accuracy"]) == 1
    assert float(logged["val_balanced_accuracy"]) == 1
    assert float(logged["val_auroc"]) == 1


def test_an_image_without_weight_teaches_nothing() -> None:
    batch = samples(2)
    light = [batch[0], batch[1]._replace(weight=0.0)]
    alone, both = (learner(norm="group") for _ in range(2))
    for network, part in ((alone, batch[:1]), (both, light)):
        step(Training(network, Settings()), part).backward()
    for (name, a), (_, b) in zip(alone.named_parameters(), both.named_parameters(), strict=True):
        if a.grad is not None and b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_validation_draws_where_the_plan_does() -> None:
    model = learner()
    model.plan = replace(PLAN, policy="uniform")
    batch = samples()
    regions = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        trace = traverse(*args, **kwargs)
        regions.append([v.region for v in trace.visits])
        return trace

    training = Training(model.eval(), Settings())
    training.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr("tnet.task.traverse", spy)
        training.validation_step(batch, 0)
        training.validation_step(batch, 0)
        training.validation_step([s._replace(seed=s.seed + 77) for s in batch], 0)
    assert regions[0] == regions[1] != regions[2]


class StopAfter(lightning.Callback):
    """Ends a training before its time, as a kill would, with a checkpoint."""

    def __init__(self, epoch: int, path: Path) -> None:
        self.epoch, self.path = epoch, path

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def test_a_training_goes_on_where_it_was(tmp_path: Path) -> None:
    settings = Settings(
        rule=Rule(reinforce=0.5),
        anneal=Anneal((9,), share=0.8),
        temperature=3.0,
        steps=6,
        samples=2,
        entropy=0.01,
        optimizer="sgd",
        schedule="step",
        lr=0.01,
        head_lr=0.01,
    )

    def run(*callbacks: Any, resumed: Path | None = None) -> Training:
        training = Training(learner(), settings)
        loader: DataLoader[Any] = DataLoader(cast(Any, samples()), batch_size=4, collate_fn=list)
        trainer = lightning.Trainer(
            max_epochs=6,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[EMAWeightAveraging(decay=0.8), *callbacks],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(training, loader, loader, ckpt_path=resumed, weights_only=False)
        return training

    whole = run()
    run(StopAfter(2, tmp_path / "last.ckpt"))
    second = run(resumed=tmp_path / "last.ckpt")
    assert float(whole.baseline) != 0.5
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, rtol=0, atol=1e-7, msg=name)


def test_remembered_looks_need_a_frozen_backbone() -> None:
    model = learner()
    memory = Memory(None, cast(Any, model.backbone).features)
    with pytest.raises(UsageError, match="only if the backbone is frozen"):
        Training(model, Settings(), memory=memory)


def test_training_with_remembered_looks_is_the_same() -> None:
    results = []
    for remember in (False, True):
        model = learner(aggregate="attention")
        memory = Memory(None, cast(Any, model.backbone).features) if remember else None
        settings = Settings(freeze="backbone", distill=0.5)
        results.append(fit(Training(model, settings, memory=memory), samples(), epochs=3))
    plain, remembered = results
    for name in plain:
        torch.testing.assert_close(remembered[name], plain[name], rtol=1e-4, atol=1e-5, msg=name)


def test_tiles_are_learned_from() -> None:
    model = learner(aggregate="attention")
    model.plan = Plan(view=(32, 32), tiles="native")
    logged = fit(Training(model, Settings(rule=Rule(main_ce=1.0), freeze="backbone")), samples())
    assert float(logged["train_glimpses"]) == 4
    assert all(value.isfinite() for value in logged.values())


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"freeze": "all"}, "freeze must be one of 'none', 'backbone', 'norms', got 'all'"),
    ({"schedule": "linear"}, "schedule must be one of"),
    ({"optimizer": "adam"}, "optimizer must be one of"),
    ({"policy": "random"}, "policy must be one of"),
    ({"lr": -1.0}, "lr must be 0 or more"),
    ({"distill": math.nan}, "distill must be 0 or more"),
    ({"warmup": 1.0}, "warmup must be a share"),
    ({"temperature": 0.5, "steps": 9}, "temperature must be 1 or more"),
    ({"temperature": 2.0}, "need to know the steps"),
    ({"anneal": Anneal((9,))}, "need to know the steps"),
    ({"samples": 0}, "samples must be 1 or more"),
    ({"rule": Rule(baseline="samples")}, "2 or more for the baseline 'samples'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=str)
def test_senseless_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Settings(**change)


def test_each_class_needs_its_weight() -> None:
    with pytest.raises(UsageError, match="2 classes need as many weights"):
        Training(learner(), Settings(class_weights=(1.0, 2.0, 3.0)))
