"""What moving glimpses onto the chunk grid saves, and what it does to the demo's answers.

python -m tnet.scripts.bench_snap [--repeats 5] [--slides 24] [--json]

Reading: random walks over a 16,384 x 16,384 OME-Zarr of noise in chunks of 256 px, with a plan of
224 px views and with one of 256 px views whose pixels are those of a level. All but the first
looks are read again, in turns; CPU-seconds are medians. Answers: the shipped model "demo" on
slides of a seed that it has not seen.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tnet.scripts.bench_walk import in_turns, noise_image
from tnet.scripts.output import say

if TYPE_CHECKING:
    from tnet.geometry import Region
    from tnet.plan import Plan
    from tnet.pyramid import Pyramid

_SNAPS = (0.0, 1 / 8, 1 / 4, 1 / 2)
_SIDE = 16_384
_CHUNK_BYTES = 256 * 256 * 3
# So many that no cache still holds the chunks of the round before.
_WALKS = 96
_SEED = 7_331  # neither the training's, nor the test's, nor that of `tnet demo`


def bench_snap(
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 5,
    slides: Annotated[int, typer.Option(min=3, help="Unseen slides to classify.")] = 24,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure reads and answers with regions moved by up to 0, 1/8, 1/4 and 1/2 of a side."""
    with tempfile.TemporaryDirectory() as folder:
        results = {
            "reads": _reads(Path(folder) / "image.zarr", repeats),
            "demo": _demo(Path(folder) / "slides", slides),
        }
    if as_json:
        print(json.dumps(results, indent=1))
        return
    for row in results["reads"]:
        print(
            f"{row['plan']:>6}  snap {row['snap']:<5g}  {row['cpu_ms']:6.2f} CPU-ms a glimpse  "
            f"{row['chunks']:5.2f} chunks, {row['kilobytes']:5.0f} kB decoded; "
            f"{row['times_less_cpu']:.2f} times less CPU, {row['times_fewer_bytes']:.2f} fewer kB"
        )
    for row in results["demo"]:
        print(
            f"  demo  snap {row['snap']:<5g}  {row['right']:.1%} of {row['slides']} right, which "
            f"had {row['truth']:.3f} of the probability; {row['targets_seen']:.2f} of "
            f"{row['targets']:.2f} targets seen; {row['chunks']:.2f} chunks a glimpse"
        )


def _reads(image: Path, repeats: int) -> list[dict[str, Any]]:
    """Return what a glimpse costs to read, plan by plan and snap by snap."""
    from tnet.adapters import open_pyramid
    from tnet.plan import Plan, Step

    plans = {
        "224 px": Plan(steps=(Step(8, 8, 0.1875, 4), Step(4, 4, 0.375, 3))),
        "256 px": Plan(view=(256, 256), steps=(Step(12, 12, 1 / 8, 4), Step(12, 12, 1 / 8, 3))),
    }
    rows = []
    with open_pyramid(noise_image(image, _SIDE)) as pyramid:
        for name, plan in plans.items():
            say(f"reading: {name}")
            regions = {f"{snap:g}": _regions(plan, snap, pyramid) for snap in _SNAPS}
            reads = {snap: _reading(pyramid, mine, plan) for snap, mine in regions.items()}
            seconds = in_turns(repeats, **reads)
            rows += [
                {
                    "plan": name,
                    "snap": float(snap),
                    "cpu_ms": 1000 * seconds[snap] / len(mine),
                    "chunks": _chunks(mine, plan, pyramid),
                    "kilobytes": _chunks(mine, plan, pyramid) * _CHUNK_BYTES / 1000,
                    "times_less_cpu": seconds["0"] / seconds[snap],
                    "times_fewer_bytes": _chunks(regions["0"], plan, pyramid)
                    / _chunks(mine, plan, pyramid),
                }
                for snap, mine in regions.items()
            ]
    return rows


def _reading(pyramid: "Pyramid", regions: "list[Region]", plan: "Plan") -> Callable[[], None]:
    """Return what reads all regions, a walk's worth at a time."""

    def read() -> None:
        for i in range(0, len(regions), 16):
            pyramid.read_many(regions[i : i + 16], plan.view)

    return read


def _regions(plan: "Plan", snap: float, pyramid: "Pyramid") -> "list[Region]":
    """Return what random walks look at after their first look."""
    from dataclasses import replace

    from tnet.recipes import build
    from tnet.traversal import walk

    model = build("default", classes=["a", "b"], backbone="test_resnet")
    plan = replace(plan, snap=snap, policy="uniform")
    walks = [walk(model, [pyramid], plan, seed=seed)[0] for seed in range(_WALKS)]
    return [glimpse.region for found in walks for glimpse in found.glimpses[1:]]


def _chunks(regions: "list[Region]", plan: "Plan", pyramid: "Pyramid") -> float:
    """Return how many chunks lie under a glimpse, on average."""
    from tnet.geometry import Region
    from tnet.snapping import tiles_under

    frame = Region(0, 0, pyramid.width, pyramid.height)
    counts = [tiles_under(region, plan.view, pyramid.levels, frame) or 0 for region in regions]
    return sum(counts) / len(counts)


def _demo(folder: Path, slides: int) -> list[dict[str, Any]]:
    """Return how the shipped model answers on unseen slides, snap by snap."""
    from dataclasses import replace

    from tnet.adapters import open_pyramid
    from tnet.bundle import load
    from tnet.datasets.synthetic import make_dataset
    from tnet.scripts.demo import targets_seen
    from tnet.traversal import walk

    model = load("demo")
    found: dict[float, list[dict[str, float]]] = {snap: [] for snap in _SNAPS}
    say(f"making {slides} slides and walking over them")
    for slide in make_dataset(folder, slides, seed=_SEED):
        with open_pyramid(slide.path) as pyramid:
            for snap, rows in found.items():
                plan = replace(model.plan, snap=snap)
                record = walk(model, [pyramid], plan)[0]
                regions = [glimpse.region for glimpse in record.glimpses[1:]]
                rows.append(
                    {
                        "right": record.label == slide.label,
                        "truth": record.probabilities[model.classes.index(slide.label)],
                        "targets": len(slide.targets),
                        "targets_seen": targets_seen(slide, record),
                        "chunks": _chunks(regions, plan, pyramid),
                    }
                )
    return [
        {"snap": snap, "slides": slides}
        | {name: float(sum(row[name] for row in rows)) / slides for name in rows[0]}
        for snap, rows in found.items()
    ]


if __name__ == "__main__":
    typer.run(bench_snap)
