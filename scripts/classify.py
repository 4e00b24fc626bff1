"""Classify images: ``tnet classify slide.svs --model demo --out results``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tnet.errors import UsageError
from tnet.scripts.options import (
    AsJson,
    Batch,
    Device,
    Glimpses,
    Images,
    MaxMemory,
    MaxPixels,
    Mpp,
    Remote,
    chosen_device,
    images_at_once,
)

if TYPE_CHECKING:
    from tnet.model import TNet
    from tnet.scripts.output import Result


def classify(  # noqa: PLR0913 - Typer makes a flag of every argument
    context: typer.Context,
    images: Images,
    model: Annotated[
        str | None, typer.Option(help="Name of a shipped model (see `tnet models`), or a file.")
    ] = None,
    glimpses: Glimpses = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write predictions.csv, walks/ and overlays/ there."),
    ] = None,
    as_json: AsJson = False,
    mpp: Mpp = None,
    bands: Annotated[
        str | None,
        typer.Option(
            metavar="4,3,2", help="Bands that the model sees, counted from 1, in this order."
        ),
    ] = None,
    value_range: Annotated[
        str | None,
        typer.Option("--range", metavar="LOW,HIGH", help="Pixel values that become 0 and 255."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="steps|native|NUMBER",
            help="How deep: the plan's steps, full resolution, or so many µm per px.",
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            metavar="F|off",
            help="Least fraction of a cell that is no background; off looks anywhere.",
        ),
    ] = None,
    snap: Annotated[
        float | None,
        typer.Option(
            metavar="F",
            help="Move regions by up to this fraction of a side, to read fewer tiles; 0 to 0.5.",
        ),
    ] = None,
    policy: Annotated[
        Literal["greedy", "categorical", "uniform"] | None,
        typer.Option(help="How cells are chosen; the last two draw at random."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Each image's draws start from it.")
    ] = 0,
    batch: Batch = None,
    device: Device = "auto",
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Draw the walks (with --out).")
    ] = True,
    overlay_size: Annotated[
        int, typer.Option(min=256, max=8192, help="Longer side of the drawn image, pixels.")
    ] = 1024,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Keep what was looked at, in pixels/ (with --out).")
    ] = False,
    attention: Annotated[
        str | None,
        typer.Option(
            metavar="soft|grad-cam[:CLASS]",
            help="Draw what counts inside every glimpse, in attention/ (with --out): the "
            "backbone's own attention, or Grad-CAM for the predicted class or another.",
        ),
    ] = None,
    max_pixels: MaxPixels = None,
    max_memory: MaxMemory = None,
    remote: Remote = False,
) -> None:
    """Classify images by walking over them, and say what was looked at.

    Exits with 4 if some of the images failed, and with 3 if all did; the others are classified.
    With 6 it ends where a result cannot be written.
    """
    from tnet.adapters.limits import limits_of
    from tnet.scripts.files import Extras, Files
    from tnet.scripts.inputs import find_images
    from tnet.scripts.insets import inside_of
    from tnet.scripts.prepare import changed_plan, wishes
    from tnet.scripts.work import Work, classified

    if pixels and out is None:
        raise UsageError("--pixels keeps what was looked at in a folder; name one with --out")
    if attention is not None and out is None:
        raise UsageError("--attention draws pictures in a folder; name one with --out")
    limits = limits_of(max_pixels, max_memory)
    wished = wishes(mpp=mpp, bands=bands, value_range=value_range, limits=limits, remote=remote)
    paths = find_images(images)
    loaded = load_model(model, device)
    plan = changed_plan(
        loaded.plan, glimpses=glimpses, until=until, background=background, snap=snap
    )
    work = Work(
        model=loaded,
        plan=plan,
        wished=wished,
        policy=policy,
        seed=seed,
        debug=bool((context.obj or {}).get("debug")),
        batch=images_at_once(batch, loaded.device.type),
    )
    inside = None if attention is None else inside_of(attention, loaded)
    extras = Extras(overlay_size if overlay else None, pixels, inside)
    files = None if out is None else Files(out, paths, loaded, extras)
    results = classified(work, paths, files, whole=as_json)
    _finish(results, str(model), as_json=as_json)


def load_model(model: str | None, device: str) -> "TNet":
    """Return the model of a name or a file, on the device that a flag asks for.

    Raises:
        UsageError: if none is named, or there is no such device.
        ModelFileError: if it cannot be loaded.
    """
    from tnet.bundle import load, shipped

    if model is None:
        known = ", ".join(shipped()) or "none"
        raise UsageError(f"name a model with --model; models that come with TNet: {known}")
    return load(model, device=chosen_device(device))


def _finish(results: "list[Result]", model: str, *, as_json: bool) -> None:
    """Print the results, and leave with the exit code that tells of failures."""
    from tnet.scripts.output import exit_code, print_json, table

    failed = sum(result.error is not None for result in results)
    if as_json:
        listed = [result.to_dict() for result in results]
        print_json({"model": model, "results": listed, "failed": failed})
    else:
        print(table(results))
    if failed:
        raise typer.Exit(exit_code(failed, len(results)))
