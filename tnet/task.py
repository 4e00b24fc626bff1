"""Training as a Lightning module: the walk with sampling switched on, under the learning rule.

The only file of the engine that imports lightning.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from tnet.annealing import plan_at, temperature_at
from tnet.distillation import distillation_loss
from tnet.errors import UsageError
from tnet.evidence import evidence, mean_entropy
from tnet.freezing import freeze
from tnet.geometry import Region
from tnet.model import TNet
from tnet.objective import Loss, loss
from tnet.penalties import l2_penalty
from tnet.plan import Plan
from tnet.rewards import hits
from tnet.schedules import factor_of, optimizer_of
from tnet.settings import Sample, Settings
from tnet.supervision import glimpse_labels, location_loss
from tnet.trace import Trace
from tnet.traversal import traverse
from tnet.validation import Recall, Scores

if TYPE_CHECKING:
    from tnet.memory import Memory

__all__ = ["Sample", "Settings", "Training"]


class Training(lightning.LightningModule):
    """Trains a TNet on batches of :class:`Sample`.

    What a step does depends on the weights, the baseline, the epoch, the number of steps so far
    and the samples' seeds alone, all of which Lightning's checkpoints hold; and on torch's own
    generator where the model has dropout.

    Args:
        model: what learns.
        settings: how.
        plan: the walk while training; None is the model's own.
        memory: looks that are remembered from step to step; needs a frozen backbone.
    """

    baseline: Tensor

    def __init__(
        self,
        model: TNet,
        settings: Settings | None = None,
        *,
        plan: Plan | None = None,
        memory: "Memory | None" = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.model.sha256 = ""  # what learns is not what its file holds any more
        self.settings = settings or Settings()
        self.plan = plan or model.plan
        self.memory = memory
        if memory is not None and self.settings.freeze != "backbone":
            raise UsageError("looks can be remembered only if the backbone is frozen")
        weights = self.settings.class_weights
        if weights is not None and len(weights) != len(model.classes):
            raise UsageError(f"{len(model.classes)} classes need as many weights: {weights}")
        self._frozen = freeze(model, self.settings.freeze)
        self._scores, self._recall = Scores(), Recall()
        # The running mean reward, saved with the checkpoint as released.
        self.register_buffer("baseline", torch.tensor(0.5))

    @property
    def progress(self) -> float:
        """How much of training is done, from 0 to 1; 0 where its length is not known."""
        steps = self.settings.steps
        return min(self.global_step / max(steps, 1), 1.0) if steps else 0.0

    @property
    def explores(self) -> bool:
        """Whether cells are drawn at random at this moment of training."""
        anneal = self.settings.anneal
        return anneal is not None and anneal.explores(self.progress)

    @property
    def scores(self) -> Scores:
        """The predictions of the last pass over the validation images."""
        return self._scores

    def train(self, mode: bool = True) -> "Training":
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def on_fit_start(self) -> None:
        """Switch everything to training; a model from a file comes in evaluation mode.

        Frozen parts follow with the first epoch: Lightning warns of any that are found in
        evaluation mode before it.
        """
        super().train()

    def on_train_epoch_start(self) -> None:
        """Put what is frozen into evaluation mode."""
        self.train()

    def transfer_batch_to_device(
        self, batch: Sequence[Sample], device: torch.device, dataloader_idx: int
    ) -> Sequence[Sample]:
        """Leave images where they are; the walk sends the pixels that it reads."""
        return batch

    def training_step(self, batch: Sequence[Sample], batch_idx: int) -> Tensor:
        """Walk, compare, and return the loss."""
        settings, rule = self.settings, self.settings.rule
        if self.explores:
            # What was drawn at random says nothing of the location module's own draws.
            rule = replace(rule, reinforce=0.0)
        count = settings.samples
        repeated = [sample for sample in batch for _ in range(count)]
        trace = self._sampled(repeated)
        target = self._targets(repeated)
        known = evidence(self.model, trace, rule)
        boxes = [sample.boxes for sample in repeated]
        if settings.supervise:
            own = glimpse_labels(trace, boxes, target, settings.absent)
            known = known._replace(label_G=own)
        weight_B = None
        if any(sample.weight != 1 for sample in repeated):
            weight_B = torch.tensor([s.weight for s in repeated], device=self.device)
        terms = loss(
            known,
            target,
            self.baseline,
            rule,
            walks=count,
            weight_B=weight_B,
            class_weight_K=self._class_weights(),
        )
        self.baseline = terms.baseline.detach()
        total, shown = self._with_extras(terms.total, trace, boxes)
        self._report("train", terms, hits(trace.logits_BK, target), total)
        shown |= {
            "reward": terms.reward,
            "main_reinforce": terms.main_reinforce.detach(),
            "glimpse_reinforce": terms.glimpse_reinforce.detach(),
            "glimpses": torch.tensor(len(trace.visits) / len(repeated)),
        }
        self._log({f"train_{name}": value for name, value in shown.items()}, len(repeated))
        return total

    def _sampled(self, repeated: Sequence[Sample]) -> Trace:
        """Walk as at this moment of training: how wide and how warm depends on the progress."""
        settings, plan, share = self.settings, self.plan, 1.0
        policy = "uniform" if self.explores else settings.policy
        if plan.tiles is not None:
            plan = replace(plan, tiles_share=settings.tiles_share)
        if settings.anneal is not None:
            plan = plan_at(plan, settings.anneal, self.progress)
            share = settings.anneal.share
        if settings.temperature != 1:
            self.model.temperature = temperature_at(settings.temperature, share, self.progress)
        count = settings.samples
        return traverse(
            self.model,
            [sample.pyramid for sample in repeated],
            plan,
            seed=[
                (sample.seed * 1_000_003 + self.current_epoch) * count + i % count
                for i, sample in enumerate(repeated)
            ],
            policy=policy,
            **self._remembering(),
        )

    def _with_extras(
        self, total: Tensor, trace: Trace, boxes: Sequence[Sequence[Region]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the terms that are functions of the walk alone; return them for the log, too."""
        settings, shown = self.settings, {}
        if settings.supervise:
            total = total + settings.supervise * location_loss(trace, boxes)
        if settings.distill:
            distilled = distillation_loss(trace)
            total = total + settings.distill * distilled
            shown["distill"] = distilled.detach()
        if settings.rule.l2:
            total = total + settings.rule.l2 * l2_penalty(self.model.named_modules())
        with torch.set_grad_enabled(settings.entropy != 0):
            entropy = mean_entropy(trace)
        if settings.entropy:
            total = total - settings.entropy * entropy
        shown["entropy"] = entropy.detach()
        return total, shown

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the length of the gradient, before it is clipped."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self._log({"train_grad_norm": torch.nn.utils.get_total_norm(gradients)}, 1)

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's predictions."""
        self._scores, self._recall = Scores(), Recall()

    def validation_step(self, batch: Sequence[Sample], batch_idx: int) -> None:
        """Walk as at inference, and log accuracy and cross-entropy."""
        trace = traverse(
            self.model,
            [sample.pyramid for sample in batch],
            seed=[sample.seed for sample in batch],
            **self._remembering(),
        )
        target = self._targets(batch)
        # One walk an image: there are no others to compare it with.
        rule = replace(self.settings.rule, baseline="running")
        known = evidence(self.model, trace, rule)
        weight_K = self._class_weights()
        terms = loss(known, target, self.baseline, rule, class_weight_K=weight_K)
        self._report("val", terms, hits(trace.logits_BK, target), terms.total)
        glimpses = torch.tensor(len(trace.visits) / len(batch))
        self._log({"val_glimpses": glimpses}, len(batch))
        self._scores.add(trace.logits_BK, target)
        self._recall.add(trace, [sample.boxes for sample in batch])

    def on_validation_epoch_end(self) -> None:
        """Log what is a function of all predictions together."""
        values = self._scores.results() | self._recall.results()
        self.log_dict({f"val_{name}": value for name, value in values.items()})

    def configure_optimizers(self) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        """Return the optimiser with its two learning rates, and the schedule if there is one."""
        settings = self.settings
        optimizer = optimizer_of(
            self.model,
            settings.optimizer,
            lr=settings.lr,
            head_lr=settings.head_lr,
            weight_decay=settings.weight_decay,
        )
        factor = factor_of(settings.schedule, settings.steps, settings.warmup)
        if factor is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
        }

    def _targets(self, samples: Sequence[Sample]) -> Tensor:
        """Return the labels, int64 (B,), or float (B, K) with several labels an image."""
        kind = torch.float32 if self.settings.multilabel else torch.int64
        return torch.tensor([s.label for s in samples], dtype=kind, device=self.device)

    def _class_weights(self) -> Tensor | None:
        weights = self.settings.class_weights
        return None if weights is None else torch.tensor(weights, device=self.device)

    def _remembering(self) -> dict[str, Any]:
        return {} if self.memory is None else {"memory": self.memory}

    def _report(self, part: str, terms: Loss, hit_B: Tensor, total: Tensor) -> None:
        values = {
            "loss": total.detach(),
            "accuracy": hit_B.mean(),
            "main_ce": terms.main_ce.detach(),
            "glimpse_ce": terms.glimpse_ce.detach(),
        }
        self._log({f"{part}_{name}": value for name, value in values.items()}, len(hit_B))

    def _log(self, values: dict[str, Tensor], images: int) -> None:
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=images)
