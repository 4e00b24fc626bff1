"""Classify images: ``tnet classify slide.svs --model demo --out results``."""

import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tnet.errors import UsageError

if TYPE_CHECKING:
    from tnet.model import TNet
    from tnet.plan import Plan
    from tnet.pyramid import Pyramid
    from tnet.record import Walk
    from tnet.sampling import Policy
    from tnet.scripts.prepare import Wishes
    from tnet.scripts.progress import Progress
    from tnet.scripts.report import Result

_GPU_BATCH = 4


def classify(  # noqa: PLR0913 - Typer makes a flag of every argument
    context: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE", help="Files, folders, zarr folders, 'patterns*' or @list.txt."
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="Name of a shipped model (see `tnet models`), or a file.")
    ] = None,
    glimpses: Annotated[
        str | None,
        typer.Option(
            metavar="8,2,1",
            help="Glimpses of each view, level by level, instead of the model's own.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write predictions.csv, walks/ and overlays/ there."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    mpp: Annotated[
        float | None, typer.Option(help="Size of a pixel in µm, instead of what the file says.")
    ] = None,
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
    policy: Annotated[
        Literal["greedy", "categorical", "uniform"] | None,
        typer.Option(help="How cells are chosen; the last two draw at random."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Each image's draws start from it.")
    ] = 0,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help=f"Images at a time; {_GPU_BATCH} on a GPU, else 1."),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the model runs.")
    ] = "auto",
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Draw the walks (with --out).")
    ] = True,
    overlay_size: Annotated[
        int, typer.Option(min=256, max=8192, help="Longer side of the drawn image, pixels.")
    ] = 1024,
) -> None:
    """Classify images by walking over them, and say what was looked at.

    Exits with 4 if some of the images failed, and with 3 if all did; the others are classified.
    """
    from tnet.scripts.inputs import find_images
    from tnet.scripts.prepare import changed_plan, wishes

    wished = wishes(mpp=mpp, bands=bands, value_range=value_range)
    paths = find_images(images)
    loaded = _load(model, device)
    plan = changed_plan(loaded.plan, glimpses=glimpses, until=until, background=background)
    work = Work(
        model=loaded,
        plan=plan,
        wished=wished,
        policy=policy,
        seed=seed,
        debug=bool((context.obj or {}).get("debug")),
        batch=batch or (_GPU_BATCH if loaded.device.type == "cuda" else 1),
    )
    pictures = overlay_size if overlay else None
    results = _run(work, paths, None if out is None else Files(out, pictures))
    _finish(results, str(model), as_json=as_json)


def _load(model: str | None, device: str) -> "TNet":
    import torch

    from tnet.bundle import load, shipped

    if model is None:
        known = ", ".join(shipped()) or "none"
        raise UsageError(f"name a model with --model; models that come with TNet: {known}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA device here; leave --device out, or say cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return load(model, device=device)


@dataclass(frozen=True)
class Work:
    """What is done with every image."""

    model: "TNet"
    plan: "Plan"
    wished: "Wishes"
    policy: "Policy | None"
    seed: int
    debug: bool
    batch: int

    def walk(self, pyramids: "list[Pyramid]") -> "list[Walk | Exception]":
        """Walk over images together; if that fails, one by one, so that only the culprit does."""
        from tnet.traversal import walk

        try:
            return list(walk(self.model, pyramids, self.plan, seed=self.seed, policy=self.policy))
        except Exception as error:
            if len(pyramids) == 1:
                return [error]
        return [self.walk([pyramid])[0] for pyramid in pyramids]


@dataclass
class Files:
    """What is written into the folder of results.

    Attributes:
        folder: it and its sub-folders are made if need be.
        overlay: longer side of the overlays' image in pixels; None draws none.
    """

    folder: Path
    overlay: int | None
    _names: dict[Path, str] = field(default_factory=dict)

    def prepare(self, paths: list[Path]) -> None:
        """Make the folders, and a name for each image's files."""
        from tnet.scripts.inputs import output_names

        self._names = dict(zip(paths, output_names(paths), strict=True))
        try:
            for name in ("walks", "overlays")[: 1 if self.overlay is None else 2]:
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the folder {self.folder} cannot be made ({error.strerror or error}); "
                "name another with --out"
            ) from error

    def write_walk(self, path: Path, walk: "Walk", pyramid: "Pyramid") -> str | None:
        """Write a walk and its overlay; return why the overlay could not be drawn, if so."""
        from tnet.scripts.report import write_file

        name = self._names[path]
        write_file(self.folder / "walks" / f"{name}.json", walk.to_json(indent=1))
        if self.overlay is None:
            return None
        try:
            picture = _png(walk, pyramid, self.overlay)
        except Exception as error:
            return f"its overlay could not be drawn: {error}"
        write_file(self.folder / "overlays" / f"{name}.png", picture)
        return None

    def write_table(self, results: "list[Result]", classes: tuple[str, ...]) -> None:
        """Write the results so far."""
        from tnet.scripts.report import csv_text, write_file

        write_file(self.folder / "predictions.csv", csv_text(results, classes))


def _png(walk: "Walk", pyramid: "Pyramid", size: int) -> bytes:
    import io

    from tnet.adapters.overlay import draw_walk

    file = io.BytesIO()
    draw_walk(walk, pyramid, size).save(file, "PNG")
    return file.getvalue()


def _run(work: Work, paths: list[Path], files: Files | None) -> "list[Result]":
    from tnet.scripts.progress import Progress

    if files is not None:
        files.prepare(paths)
    results: list[Result] = []
    with Progress(len(paths)) as progress:
        for start in range(0, len(paths), work.batch):
            for result in _batch(work, paths[start : start + work.batch], files, progress):
                results.append(result)
                progress.advance(result)
                if files is not None:
                    files.write_table(results, work.model.classes)
    return results


def _batch(
    work: Work, paths: list[Path], files: Files | None, progress: "Progress"
) -> "Iterator[Result]":
    """Give the results of a few images that are walked together, in their order."""
    from tnet.scripts.prepare import opened
    from tnet.scripts.report import Result, reason, result_of

    progress.show(paths)
    with ExitStack() as stack:
        outcomes: dict[Path, Any] = {}
        for path in paths:
            try:
                outcomes[path] = stack.enter_context(opened(path, work.wished, work.model.expects))
            except Exception as error:
                outcomes[path] = error
        pyramids = {p: o for p, o in outcomes.items() if not isinstance(o, Exception)}
        outcomes.update(zip(pyramids, work.walk(list(pyramids.values())), strict=True))
        for path in paths:
            outcome = outcomes[path]
            if isinstance(outcome, Exception):
                if work.debug:
                    traceback.print_exception(outcome)
                yield Result(image=str(path), error=reason(str(path), outcome))
                continue
            result = result_of(str(path), outcome, pyramids[path].mpp)
            note = files and files.write_walk(path, outcome, pyramids[path])
            yield replace(result, notes=(*result.notes, note)) if note else result


def _finish(results: "list[Result]", model: str, *, as_json: bool) -> None:
    """Print the results, and leave with the exit code that tells of failures."""
    from tnet.scripts.report import exit_code, print_json, table

    failed = sum(result.error is not None for result in results)
    if as_json:
        listed = [result.to_dict() for result in results]
        print_json({"model": model, "results": listed, "failed": failed})
    else:
        print(table(results))
    if failed:
        raise typer.Exit(exit_code(failed, len(results)))
