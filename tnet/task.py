"""Training as a Lightning module: the walk with sampling switched on, under the learning rule.

The only file of the engine that imports lightning.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import lightning
import torch
from torch import Tensor

from tnet.geometry import Region
from tnet.model import TNet
from tnet.objective import Evidence, Loss, Rule, hits, l2_penalty, loss
from tnet.plan import Plan
from tnet.pyramid import Pyramid
from tnet.sampling import Policy
from tnet.supervision import glimpse_labels, location_loss
from tnet.trace import Trace
from tnet.traversal import traverse


class Sample(NamedTuple):
    """One image of a batch.

    Attributes:
        pyramid: its pixels.
        label: its class index.
        seed: of its draws.
        boxes: where its evidence is, in pixels of level 0, if that is known.
    """

    pyramid: Pyramid
    label: int
    seed: int
    boxes: tuple[Region, ...] = ()


def evidence(model: TNet, trace: Trace, rule: Rule) -> Evidence:
    """Gather what the loss is a function of; each level's own predictions are one batch."""
    log_prob_G = trace.log_prob_G if rule.likelihood == "plackett_luce" else trace.marginal_G
    own = [
        model.classifier(trace.feature_GD[trace.level_G == level])
        for level in range(int(trace.level_G.max()) + 1)
    ]
    # Visits are stored level by level, so that the levels' rows are already in order.
    return Evidence(
        trace.logits_BK,
        torch.cat(own),
        log_prob_G,
        trace.image_G,
        trace.level_G,
        trace.aggregate_BD,
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    Attributes:
        rule: the weights of the loss.
        policy: how cells are chosen while training.
        samples: walks of every image in a step (Monte-Carlo samples).
        lr: learning rate of the backbone.
        head_lr: learning rate of everything else.
        weight_decay: of AdamW.
        steps: length of the schedule (a tenth of warming up, then a cosine) in steps; None
            keeps the rates constant.
        entropy: weight of the bonus on the entropy of the location distributions.
        supervise: weight of the cross-entropy that teaches the location module the boxes; 0
            learns from image labels alone.
        absent: with ``supervise``, the class of a glimpse that shows no box; -100 is none.
    """

    rule: Rule = field(default_factory=Rule)
    policy: Policy = "categorical"
    samples: int = 1
    lr: float = 1e-3
    head_lr: float = 1e-3
    weight_decay: float = 0.0
    steps: int | None = None
    entropy: float = 0.0
    supervise: float = 0.0
    absent: int = -100


class Training(lightning.LightningModule):
    """Trains a TNet on batches of :class:`Sample`.

    Args:
        model: what learns.
        settings: how.
        plan: the walk while training; None is the model's own.
    """

    baseline: Tensor

    def __init__(
        self, model: TNet, settings: Settings | None = None, *, plan: Plan | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings or Settings()
        self.plan = plan or model.plan
        # The running mean reward, saved with the checkpoint as released.
        self.register_buffer("baseline", torch.tensor(0.5))

    def transfer_batch_to_device(
        self, batch: Sequence[Sample], device: torch.device, dataloader_idx: int
    ) -> Sequence[Sample]:
        """Leave images where they are; the walk sends the pixels that it reads."""
        return batch

    def training_step(self, batch: Sequence[Sample], batch_idx: int) -> Tensor:
        """Walk, compare, and return the loss."""
        count, rule = self.settings.samples, self.settings.rule
        repeated = [sample for sample in batch for _ in range(count)]
        trace = traverse(
            self.model,
            [sample.pyramid for sample in repeated],
            self.plan,
            seed=[
                (sample.seed * 1_000_003 + self.current_epoch) * count + i % count
                for i, sample in enumerate(repeated)
            ],
            policy=self.settings.policy,
        )
        label_B = torch.tensor([sample.label for sample in repeated], device=self.device)
        known = evidence(self.model, trace, rule)
        boxes = [sample.boxes for sample in repeated]
        if self.settings.supervise:
            own = glimpse_labels(trace, boxes, label_B, self.settings.absent)
            known = known._replace(label_G=own)
        terms = loss(known, label_B, self.baseline, rule)
        self.baseline = terms.baseline.detach()
        total = terms.total
        if self.settings.supervise:
            total = total + self.settings.supervise * location_loss(trace, boxes)
        if rule.l2:
            total = total + rule.l2 * l2_penalty(self.model.named_modules())
        if self.settings.entropy:
            total = total - self.settings.entropy * mean_entropy(trace)
        self._report("train", terms, hits(trace.logits_BK, label_B), total)
        return total

    def validation_step(self, batch: Sequence[Sample], batch_idx: int) -> None:
        """Walk as at inference, and log accuracy and cross-entropy."""
        rule = self.settings.rule
        pyramids = [sample.pyramid for sample in batch]
        trace = traverse(self.model, pyramids, policy="greedy")
        label_B = torch.tensor([sample.label for sample in batch], device=self.device)
        terms = loss(evidence(self.model, trace, rule), label_B, self.baseline, rule)
        self._report("val", terms, hits(trace.logits_BK, label_B), terms.total)

    def _report(self, part: str, terms: Loss, hit_B: Tensor, total: Tensor) -> None:
        values = {
            "loss": total.detach(),
            "accuracy": hit_B.mean(),
            "main_ce": terms.main_ce.detach(),
            "glimpse_ce": terms.glimpse_ce.detach(),
        }
        self.log_dict(
            {f"{part}_{name}": value for name, value in values.items()},
            on_step=False,
            on_epoch=True,
            batch_size=len(hit_B),
        )

    def configure_optimizers(self) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        """Return AdamW with two learning rates, and the schedule if there is one."""
        backbone = list(self.model.backbone.parameters())
        known = {id(parameter) for parameter in backbone}
        heads = [p for p in self.model.parameters() if id(p) not in known]
        settings = self.settings
        optimizer = torch.optim.AdamW(
            [
                {"params": backbone, "lr": settings.lr},
                {"params": heads, "lr": settings.head_lr},
            ],
            weight_decay=settings.weight_decay,
        )
        if settings.steps is None:
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, partial(_warm_cosine, settings.steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _warm_cosine(steps: int, step: int) -> float:
    """Return the share of the learning rate: up over the first tenth, then down a cosine."""
    done = step / max(steps, 1)
    return max(done / 0.1, 0.01) if done < 0.1 else 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def mean_entropy(trace: Trace) -> Tensor:
    """Return the mean entropy of all location distributions of a batch, float (), in nats."""
    entropies = []
    for choice in trace.choices:
        log_p_PN = choice.logits_PN.log_softmax(dim=1)
        # A forbidden cell has p log p = 0 * -inf, which must count as nothing.
        terms_PN = (log_p_PN.exp() * log_p_PN.clamp_min(-1e9)).masked_fill(log_p_PN.isinf(), 0.0)
        entropies.append(-terms_PN.sum(dim=1))
    # A batch of small or empty images may choose nothing at all.
    if not sum(map(len, entropies)):
        return trace.logits_BK.new_zeros(())
    return torch.cat(entropies).mean()
