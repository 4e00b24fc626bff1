"""Evaluate a model: ``tnet evaluate RUN data.csv --split test --out report``."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tnet import __version__
from tnet.errors import UsageError
from tnet.scripts.options import AsJson, Batch, Device, Glimpses, images_at_once
from tnet.scripts.output import Result, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tnet.datasets.manifest import Entry
    from tnet.plan import Plan
    from tnet.scripts.evaluation import Job, Seen

_FILES = ("predictions.csv", "report.json", "report.html")


def evaluate(  # noqa: PLR0913 - Typer makes a flag of every argument
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="Folder of a training, or a model file.")
    ],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="CSV or Parquet: image, label, and the like.")
    ],
    split: Annotated[
        Literal["train", "val", "test", "all"], typer.Option(help="Which rows of the table.")
    ] = "test",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write report.html, report.json, predictions.csv there."),
    ] = None,
    glimpses: Glimpses = None,
    curve: Annotated[
        bool,
        typer.Option("--curve/--no-curve", help="Walk again with fewer and more glimpses."),
    ] = True,
    separator: Annotated[
        str | None,
        typer.Option(help="Between the labels of an image, for models that give several."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Of the intervals, and of walks that draw.")
    ] = 0,
    batch: Batch = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say how good a model is on labelled images, how sure that is, and what it costs.

    Exits with 4 if some of the images failed, and with 3 if all did; the others are evaluated.
    With 6 it ends where a result cannot be written.
    """
    from tnet.scripts.classify import load_model
    from tnet.scripts.evaluation import Job
    from tnet.scripts.evaluation_report import report_of
    from tnet.scripts.evaluation_rows import about_run, chosen_rows, manifest_of, trained_on
    from tnet.scripts.prepare import Wishes, changed_plan
    from tnet.scripts.runs import model_file

    started = time.perf_counter()
    loaded = load_model(str(model_file(model)), device)
    table = manifest_of(data, loaded, separator)
    rows, part, remarks = chosen_rows(table, split, trained_on(model))
    remarks = [*about_run(model), *remarks]
    for remark in remarks:
        say(f"note: {remark}")
    plan = changed_plan(loaded.plan, glimpses=glimpses, until=None, background=None)
    folder = None if out is None else _made(out)
    job = Job(
        table=data,
        model=loaded,
        wished=Wishes(mpp=None, bands=None, value_range=None),
        seed=seed,
        batch=images_at_once(batch, loaded.device.type),
        debug=bool((context.obj or {}).get("debug")),
    )
    seen = _walked(job, plan, rows)
    figures = report_of(seen, loaded.classes, multilabel=loaded.multilabel, seed=seed)
    report = {
        "model": model,
        "data": str(data),
        "split": part,
        "steps": None if plan.tiles is not None else [step.glimpses for step in plan.steps],
        **figures,
        "curve": _curve(job, plan, seen) if curve else [],
        "notes": [*remarks, *figures["notes"]],
        "made": _made_by(job, plan, started),
    }
    for note in figures["notes"]:
        say(f"note: {note}")
    if folder is not None:
        _write(folder, job, plan, seen, report)
    _finish(report, as_json=as_json)


def _made(folder: Path) -> Path:
    """Make the folder of results before the long work begins, and see that its files fit in."""
    for name in _FILES:
        if (folder / name).is_dir():
            raise UsageError(f"{folder / name} is a folder; name another place with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the folder {folder} cannot be made ({error.strerror or error}); "
            "name another with --out"
        ) from error
    return folder


def _walked(
    job: "Job", plan: "Plan", rows: "Sequence[Entry]", *, again: bool = False
) -> "list[Seen]":
    """Walk over images while saying how far that is; what is said of them is said once."""
    from tnet.scripts.evaluation import evaluated
    from tnet.scripts.progress import Progress

    with Progress(len(rows)) as progress:

        def done(seen: "Seen") -> None:
            told = () if again else seen.notes
            progress.advance(Result(str(seen.entry.image), error=seen.error, notes=told))

        return evaluated(job, plan, rows, done)


def _curve(job: "Job", plan: "Plan", seen: "list[Seen]") -> list[dict[str, Any]]:
    """Return figures and costs with fewer and more glimpses, the fewest first."""
    from tnet.scripts.evaluation import FACTORS, scaled
    from tnet.scripts.evaluation_report import curve_point

    rows = [one.entry for one in seen if one.error is None]
    if not plan.steps or not rows:
        return []
    walks: dict[Plan, tuple[float, list[Seen]]] = {plan: (1.0, seen)}
    for factor in FACTORS:
        other = scaled(plan, factor)
        if other not in walks:
            steps = ",".join(str(step.glimpses) for step in other.steps)
            what = f"with {steps} glimpses a step" if steps else "with the first look alone"
            say(f"for the curve, once more {what}")
            walks[other] = factor, _walked(job, other, rows, again=True)
    ordered = sorted(walks.items(), key=lambda item: item[1][0])
    classes, several = job.model.classes, job.model.multilabel
    return [
        curve_point(found, other, factor, classes=classes, multilabel=several)
        for other, (factor, found) in ordered
    ]


def _made_by(job: "Job", plan: "Plan", started: float) -> dict[str, Any]:
    """Return how the report came to be."""
    import torch

    return {
        "tnet": __version__,
        "torch": torch.__version__,
        "device": str(job.model.device),
        "batch": job.batch,
        "seed": job.seed,
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "seconds": round(time.perf_counter() - started, 1),
        "plan": plan.to_dict(),
        "training": job.model.training_record,
    }


def _write(
    folder: Path, job: "Job", plan: "Plan", seen: "list[Seen]", report: dict[str, Any]
) -> None:
    """Write the table, the values and the page."""
    from tnet.scripts.evaluation_page import page_of
    from tnet.scripts.evaluation_pictures import mistakes
    from tnet.scripts.evaluation_report import predictions_csv
    from tnet.scripts.files import write_file

    classes, several = job.model.classes, job.model.multilabel
    predictions, values, page = (folder / name for name in _FILES)
    write_file(predictions, predictions_csv(seen, classes, multilabel=several))
    write_file(values, json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False))
    write_file(page, page_of(report, mistakes(job, plan, seen)))
    say(f"the report is {page}")


def _finish(report: dict[str, Any], *, as_json: bool) -> None:
    """Print the report, and leave with the exit code that tells of failures."""
    from tnet.scripts.evaluation_report import text_of
    from tnet.scripts.output import exit_code, print_json, shown

    if as_json:
        print_json(report)
    else:
        print(shown(text_of(report)))
    if report["failed"]:
        raise typer.Exit(exit_code(report["failed"], report["failed"] + report["n"]))
