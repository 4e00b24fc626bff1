"""From a table to a trained model: the steps of ``tnet train``."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tnet import __version__
from tnet.bundle import load, read_header, save
from tnet.calibration import Calibration
from tnet.datasets.statistics import entry_statistics
from tnet.scripts.blanks import without_blanks
from tnet.scripts.building import Built, Traits, built, place_of
from tnet.scripts.config import Config
from tnet.scripts.fitting import Task, fit, measured
from tnet.scripts.options import chosen_device
from tnet.scripts.output import say
from tnet.scripts.parts import Parts, manifest_of, parted, remembered, write_parts
from tnet.scripts.planning import odd_plan, sizes_of
from tnet.scripts.runs import Run, digest, saving
from tnet.scripts.sense import without_effect
from tnet.scripts.showing import Ready, announced, timed
from tnet.scripts.stopping import Stopped

if TYPE_CHECKING:
    from tnet.memory import Memory

_LIBRARIES = ("torch", "timm", "lightning", "numpy", "albumentations")


def dry(data: Path, config: Config) -> dict[str, Any]:
    """Say what a training would do and how long it would take; write nothing.

    Raises:
        UsageError: as the training would.
        DataError: as the training would.
    """
    device = chosen_device(config.device)
    ready = prepared(data, config)
    page = announced(ready, device, say)
    return page | timed(ready, measured(ready.task, device), say)


def run_training(data: Path, out: Path, config: Config) -> dict[str, Any]:
    """Train into a folder, or go on there; return what came of it.

    Raises:
        UsageError: if flags, folder or images do not go together.
        DataError: if the images or weights are unfit.
        BusyError: if another process trains there.
        OutputError: if the folder cannot be written.
        typer.Exit: with 130 after Ctrl-C.
    """
    device = chosen_device(config.device)
    run = Run(out)
    with run.held():
        run.check(config, data)
        if run.state == "finished":
            say(f"{out}: is finished; train into another folder, or evaluate this one")
            return run.results()
        with ExitStack() as stack:
            going_on = run.state == "begun"
            if going_on:
                task = resumed(data, config, run)
                memory = _memory(task, run, stack)
                run.tell(f"{out}: goes on where it was")
            else:
                ready = prepared(data, config)
                task = ready.task
                memory = _memory(task, run, stack)
                begin(run, data, ready)
                # Before the trial, which a plan that is too large may not survive.
                announced(ready, device, run.tell)
                run.tell(f"which image is for what: {run.splits}")
                timed(ready, measured(task, device, memory), run.tell)
            return _fitted(task, run, device, memory, data)


def _fitted(
    task: Task, run: Run, device: str, memory: "Memory | None", data: Path
) -> dict[str, Any]:
    try:
        keeping = fit(task, run, record(task, data), device, memory)
    except Stopped as stop:
        say(f"{run.folder}: the same command goes on from here")
        raise typer.Exit(stop.code) from stop
    if memory is not None and memory.problem:
        run.tell(f"note: {memory.problem}")
    best = keeping.best
    fitted = calibration_of(run)
    if fitted is not None:
        run.tell(fitted.told())
    page = {
        "run": str(run.folder),
        "model": str(run.model),
        "classes": list(task.model.classes),
        "epochs": keeping.done,
        "best_epoch": best.epoch,
        "measured": best.values,
        "calibration": None if fitted is None else asdict(fitted),
        "images": task.parts.counts(),
        "unreadable": len(task.parts.unreadable) + keeping.failed,
        "blank": len(task.parts.blank),
        "seconds": round(keeping.seconds, 1),
    }
    run.finish(page)
    return page


def calibration_of(run: Run) -> Calibration | None:
    """Return how the best model's probabilities were calibrated; None if its file doesn't say."""
    said = read_header(run.model)["training"].get("calibration")
    if said is None:
        return None
    losses = said["log_loss"]
    return Calibration(**(said | {"log_loss": None if losses is None else tuple(losses)}))


def prepared(data: Path, config: Config) -> Ready:
    """Read the table, look into the images, and build the model.

    Raises:
        UsageError: if something does not go together.
        DataError: if the images or weights are unfit.
    """
    from tnet.datasets.augment import Augment

    Augment().but(config.vary or {})  # refused before thousands of images are opened
    manifest = manifest_of(data, config)
    parts = parted(manifest, config, _told())
    names = [str(entry.image) for entry in parts.train]
    facts = [parts.facts[entry.row] for entry in parts.train]
    sizes = sizes_of(facts, names, config.mpp)
    first = facts[0]
    traits = Traits(
        classes=manifest.classes,
        multilabel=manifest.multilabel,
        bands=first.bands,
        dtype=first.dtype,
        sizes=sizes,
        statistics=lambda: entry_statistics(parts.train, seed=config.seed),
    )
    model = built(config, traits)
    parts = without_blanks(parts, model.model.plan)
    task = task_of(model, parts, config)
    odd = odd_plan(model.model.plan, config, sizes)
    return Ready(task, sizes, (*parts.notes, *model.notes, *without_effect(task), *odd))


def task_of(model: Built, parts: Parts, config: Config) -> Task:
    """Return the task of a model and its images."""
    expects = model.model.expects
    augment = config.augment
    if augment == "auto":
        colour = expects.bands == 3 and expects.dtype == "uint8"
        augment = "slide" if colour and expects.mpp is not None else "light"
        if model.freeze == "backbone" and config.model == "tiles":
            # Varied images would have to be looked at anew every time.
            augment = "none"
    absent = place_of(parts.manifest.classes, config.absent)
    return Task(model.model, model.freeze, parts, config, augment, absent)


def resumed(data: Path, config: Config, run: Run) -> Task:
    """Return the task of a run that has begun, as it was then.

    Raises:
        DataError: if a file of the run cannot be read.
    """
    model = load(run.initial)
    parts = remembered(manifest_of(data, config), run)
    freeze = str(model.training_record.get("freeze", "none"))
    return task_of(Built(model, freeze, ()), parts, config)


def begin(run: Run, data: Path, ready: Ready) -> None:
    """Write what the run is, before its first step.

    Raises:
        OutputError: if it cannot be written.
    """
    task = ready.task
    about = {
        "data": str(data),
        "data_sha256": digest(data),
        "versions": versions(),
        "classes": list(task.model.classes),
        "augment": task.augment,
        "freeze": task.freeze,
    }
    with saving(run.folder):
        save(task.model, run.initial, training={"freeze": task.freeze})
    run.write_config(task.config, about)
    write_parts(run, task.parts, task.config.separator)


def record(task: Task, data: Path) -> dict[str, Any]:
    """Return what the model's file says of its training."""
    return {
        "command": "tnet train",
        "data": {"file": data.name, "sha256": digest(data)},
        "images": task.parts.counts(),
        "seed": task.config.seed,
        "config": {n: v for n, v in task.config.to_dict().items() if v is not None},
        "freeze": task.freeze,
        "augment": task.augment,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    return {"tnet": __version__} | {name: version(name) for name in _LIBRARIES}


def _memory(task: Task, run: Run, stack: ExitStack) -> "Memory | None":
    """Return the remembered looks, where there can be any; closed with the stack."""
    from tnet.memory import Memory

    if not task.remembers:
        return None
    file = Path(task.config.looks) if task.config.looks else run.features
    with saving(file):
        memory = Memory(file, int(task.model.backbone.features))  # type: ignore[arg-type]
    stack.callback(memory.close)
    return memory


def _told() -> Callable[[int, int], None]:
    """Return what tells how many images were looked into, now and then."""
    from tnet.scripts.amount import Amount

    state: list[Any] = []

    def told(done: int, total: int) -> None:
        if not state:
            state.append(Amount("images", total, "images"))
        state[0].add(1)

    return told
