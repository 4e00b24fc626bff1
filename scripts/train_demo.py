"""Train the model that ``tnet demo`` ships with, from slides made for it.

python -m tnet.scripts.train_demo WORK --out tnet/models/demo.safetensors

Makes the slides in WORK (kept for the next run), trains on their labels and the boxes of their
targets, reports the accuracy on slides it has not seen, and writes the model.
"""

import hashlib
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer


def train_demo(
    work: Annotated[Path, typer.Argument(help="Folder for the training slides.")],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    slides: Annotated[int, typer.Option(min=6, help="Training slides to make.")] = 210,
    held_out: Annotated[int, typer.Option(min=3, help="Slides to measure on.")] = 60,
    epochs: Annotated[int, typer.Option(min=1)] = 22,
    batch: Annotated[int, typer.Option(min=1, help="Slides a step.")] = 4,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Make the slides, train, measure, write the model."""
    import lightning
    import torch

    from tnet.bundle import save
    from tnet.datasets.images import LabelledImages, batches, read_labels
    from tnet.datasets.synthetic import CLASSES, make_dataset, read_truth
    from tnet.geometry import Region
    from tnet.location import ContextLocation
    from tnet.objective import Rule
    from tnet.plan import Plan, Step
    from tnet.recipes import build
    from tnet.task import Settings, Training

    started = time.perf_counter()
    make_dataset(work / "train", slides, seed=seed, on_progress=_progress("training slides"))
    make_dataset(work / "test", held_out, seed=seed + 1000, on_progress=_progress("test slides"))
    rows = read_labels(work / "train" / "labels.csv")[:slides]
    boxes = [tuple(Region(*box) for box in read_truth(path).targets) for path, _ in rows]
    train = LabelledImages(rows, CLASSES, seed, boxes)
    test = LabelledImages(read_labels(work / "test" / "labels.csv")[:held_out], CLASSES, seed)

    lightning.seed_everything(seed, verbose=False)
    model = build(
        "default",
        classes=list(CLASSES),
        backbone="test_resnet",
        stride=8,
        aggregate="weighting",
        norm="group",
    )
    # Patches of 1,500 px are 7 px wide at the first look, objects of 64 to 96 px 6 px at the
    # second, and at the third one sees 5/8 of their pixels.
    model.plan = Plan(
        view=(160, 160),
        steps=(Step(16, 16, 1 / 16, 8), Step(15, 15, 1 / 8, 4)),
        background=0.05,
    )
    # The boxes teach the map itself, not only what reads it.
    assert isinstance(model.location, ContextLocation)
    model.location.detach = False
    steps = epochs * -(-len(train) // batch)
    settings = Settings(
        Rule(reinforce=0.02, main_ce=0.3, main_reinforce=0.2),
        lr=2e-3,
        head_lr=2e-3,
        weight_decay=0.02,
        steps=steps,
        supervise=1.0,
        absent=CLASSES.index("normal"),
    )
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
    # Fewer regions while training than at inference: the same gradients for less reading.
    plan = replace(
        model.plan, steps=(replace(model.plan.steps[0], glimpses=6), model.plan.steps[1])
    )
    trainer.fit(
        Training(model, settings, plan=plan),
        batches(train, batch, shuffle=True),
        batches(test, batch),
    )
    accuracy = float(trainer.callback_metrics["val_accuracy"])
    record: dict[str, Any] = {
        "supervision": "image labels, and boxes of the targets",
        "command": "python -m tnet.scripts.train_demo WORK --out tnet/models/demo.safetensors",
        "data": hashlib.sha256((work / "train" / "labels.csv").read_bytes()).hexdigest(),
        "slides": slides,
        "epochs": epochs,
        "seed": seed,
        "test_slides": held_out,
        "test_accuracy": accuracy,
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "torch": torch.__version__,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    save(model, out, training=record)
    _say(f"{out}: {accuracy:.1%} of {held_out} test slides right, {record['minutes']} minutes")


def _progress(what: str) -> Any:
    def say(done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            _say(f"{what}: {done}/{total}")

    return say


def _report_callback() -> Any:
    import lightning

    class Report(lightning.Callback):
        """One line an epoch."""

        def on_validation_end(
            self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
        ) -> None:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            shown = "  ".join(f"{name} {value:.3f}" for name, value in sorted(metrics.items()))
            _say(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}")

    return Report()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(train_demo)
