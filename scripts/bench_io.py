"""What it costs to make and to read our stores, beside what others need for the same.

python -m tnet.scripts.bench_io [--only a,b,c,d] [--size 16384] [--repeats 5] [--folder F] [--json]

a: conversions, in CPU-seconds and peak memory; b: windows from the disk, in CPU time; c: windows
through a network, in seconds; d: tiles moved as they are beside plain copies, of slides up to four
times as wide, which takes minutes. The default size needs 4 GB of room for that, and 24 GB to
measure all of it without deleting. Everything takes turns; medians and ratios are printed. Others
are compared where they are installed: ``pip install "tnet[bench]"``.
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

_PARTS = ("a", "b", "c", "d")


def bench_io(
    only: Annotated[str, typer.Option(help="Parts to run.")] = ",".join(_PARTS),
    size: Annotated[int, typer.Option(min=2048, help="Pixels a side; a power of two.")] = 16384,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 5,
    folder: Annotated[
        Path | None, typer.Option(help="Where slides and stores go, and stay for another run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure reading and writing, and print ratios."""
    from tnet.scripts.bench_convert import conversions, moving
    from tnet.scripts.bench_windows import remote, windows

    if size & (size - 1):
        raise typer.BadParameter("it must be a power of two", param_hint="--size")
    parts = dict(zip(_PARTS, (conversions, windows, remote, moving), strict=True))
    if unknown := set(only.split(",")) - set(parts):
        raise typer.BadParameter(f"there is no part {unknown.pop()!r}", param_hint="--only")
    pages = {"a": _conversions_page, "b": _windows_page, "c": _remote_page, "d": _moving_page}
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        results = {
            part: parts[part](place, size, repeats) for part in _PARTS if part in only.split(",")
        }
    if as_json:
        print(json.dumps(results, indent=1))
        return
    for part, values in results.items():
        print("\n".join(pages[part](values)))


def _conversions_page(values: dict[str, Any]) -> list[str]:
    size = values["size"]
    lines = [f"conversion of a JPEG slide, {size} x {size} pixels, {values['file'] / 1e6:.0f} MB"]
    for kind, costs in values["measured"].items():
        lines.append(
            f"  {kind:<12} {costs['mpx']:8.1f} Mpx/CPU-s  {costs['cpu']:7.3f} CPU-s  "
            f"{costs['wall']:7.3f} s  peak {costs['peak'] / 1e6:.0f} MB"
        )
    if values["times_faster"] is not None:
        lines.append(f"  lossless: {values['times_faster']:.1f} times the better of the others")
    growth = (f"{kind} {ratio - 1:+.1%}" for kind, ratio in values["memory_growth"].items())
    return [*lines, f"  peak memory of 4 times the pixels: {', '.join(growth)}", *_missing(values)]


def _windows_page(values: dict[str, Any]) -> list[str]:
    lines = [f"windows of a slide of {values['size']} x {values['size']} pixels, CPU-ms each"]
    for kind, spent in values["milliseconds"].items():
        lines.append(f"  {kind}")
        lines += [f"    {name:<23} {value:.3f}" for name, value in spent.items()]
        lines.append(
            f"    ours: {values['times_tensorstore'][kind]:.2f} times tensorstore "
            f"({values['times_bands_last'][kind]:.2f} with bands last), "
            f"{values['times_faster'][kind]:.1f} times faster than zarr-python"
        )
    return lines + _missing(values)


def _remote_page(values: dict[str, Any]) -> list[str]:
    lines = ["64 windows at once through a network with 20 ms a request, seconds"]
    lines += [f"  {name:<24} {seconds:.3f}" for name, seconds in values["seconds"].items()]
    return lines + _missing(values)


def _moving_page(values: dict[str, Any]) -> list[str]:
    lines = []
    for size, results in values.items():
        head = f"tiles of a slide of {size} x {size} pixels, {results['file'] / 1e6:.0f} MB"
        for way, found in results["ways"].items():
            lines.append(f"{head}, {way}")
            for kind, costs in found["measured"].items():
                lines.append(f"  {kind:<12} {costs['cpu']:7.3f} CPU-s  {costs['wall']:7.3f} s")
            for copy, times in found["times_copy"].items():
                lines.append(f"  source: {times:.2f} times the CPU time of {copy}")
    return lines


def _missing(values: dict[str, Any]) -> list[str]:
    return [f"  not installed, not compared: {name}" for name in values["missing"]]


if __name__ == "__main__":
    typer.run(bench_io)
