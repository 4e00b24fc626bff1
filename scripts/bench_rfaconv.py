"""What RFAConv's cheap form saves beside the literal one, and what both cost beside plain 3x3.

python -m tnet.scripts.bench_rfaconv [--repeats 5] [--batch 2] [--json]

One thread, in turns, as CPU-seconds; medians are printed. Each convolution stands alone where a
ResNet-18 has it first and last (64 channels of 56 x 56, 512 of 7 x 7), forward, and forward and
backward; then whole ResNet-18s of each kind, forward at 224 px.
"""

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tnet.scripts.bench_walk import in_turns

KINDS = ("rfaconv", "rfcbamconv", "rfcaconv")
PLACES = ((64, 56), (512, 7))  # channels, side of the map


def bench_rfaconv(
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 2,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure the cheap, the literal and the plain form."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        results = cheap_against_literal(repeats, batch)
    finally:
        torch.set_num_threads(threads)
    if as_json:
        print(json.dumps(results, indent=1))
        return
    print(f"{'':44}{'cheap ms':>10}{'literal ms':>12}{'plain ms':>10}{'times faster':>14}")
    for row in results:
        plain, cheap, literal = (1000 * row[form] for form in ("plain", "cheap", "literal"))
        gain = row["times_faster"]
        print(f"{row['what']:44}{cheap:10.1f}{literal:12.1f}{plain:10.1f}{gain:14.2f}")


def cheap_against_literal(repeats: int, batch: int) -> list[dict[str, Any]]:
    """Return what was measured, and CPU-seconds of each form; ``times_faster`` is their ratio."""
    rows = []
    for kind in KINDS:
        for channels, side in PLACES:
            where = f"{kind}, {channels} channels, {side} x {side}"
            inference, training = _convolution(kind, channels, side, batch)
            rows.append({"what": where} | _measured(repeats, inference))
            rows.append({"what": f"{where}, training"} | _measured(repeats, training))
        rows.append(
            {"what": f"{kind}_resnet18, 224 px"} | _measured(repeats, _network(kind, batch))
        )
    return rows


def _measured(repeats: int, actions: dict[str, Callable[[], Any]]) -> dict[str, float]:
    times = in_turns(repeats, **actions)
    return times | {"times_faster": times["literal"] / times["cheap"]}


def _convolution(kind: str, channels: int, side: int, batch: int) -> tuple[dict[str, Any], ...]:
    """Return what runs each form of a single convolution forward, and forward and backward."""
    import torch

    from tnet.backbones.rfaconv import CONVOLUTIONS

    view = torch.randn(batch, channels, side, side)
    forms: dict[str, Any] = {
        form: CONVOLUTIONS[kind](channels, channels, literal=form == "literal")
        for form in ("cheap", "literal")
    }
    forms["plain"] = torch.nn.Conv2d(channels, channels, 3, padding=1)

    def forward(form: str) -> None:
        with torch.inference_mode():
            forms[form].eval()(view)

    def train(form: str) -> None:
        out = forms[form].train()(view.clone().requires_grad_())
        out.backward(out.detach())

    return tuple(
        {form: lambda form=form, run=run: run(form) for form in forms} for run in (forward, train)
    )


def _network(kind: str, batch: int) -> dict[str, Any]:
    """Return what runs a ResNet-18 of each form forward."""
    import timm
    import torch

    import tnet.backbones.rfaconv  # noqa: F401 - registers the networks

    view = torch.randn(batch, 3, 224, 224)
    networks = {
        "cheap": timm.create_model(f"{kind}_resnet18").eval(),
        "literal": timm.create_model(f"{kind}_resnet18", literal=True).eval(),
        "plain": timm.create_model("resnet18").eval(),
    }

    def forward(form: str) -> None:
        with torch.inference_mode():
            networks[form](view)

    return {form: lambda form=form: forward(form) for form in networks}


if __name__ == "__main__":
    typer.run(bench_rfaconv)
