"""Train the model that ``tnet demo`` ships with, from slides made for it.

python -m tnet.scripts.train_demo WORK --out tnet/models/demo.safetensors

Makes the slides in WORK (kept for the next run), trains with image labels alone, reports the
accuracy on slides it has not seen, and writes the model.
"""

import hashlib
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer


def train_demo(
    work: Annotated[Path, typer.Argument(help="Folder for the training slides.")],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    slides: Annotated[int, typer.Option(min=6, help="Training slides to make.")] = 210,
    held_out: Annotated[int, typer.Option(min=3, help="Slides to measure on.")] = 60,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    batch: Annotated[int, typer.Option(min=1, help="Slides a step.")] = 6,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Make the slides, train, measure, write the model."""
    import lightning
    import torch

    from tnet.bundle import save
    from tnet.datasets.images import LabelledImages, batches, read_labels
    from tnet.datasets.synthetic import CLASSES, make_dataset
    from tnet.objective import Rule
    from tnet.plan import Plan, Step
    from tnet.recipes import build
    from tnet.task import Settings, Training

    started = time.perf_counter()
    make_dataset(work / "train", slides, seed=seed, on_progress=_progress("training slides"))
    make_dataset(work / "test", held_out, seed=seed + 1000, on_progress=_progress("test slides"))
    train = LabelledImages(read_labels(work / "train" / "labels.csv")[:slides], CLASSES, seed)
    test = LabelledImages(read_labels(work / "test" / "labels.csv")[:held_out], CLASSES, seed)

    lightning.seed_everything(seed, verbose=False)
    model = build(
        "default", classes=list(CLASSES), backbone="test_convnext3", stride=8, aggregate="weighting"
    )
    model.plan = Plan(
        view=(224, 224),
        steps=(Step(16, 16, 1 / 16, 10), Step(11, 11, 3 / 16, 3)),
        background=0.05,
    )
    steps = epochs * -(-len(train) // batch)
    settings = Settings(
        Rule(reinforce=0.3, main_ce=0.5, main_reinforce=0.2),
        lr=1e-3,
        head_lr=1e-3,
        weight_decay=0.02,
        steps=steps,
        entropy=0.003,
    )
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        callbacks=[_report_callback()],
    )
    trainer.fit(
        Training(model, settings), batches(train, batch, shuffle=True), batches(test, batch)
    )
    accuracy = float(trainer.callback_metrics["val_accuracy"])
    record: dict[str, Any] = {
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
