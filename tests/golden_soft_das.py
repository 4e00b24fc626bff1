"""What must hold for DAS, of which no official code is known: invariants, counts, sfd by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from golden_soft import EXACT, read_json
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import tnet.backbones.das  # noqa: F401  (registers the variants)
from tnet.attention import sfd
from tnet.backbones.das import DeformableGate


def some_gate(channels: int = 20) -> DeformableGate:
    """Return a float64 gate with offsets, masks and norm away from where they start."""
    gate = DeformableGate(channels).double().eval()
    with torch.no_grad():
        for parameter in (*gate.sampling.parameters(), *gate.layer_norm.parameters()):
            parameter.copy_(torch.randn_like(parameter) / 2)
    return gate


def some_map(views: int = 2, channels: int = 20, rows: int = 6, columns: int = 5) -> Tensor:
    return torch.randn(views, channels, rows, columns, dtype=torch.float64)


def shape() -> None:
    for rows, columns in ((2, 2), (2, 7), (9, 4)):
        x = some_map(rows=rows, columns=columns)
        assert some_gate()(x).shape == x.shape


def gate_range() -> None:
    gate, x = some_gate(), some_map()
    values = gate.gate(x)
    assert (values > 0).all()
    assert (values < 1).all()
    x[:, ::3] = 0
    out = gate(x)
    assert (out.abs() <= x.abs()).all()
    assert torch.equal(out.sign(), x.sign())
    assert (gate(x * 0) == 0).all()


def half_gate() -> None:
    gate, x = some_gate(), some_map()
    torch.nn.init.zeros_(gate.layer_norm.weight)
    torch.nn.init.zeros_(gate.layer_norm.bias)
    assert torch.equal(gate(x), x / 2)


def scale() -> None:
    # Values so large that the instance norm's eps, which breaks the rule, hardly matters.
    gate, x = some_gate(), 100 * some_map()
    out = gate(x)
    for factor, bound in ((3.0, 5e-6), (10.0, 5e-6), (0.1, 6e-4)):
        difference = (gate(factor * x) / factor - out).abs().max() / out.abs().max()
        assert difference < bound, f"{factor}: {difference}"


def batch_independence() -> None:
    gate, x = some_gate(), some_map(views=3)
    out = gate(x)
    for i in range(3):
        torch.testing.assert_close(gate(x[i : i + 1]), out[i : i + 1], rtol=0, atol=1e-14)
    assert torch.equal(gate.train()(x), out)


def regular_start() -> None:
    gate, x = DeformableGate(20).double(), some_map()
    seen: list[Tensor] = []
    gate.layer_norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    gate.sampling.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    gate(x)
    hidden, salient = seen
    plain = F.conv2d(hidden, gate.deform.weight, padding=1)
    torch.testing.assert_close(salient, plain, rtol=0, atol=1e-14)


def min_size() -> None:
    """Ours takes maps of one pixel: the instance norm gives zeros, whatever the pixel is."""
    gate = some_gate()
    for mode in (True, False):
        gate.train(mode)
        x = some_map(views=1, rows=1, columns=1)
        wanted = x * gate.layer_norm.bias.sigmoid()[None, :, None, None]
        torch.testing.assert_close(gate(x), wanted, rtol=0, atol=1e-14)
    network = timm.create_model("das_resnet18", num_classes=3).eval()
    assert network(torch.randn(1, 3, 32, 32)).shape == (1, 3)


def param_formula() -> None:
    for channels in (20, 64, 2048):
        hidden = int(0.2 * channels)
        wanted = 9 * channels + channels * hidden + (243 * hidden + 27)
        wanted += 9 * hidden * channels + 2 * channels
        assert sum(p.numel() for p in DeformableGate(channels).parameters()) == wanted


INVARIANTS: dict[str, Callable[[], None]] = {
    "shape": shape,
    "gate_range": gate_range,
    "half_gate": half_gate,
    "scale": scale,
    "batch_independence": batch_independence,
    "regular_start": regular_start,
    "min_size": min_size,
    "param_formula": param_formula,
}


def invariants(folder: Path) -> None:
    listed = [entry["name"] for entry in read_json(folder / "das_invariants.json")["invariants"]]
    assert listed
    with torch.random.fork_rng():
        for name in listed:
            assert name in INVARIANTS, f"nothing checks {name!r}"
            torch.manual_seed(0)
            with torch.no_grad():
                INVARIANTS[name]()


def counts(name: str) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        golden = read_json(folder / "das_counts.json")[name]
        described = read_json(folder / "das_invariants.json")
        assert described["counts"][name] == golden
        with torch.device("meta"):
            network = timm.create_model(f"das_{name}").eval()
        gates = [m for m in network.modules() if isinstance(m, DeformableGate)]
        honest = sum(p.numel() for p in network.parameters())
        without = honest - sum(gate.deform.weight.numel() for gate in gates)
        assert honest == golden["total_params_with_deform_weight"]
        assert without == golden["total_params_without_deform_weight"]
        assert (
            honest - sum(p.numel() for g in gates for p in g.parameters())
            == (golden["base_params"])
        )
        published = described["published"][name.replace("resnet", "DAS-")]["params_M"][0]
        assert round(without / 1e6, 2) == published
        assert len(gates) == len(golden["gates"])
        for gate, wanted in zip(gates, golden["gates"], strict=True):
            check_gate(gate, wanted)

    return check


def check_gate(gate: DeformableGate, wanted: dict[str, Any]) -> None:
    """Hold each layer's parameters, and what torch's counter makes of a gate."""
    assert gate.sampling.bias is not None
    assert {
        "dw": gate.depthwise.weight.numel(),
        "pw": gate.pointwise.weight.numel(),
        "offmask_w": gate.sampling.weight.numel(),
        "offmask_b": gate.sampling.bias.numel(),
        "deform": gate.deform.weight.numel(),
        "ln": sum(p.numel() for p in gate.layer_norm.parameters()),
    } == wanted["params"]
    assert gate.channels == wanted["c"]
    assert gate.pointwise.out_channels == wanted["h"]
    x = torch.empty(1, wanted["c"], wanted["size"], wanted["size"], device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        gate(x)
    assert counter.get_total_flops() == 2 * sum(wanted["macs"].values())
    per_op = counter.get_flop_counts()["Global"]
    assert per_op[torch.ops.torchvision.deform_conv2d] == 2 * wanted["macs"]["deform"]


def sfd_cases(folder: Path) -> None:
    listed = read_json(folder / "das_invariants.json")["sfd_cases"]
    assert listed
    for case in listed:
        cam = torch.tensor(case["cam"], dtype=torch.float64)
        region = torch.tensor(case["R"], dtype=torch.bool)
        for weight in ("mean", "sum"):
            got = sfd(cam, region, threshold=case["tau"], weight=weight)
            assert got == pytest.approx(case[f"{weight}_sfd"], abs=EXACT)


CASES: dict[str, Callable[[Path], None]] = {
    "invariants": invariants,
    "resnet18": counts("resnet18"),
    "resnet50": counts("resnet50"),
    "resnet101": counts("resnet101"),
    "sfd_cases": sfd_cases,
}
