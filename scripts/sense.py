"""Settings that a training could take and that would do nothing there, told before it begins."""

from tnet.aggregate import Mean
from tnet.errors import UsageError
from tnet.scripts.fitting import Task


def without_effect(task: Task) -> list[str]:
    """Return notes on settings that have nothing to work with.

    Raises:
        UsageError: if boxes are to be learned from and there are none.
    """
    config, settings, parts = task.config, task.settings(), task.parts
    # What a walk is compared with may have its keys, and learns no choices.
    supervise = config.supervise if config.model == "tnet" else 0.0
    if supervise and not any(parts.facts[entry.row].boxes for entry in parts.train):
        masks = " that is not empty" if any(entry.mask for entry in parts.train) else ""
        raise UsageError(
            f"{parts.manifest.path}: supervise={supervise:g} teaches where boxes are, and "
            f"no image to train on has a box or a mask{masks}; add a column box or mask, or leave "
            "supervise out"
        )
    notes = []
    if supervise and not settings.supervise:
        notes.append(
            f"supervise={supervise:g} teaches nothing, for the plan looks once and chooses nothing"
        )
    if config.tiles_share < 1 and task.model.plan.tiles is None:
        notes.append(
            f"tiles_share={config.tiles_share:g} is of `--model tiles`, and this model walks"
        )
    if settings.distill and isinstance(task.model.aggregate, Mean):
        notes.append(
            f"distill={settings.distill:g} teaches that all glimpses are worth the same, for "
            "aggregate=mean weighs none; choose another one"
        )
    if config.batch * config.samples == 1:
        alone = "with batch=1 and samples=1 a step has one walk"
        if settings.rule.reinforce and config.baseline == "batch":
            notes.append(
                f"baseline=batch compares walks of a step, and {alone}; the running mean of the "
                "rewards takes the others' place"
            )
        if config.contrastive:
            notes.append(
                f"contrastive={config.contrastive:g} compares walks of a step, and {alone}; it "
                "teaches nothing"
            )
    return notes
