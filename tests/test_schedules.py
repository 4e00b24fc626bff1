"""Learning rates, and what is frozen."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from tnet.freezing import freeze
from tnet.model import TNet
from tnet.recipes import build
from tnet.schedules import factor_of, optimizer_of


def model(**options: Any) -> TNet:
    torch.manual_seed(0)
    return build("default", classes=["a", "b"], backbone="test_resnet", **options)


def factors(name: Any, at: list[int], warmup: float = 0.1) -> list[float]:
    factor = factor_of(name, 100, warmup)
    assert factor is not None
    return [factor(step) for step in at]


def test_rates_rise_first() -> None:
    for name in ("cosine", "step", "constant"):
        assert factors(name, [0, 5], warmup=0.1) == pytest.approx([0.01, 0.5])


def test_the_cosine_falls_to_nothing() -> None:
    wanted = [0.5 * (1 + math.cos(math.pi * done)) for done in (0.1, 0.5, 1, 1)]
    assert factors("cosine", [10, 50, 100, 120]) == pytest.approx(wanted)


def test_steps_divide_by_ten() -> None:
    assert factors("step", [20, 69, 70, 84, 85, 120]) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_constant_is_constant() -> None:
    assert factors("constant", [10, 99, 500]) == [1, 1, 1]
    assert factor_of("constant", 100, 0.0) is None
    assert factor_of("cosine", None) is None


def test_without_warming_up_the_first_step_counts_in_full() -> None:
    assert factors("step", [0], warmup=0.0) == [1]


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_backbones_have_a_rate_of_their_own(name: Any, kind: type) -> None:
    network = model()
    optimizer = optimizer_of(network, name, lr=1e-4, head_lr=1e-3, weight_decay=0.05)
    assert isinstance(optimizer, kind)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    backbone = {id(p) for p in network.backbone.parameters()}
    assert rates == {id(p): 1e-4 if id(p) in backbone else 1e-3 for p in network.parameters()}
    assert all(group["weight_decay"] == 0.05 for group in optimizer.param_groups)


def test_what_is_frozen_has_no_rate() -> None:
    network = model()
    assert freeze(network, "backbone") == [network.backbone]
    optimizer = optimizer_of(network, "adamw", lr=1.0, head_lr=1e-3, weight_decay=0)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3]
    held = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert held == {id(p) for n, p in network.named_parameters() if not n.startswith("backbone.")}


def test_frozen_norms_are_all_batch_norms() -> None:
    network = model()
    norms = freeze(network, "norms")
    assert norms == [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(p.requires_grad for p in network.parameters())
    assert freeze(model(norm="group"), "norms") == []
    assert freeze(network, "none") == []
