"""How many views a second each backbone of TNet's takes, relative to torchvision's ResNet-50.

python -m tnet.scripts.bench_backbones ['van_b[012]' ...] [--batch 8] [--repeats 5] [--json]

Each backbone and ResNet-50 take turns in one process, on the same views, after one round that is
not counted; the ratio is that of the medians. On a CPU it is CPU-time in float32, on a GPU wall
time under bf16 autocast with channels last. The receptive-field networks run a second time in
their literal form, with the k times larger map.
"""

import fnmatch
import json
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from torch import Tensor, nn

BASELINE = "torchvision ResNet-50"
LITERAL = " literal"


class Setting(NamedTuple):
    """What all are measured with."""

    device: str
    batch: int
    size: int | None
    repeats: int
    channels_last: bool


class Row(NamedTuple):
    """What was measured of one backbone: seconds a batch, and times ResNet-50's throughput."""

    name: str
    seconds: float
    baseline_seconds: float
    ratio: float


def bench_backbones(  # noqa: PLR0913 - Typer makes a flag of every argument
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Names that fit; all of TNet's own by default.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Views at a time.")] = 8,
    size: Annotated[
        int | None,
        typer.Option(min=32, help="Side of a view, pixels; by default the backbone's own."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads on a CPU.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    channels_last: Annotated[
        bool | None,
        typer.Option(help="Layout of the views and weights; by default channels last on a GPU."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure the backbones and print ratios."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(threads)
    last = device != "cpu" if channels_last is None else channels_last
    setting = Setting(device, batch, size, repeats, last)
    rows = []
    for name in _chosen(patterns or ["*"]):
        rows.append(measured(name, setting))
        if not as_json:
            print(_line(rows[-1], batch), flush=True)
    if as_json:
        about = {**setting._asdict(), "threads": threads, "torch": torch.__version__}
        print(json.dumps({"setting": about, "rows": [row._asdict() for row in rows]}, indent=1))


def _chosen(patterns: list[str]) -> list[str]:
    """Return the names that fit one of the patterns, receptive-field networks in both forms."""
    from tnet.costs import own_backbones

    names = []
    for name in own_backbones():
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            names.append(name)
            if is_receptive(name):
                names.append(name + LITERAL)
    return names


def is_receptive(name: str) -> bool:
    """Say whether a backbone consists of receptive-field convolutions, which have two forms."""
    return name.startswith(("rfaconv_", "rfcbamconv_", "rfcaconv_"))


def measured(name: str, setting: Setting) -> Row:
    """Return the median times of a backbone and of ResNet-50, measured in turns."""
    import torch
    from torchvision.models import resnet50

    network = _network(name)
    side = setting.size or network.pretrained_cfg["input_size"][1]
    views = torch.randn(setting.batch, 3, side, side)
    with torch.inference_mode():
        actions = [_action(each, views, setting) for each in (network, resnet50(weights=None))]
        own, baseline = _in_turns(actions, setting)
    return Row(name, own, baseline, baseline / own)


def _network(name: str) -> Any:
    import timm

    options: dict[str, Any] = {"literal": True} if name.endswith(LITERAL) else {}
    return timm.create_model(name.removesuffix(LITERAL), pretrained=False, **options)


def _action(network: "nn.Module", views: "Tensor", setting: Setting) -> Callable[[], Any]:
    """Return what runs a network once over the views and waits for the end."""
    import torch

    layout = torch.channels_last if setting.channels_last else torch.contiguous_format
    network = network.eval().to(setting.device).to(memory_format=layout)
    views = views.to(setting.device, memory_format=layout)
    if setting.device == "cpu":
        return lambda: network(views)

    def run() -> None:
        with torch.autocast(setting.device, torch.bfloat16):
            network(views)
        torch.cuda.synchronize()

    return run


def _in_turns(actions: list[Callable[[], Any]], setting: Setting) -> list[float]:
    """Run all actions in turns, once unmeasured; return the median seconds of each."""
    clock = time.process_time if setting.device == "cpu" else time.perf_counter
    spent: list[list[float]] = [[] for _ in actions]
    for round_number in range(setting.repeats + 1):
        for action, times in zip(actions, spent, strict=True):
            before = clock()
            action()
            if round_number > 0:
                times.append(clock() - before)
    return [statistics.median(times) for times in spent]


def _line(row: Row, batch: int) -> str:
    return (
        f"{row.name:32} {row.ratio:6.2f} x {BASELINE}  "
        f"{batch / row.seconds:8.1f} views/s  (ResNet-50 {batch / row.baseline_seconds:.1f})"
    )


if __name__ == "__main__":
    typer.run(bench_backbones)
