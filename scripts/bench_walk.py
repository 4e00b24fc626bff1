"""What a walk costs beside the bare backbone, and beside the whole image at full resolution.

python -m tnet.scripts.bench_walk [--repeats 7] [--json]

Everything is measured in one process, in turns, as CPU-seconds; medians and ratios are printed:
the cost of the walk (ResNet-50, 16 glimpses of 224 px on a 20,000 x 20,000 zarr against the bare
backbone on the same 17 views, already read, level by level as in the walk), and the released fMoW
recipe ([2, 1] locations at 896 px) against EfficientNet-B0 on all 896 x 896 pixels.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer


def bench_walk(
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 7,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure the walk and print ratios."""
    results = {"cost": _cost(repeats), "fmow": _fmow(repeats)}
    if as_json:
        print(json.dumps(results, indent=1))
        return
    cost, fmow = results["cost"], results["fmow"]
    print(
        f"20,000 x 20,000 zarr, ResNet-50, 17 views of 224 px: walk {cost['walk']:.2f} CPU-s, "
        f"bare backbone {cost['backbone']:.2f} CPU-s, ratio {cost['ratio']:.3f}"
    )
    print(
        f"fMoW recipe [2, 1] at 896 px: walk {fmow['walk']:.3f} CPU-s, EfficientNet-B0 at 896 px "
        f"{fmow['whole']:.3f} CPU-s, {fmow['times_faster']:.2f} times faster"
    )


def _cost(repeats: int) -> dict[str, float]:
    """Return CPU-seconds of a walk of 16 glimpses and of the backbone on the same views."""
    import torch

    from tnet.adapters import open_pyramid
    from tnet.plan import Plan, Step
    from tnet.recipes import build
    from tnet.traversal import walk

    model = build("default", classes=["a", "b"], backbone="resnet50").eval()
    plan = Plan(steps=(Step(8, 8, 0.1875, 4), Step(4, 4, 0.375, 3)))
    with tempfile.TemporaryDirectory() as folder:
        image = noise_image(Path(folder) / "image.zarr", 20_000)
        with open_pyramid(image) as pyramid, torch.inference_mode():
            record = walk(model, [pyramid], plan)[0]
            assert len(record.glimpses) == 17
            levels = []
            for level in range(3):
                regions = [g.region for g in record.glimpses if g.level == level]
                # The layout that views have in the walk, which is the faster one for the CPU.
                views = torch.from_numpy(pyramid.read_many(regions, plan.view)).permute(0, 3, 1, 2)
                levels.append((views - model.mean) / model.std)
            times = in_turns(
                repeats,
                walk=lambda: walk(model, [pyramid], plan),
                backbone=lambda: [model.backbone(view) for view in levels],
            )
    return times | {"ratio": times["walk"] / times["backbone"]}


def _fmow(repeats: int) -> dict[str, float]:
    """Return CPU-seconds of the released recipe's walk and of its backbone on all pixels."""
    import numpy as np
    import torch

    from tnet.adapters import open_pyramid
    from tnet.recipes import build
    from tnet.traversal import walk

    model = build("official_fmow", classes=[str(i) for i in range(62)]).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (896, 896, 3), dtype=np.uint8)
    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.inference_mode():
        pyramid = open_pyramid(pixels)
        times = in_turns(
            repeats,
            walk=lambda: walk(model, [pyramid]),
            whole=lambda: model.classifier(model.look(whole).feature),
        )
    return times | {"times_faster": times["whole"] / times["walk"]}


def in_turns(repeats: int, **actions: Callable[[], Any]) -> dict[str, float]:
    """Run all actions in turns, once unmeasured; return the median CPU-seconds of each."""
    spent: dict[str, list[float]] = {name: [] for name in actions}
    for round_number in range(repeats + 1):
        for name, action in actions.items():
            before = time.process_time()
            action()
            if round_number > 0:
                spent[name].append(time.process_time() - before)
    return {name: statistics.median(values) for name, values in spent.items()}


def noise_image(path: Path, side: int) -> Path:
    """Write an OME-Zarr of noise, which is the hardest to read, with factor-2 levels."""
    import numpy as np
    import zarr

    rng = np.random.default_rng(0)
    tile = rng.integers(0, 256, (3, 2048, 2048), dtype=np.uint8)
    group = zarr.open_group(str(path), mode="w")
    datasets, level, scale = [], 0, 1
    while side // scale > 256:
        size = -(-side // scale)
        array = group.create_array(
            str(level), shape=(3, size, size), dtype="uint8", chunks=(3, 256, 256)
        )
        for y in range(0, size, 2048):
            for x in range(0, size, 2048):
                height, width = min(2048, size - y), min(2048, size - x)
                array[:, y : y + height, x : x + width] = tile[:, :height, :width]
        transform = {"type": "scale", "scale": [1.0, float(scale), float(scale)]}
        datasets.append({"path": str(level), "coordinateTransformations": [transform]})
        level, scale = level + 1, scale * 2
    axes = [{"name": "c", "type": "channel"}] + [{"name": n, "type": "space"} for n in "yx"]
    multiscales: Any = [{"name": "image", "axes": axes, "datasets": datasets}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    return path


if __name__ == "__main__":
    typer.run(bench_walk)
