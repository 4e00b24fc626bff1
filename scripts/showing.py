"""What a training is going to do, said before its first step."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tnet.scripts.fitting import Measure, Task, precision
from tnet.scripts.output import counted
from tnet.scripts.planning import Sizes, looks, shown_plan
from tnet.scripts.progress import duration

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Ready:
    """Everything that a training needs before its first step.

    Attributes:
        task: model and images.
        sizes: of the training images.
        notes: what the user should know, a sentence each.
    """

    task: Task
    sizes: Sizes
    notes: tuple[str, ...]


def announced(ready: Ready, device: str, tell: Tell) -> dict[str, Any]:
    """Say what is going to be done, and return it.

    Args:
        ready: the training.
        device: where.
        tell: says a sentence.
    """
    task, config = ready.task, ready.task.config
    model, plan = task.model, task.model.plan
    for split, counts in task.parts.counts().items():
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        rows = task.parts.train if split == "train" else task.parts.val
        tell(f"{split}: {counted(len(rows), 'image')} ({listed})")
    if task.parts.unreadable:
        entry, why = task.parts.unreadable[0]
        count = len(task.parts.unreadable)
        what = "image cannot be read and is" if count == 1 else "images cannot be read and are"
        tell(f"{count} {what} left out; the first, row {entry.row}: {why}")
    kind = precision(config, device)
    notes = [*ready.notes, *_slow(kind, device)]
    for note in notes:
        tell(f"note: {note}")
    million = sum(weights.numel() for weights in model.parameters()) / 1e6
    recipe, options = model.recipe or ("", {})
    network = options.get("backbone", "its own backbone")
    tell(
        f"model: {config.model}, recipe {recipe}, {network}, {million:.1f} M parameters, "
        f"{counted(model.expects.bands, 'band')} of {model.expects.dtype}"
    )
    for line in shown_plan(plan, ready.sizes):
        tell(f"plan: {line}")
    if task.chooses:
        tell(f"learning rule: {task.learning.said()}")
    tell(
        f"{counted(config.epochs, 'epoch')} of {counted(task.batches, 'batch', 'batches')} of "
        f"{counted(config.batch, 'image')} on the {device} ({kind}), images "
        f"varied: {task.varied}"
    )
    return {
        "plan": plan.to_dict(),
        "looks": looks(plan, ready.sizes),
        "images": task.parts.counts(),
        "unreadable": len(task.parts.unreadable),
        "blank": len(task.parts.blank),
        "batches": task.batches,
        "steps": task.steps,
        "freeze": task.freeze,
        "augment": task.augment,
        "rule": asdict(task.learning) if task.chooses else None,
        "config": config.to_dict(),
        "notes": notes,
    }


def _slow(kind: str, device: str) -> list[str]:
    """Say that a precision makes this machine slow, where it does."""
    if kind != "bf16-mixed" or device != "cpu" or has_bf16():
        return []
    return [
        "this CPU has no instructions for bf16; --set precision=32-true is several times faster"
    ]


def has_bf16() -> bool:
    """Say whether the CPU's own instructions compute bf16, as far as PyTorch knows."""
    if not torch.backends.mkldnn.is_available():  # other builds have other ways
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def timed(ready: Ready, took: Measure, tell: Tell) -> dict[str, Any]:
    """Say how long the training will take and how much memory, and return it.

    Args:
        ready: the training.
        took: what its steps took.
        tell: says a sentence.
    """
    task = ready.task
    seconds = took.whole(task.batches, task.config.epochs, remembered=task.remembers)
    memory = "" if took.memory is None else f" and {took.memory / 2**30:.1f} GiB of memory"
    tell(f"a batch takes {took.later:.2g} s{memory}; in all about {duration(seconds)}")
    return {
        "seconds_per_batch": took.later,
        "expected_seconds": seconds,
        "memory": took.memory,
    }
