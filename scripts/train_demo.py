"""Train the model that ``tnet demo`` ships with, from slides made for it.

python -m tnet.scripts.train_demo WORK --out tnet/models/demo.safetensors

Makes the slides in WORK (kept for the next run); first the backbone learns what single objects
are, then the whole model learns to walk, from the slides' labels and the boxes of the targets.
Reports the accuracy on slides it has not seen, and writes the model.
"""

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tnet.scripts.output import say

if TYPE_CHECKING:
    from tnet.datasets.loading import Images
    from tnet.datasets.manifest import Manifest
    from tnet.model import TNet
    from tnet.task import Sample, Settings

_COMMAND = "python -m tnet.scripts.train_demo WORK --out tnet/models/demo.safetensors"
_OBJECT = 256  # pixels of level 0 around an object, as the last level of the walk sees it
_DECOYS = 12  # of each slide, to learn from


def train_demo(
    work: Annotated[Path, typer.Argument(help="Folder for the training slides.")],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    slides: Annotated[int, typer.Option(min=6, help="Training slides to make.")] = 210,
    held_out: Annotated[int, typer.Option(min=3, help="Slides to measure on.")] = 60,
    object_epochs: Annotated[int, typer.Option(min=1, help="Passes over single objects.")] = 8,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the slides.")] = 8,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Make the slides, train, measure, write the model."""
    import lightning

    from tnet.bundle import save
    from tnet.datasets.fingerprint import fingerprint
    from tnet.datasets.manifest import read_manifest
    from tnet.datasets.synthetic import CLASSES, make_dataset
    from tnet.objective import Rule
    from tnet.task import Settings

    started = time.perf_counter()
    make_dataset(work / "train", slides, seed=seed, on_progress=_progress("training slides"))
    make_dataset(work / "test", held_out, seed=seed + 1000, on_progress=_progress("test slides"))
    lightning.seed_everything(seed, verbose=False)
    model = _model(CLASSES)
    tables = [
        read_manifest(work / part / "labels.csv", classes=CLASSES) for part in ("train", "test")
    ]
    train, test = (
        _images(table, count, seed, model)
        for table, count in zip(tables, (slides, held_out), strict=True)
    )
    objects = Settings(Rule(main_ce=1.0), lr=2e-3, head_lr=2e-3, weight_decay=0.02)
    crops = _objects(train, seed)
    _fit(model, objects, crops, crops[::20], epochs=object_epochs, batch=32, plan="look once")
    walks = Settings(
        Rule(reinforce=0.02, main_ce=0.3, main_reinforce=0.2),
        lr=5e-4,
        head_lr=1e-3,
        weight_decay=0.02,
        supervise=1.0,
        absent=CLASSES.index("normal"),
    )
    accuracy = _fit(model, walks, train, test, epochs=epochs, batch=4, plan="walk")
    record = {
        "command": _COMMAND,
        "data": fingerprint(work / "train"),
        "supervision": "slide labels, and boxes of the targets",
        "slides": slides,
        "objects": len(crops),
        "epochs": [object_epochs, epochs],
        "seed": seed,
        "test_slides": held_out,
        "test_accuracy": accuracy,
        "minutes": round((time.perf_counter() - started) / 60, 1),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    save(model, out, training=record)
    say(f"{out}: {accuracy:.1%} of {held_out} test slides right, {record['minutes']} minutes")


def _model(classes: tuple[str, ...]) -> "TNet":
    """Build the demo's model: small, and the same while training and afterwards."""
    from tnet.location import ContextLocation
    from tnet.plan import Plan, Step
    from tnet.recipes import build

    model = build(
        "default",
        classes=list(classes),
        backbone="test_resnet",
        stride=8,
        aggregate="weighting",
        norm="group",
    )
    # Patches of 1,500 px are 7 px wide at the first look, objects of 64 to 96 px 6 px at the
    # second, and at the third one sees 5/8 of their pixels.
    model.plan = Plan(
        view=(160, 160),
        steps=(Step(16, 16, 1 / 16, 8), Step(15, 15, _OBJECT / 2048, 4)),
        background=0.05,
    )
    model.expect(replace(model.expects, mpp=0.25))
    # The boxes teach the map itself, not only what reads it.
    assert isinstance(model.location, ContextLocation)
    model.location.detach = False
    return model


def _images(table: "Manifest", count: int, seed: int, model: "TNet") -> "Images":
    """Return the first slides of a table, with the boxes of their targets."""
    from tnet.datasets.loading import Images
    from tnet.datasets.synthetic import read_truth
    from tnet.geometry import Region

    entries = [
        replace(entry, boxes=tuple(Region(*box) for box in read_truth(entry.image).targets))
        for entry in table.entries[:count]
    ]
    # Crops of the slides need all of them open.
    return Images(entries, table, seed=seed, expects=model.expects, keep_open=count)


def _objects(images: "Images", seed: int) -> "list[Sample]":
    """Return crops around every target, with their slide's label, and around some decoys."""
    from tnet.adapters import crop
    from tnet.datasets.synthetic import CLASSES, read_truth
    from tnet.geometry import Region
    from tnet.task import Sample

    chance = random.Random(seed)
    absent, found = CLASSES.index("normal"), []
    for index, (entry, label) in enumerate(zip(images.entries, images.targets, strict=True)):
        truth = read_truth(entry.image)
        decoys = chance.sample(truth.decoys, min(_DECOYS, len(truth.decoys)))
        known = [(box, label) for box in truth.targets] + [(box, absent) for box in decoys]
        for (x, y, width, height), own in known:
            # Anywhere in the view, as the walk will find it.
            slack_x, slack_y = _OBJECT - width, _OBJECT - height
            left = x - int(chance.random() * slack_x)
            top = y - int(chance.random() * slack_y)
            part = crop(images[index].pyramid, Region(left, top, _OBJECT, _OBJECT))
            found.append(Sample(part, own, seed))
    chance.shuffle(found)
    return found


def _fit(
    model: "TNet",
    settings: "Settings",
    train: Any,
    test: Any,
    *,
    epochs: int,
    batch: int,
    plan: str,
) -> float:
    """Train, and return the accuracy on the test images."""
    import lightning

    from tnet.datasets.loading import batches
    from tnet.task import Training

    whole = model.plan
    walk = replace(whole, steps=(replace(whole.steps[0], glimpses=6), whole.steps[1]))
    if plan == "look once":
        model.plan = walk = replace(whole, steps=(), background=None)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        callbacks=[_report_callback()],
    )
    steps = epochs * -(-len(train) // batch)
    task = Training(model, replace(settings, steps=steps), plan=walk)
    trainer.fit(task, batches(train, batch, shuffle=True), batches(test, batch))
    model.plan = whole
    return float(trainer.callback_metrics["val_accuracy"])


def _progress(what: str) -> Any:
    def tell(done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            say(f"{what}: {done}/{total}")

    return tell


def _report_callback() -> Any:
    import lightning

    class Report(lightning.Callback):
        """One line an epoch."""

        def on_train_epoch_end(
            self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
        ) -> None:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            shown = "  ".join(f"{name} {value:.3f}" for name, value in sorted(metrics.items()))
            say(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}")

    return Report()


if __name__ == "__main__":
    typer.run(train_demo)
