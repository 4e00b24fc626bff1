"""Two hundred steps of ours follow the released code's rule, written out without our engine.

Both begin with the same small network. What is compared is all that the golden vectors, which
hold one step, cannot show: that walk, loss, baseline, batch norms and optimiser stay together.

B images, P views of a level, N cells, K classes.
"""

import copy
import math
from itertools import cycle
from typing import Any, cast

import lightning
import numpy as np
import pytest
import torch
from fakes import noise, quiet_trainer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from tnet.adapters.array import open_array
from tnet.aggregate import Mean
from tnet.geometry import Grid
from tnet.location import SqueezeLocation
from tnet.model import Classifier, TNet
from tnet.objective import Rule
from tnet.plan import Plan, Step
from tnet.position import Position
from tnet.task import Sample, Settings, Training

SIDE, BATCH, STEPS = 64, 3, 200
VIEW, CELLS, CHOSEN = 16, 3, (2, 1)
LR = 2e-3


class Small(nn.Module):
    """A backbone with batch norms; its map is a quarter of the view's side."""

    map_channels, features = 8, 12

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.SiLU(),
            nn.Conv2d(8, 8, 3, 2, 1, bias=False),
        )
        self.head = nn.Sequential(nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 12, 3, 1, 1))

    def forward(self, view_MCHW: Tensor) -> tuple[Tensor, Tensor]:
        map_MChw = self.stem(view_MCHW)
        return map_MChw, self.head(map_MChw).mean(dim=(2, 3))


def network() -> TNet:
    torch.manual_seed(3)
    step = Step(CELLS, CELLS, 0.5, 1)
    model = TNet(
        Small(),
        SqueezeLocation(8, normalise=True),
        Position(12, 6),
        Mean(),
        Classifier(12, 3),
        plan=Plan(
            view=(VIEW, VIEW),
            steps=tuple(Step(step.rows, step.columns, step.patch, k) for k in CHOSEN),
            rule="official",
            resampling="official",
            outside="zero",
            revisit=True,
            positions="cells",
        ),
        classes=["a", "b", "c"],
    )
    return model.double()


def images() -> list[tuple[NDArray[np.uint8], int]]:
    return [(noise(SIDE, SIDE, 3, seed=i) // 3 + 50 * (i % 3), i % 3) for i in range(12)]


class Released:
    """The released rule: crops in memory, greedy choices, one Adam for everything."""

    def __init__(self, model: TNet, rule: dict[str, Any]) -> None:
        self.model, self.rule = model.train(), rule
        self.baseline = 0.5
        self.adam = torch.optim.Adam(model.parameters(), lr=LR)

    def step(self, batch: list[tuple[NDArray[np.uint8], int]]) -> float:
        """Learn from a batch; return the loss."""
        model = self.model
        scaled = np.stack([(pixels.astype(np.float64) - 127.5) / 127.5 for pixels, _ in batch])
        crop_PCHW = torch.from_numpy(scaled).permute(0, 3, 1, 2)
        place_P3 = torch.zeros(len(batch), 3, dtype=torch.float64)
        bag, own, chances = [], [], []
        for level in range(len(CHOSEN) + 1):
            view = F.interpolate(crop_PCHW, (VIEW, VIEW), mode="bilinear", align_corners=False)
            map_PChw, feature_PD = model.backbone(view)
            assert model.position is not None
            placed_PD = model.position(feature_PD, place_P3)
            bag.append(placed_PD.reshape(len(batch), -1, placed_PD.shape[1]))
            own.append(model.classifier(placed_PD).reshape(len(batch), -1, len(model.classes)))
            if level < len(CHOSEN):
                crop_PCHW, place_P3, log_p = self._down(map_PChw, feature_PD, crop_PCHW, place_P3)
                chances.append(log_p.reshape(len(batch), -1))
        logits_BK = model.classifier(torch.cat(bag, dim=1).mean(dim=1))
        loss = self._loss(logits_BK, own, chances, torch.tensor([label for _, label in batch]))
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return float(loss.detach())

    def _down(
        self, map_PChw: Tensor, feature_PD: Tensor, crop_PCHW: Tensor, place_P3: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next crops, their places, and the log-probabilities of their cells."""
        chosen = CHOSEN[0] if place_P3[0, 2] == 0 else CHOSEN[1]
        grid = Grid(CELLS, CELLS, 0.5)
        p_PN = self.model.location(map_PChw, feature_PD, grid).softmax(dim=1)
        crops, places, log_p = [], [], []
        for p, crop in enumerate(crop_PCHW):
            patch = round(crop.shape[1] * 0.5)
            stride = math.ceil((crop.shape[1] - patch) / (CELLS - 1))
            before = math.ceil(((CELLS - 1) * stride + patch - crop.shape[1]) / 2)
            padded = F.pad(crop, (before, stride, before, stride))
            y, x, scale = place_P3[p].tolist()
            for cell in sorted(p_PN[p].topk(chosen).indices.tolist()):
                row, column = divmod(cell, CELLS)
                top, left = row * stride, column * stride
                crops.append(padded[:, top : top + patch, left : left + patch])
                places.append([y * CELLS + row, x * CELLS + column, scale + 1])
                log_p.append((p_PN[p, cell] + 1e-10).log())
        return torch.stack(crops), torch.tensor(places, dtype=torch.float64), torch.stack(log_p)

    def _loss(
        self, logits_BK: Tensor, own: list[Tensor], chances: list[Tensor], label_B: Tensor
    ) -> Tensor:
        count = len(label_B)
        levels = self.rule["cap"] or len(own)
        features = sum(logits.shape[1] for logits in own[:levels])
        share_ce, share_r = self.rule["main_ce"], self.rule["main_reinforce"]
        right_B = (logits_BK.argmax(dim=1) == label_B).double()
        total = share_ce / count * F.cross_entropy(logits_BK, label_B, reduction="sum")
        for log_p in chances:
            terms = (right_B - self.baseline)[:, None] * -log_p
            total = total + self.rule["reinforce"] * share_r / count * terms.sum()
        earned = share_r / count * float(right_B.sum())
        for level, logits in enumerate(own[:levels]):
            flat = logits.flatten(0, 1)
            label = label_B.repeat_interleave(logits.shape[1])
            ce = F.cross_entropy(flat, label, reduction="sum")
            total = total + (1 - share_ce) / (features * count) * ce
            if level:
                right = (flat.argmax(dim=1) == label).double().reshape(count, -1)
                terms = (right - self.baseline) * -chances[level - 1]
                weight = (1 - share_r) / ((features - 1) * count)
                total = total + self.rule["reinforce"] * weight * terms.sum()
                earned += weight * float(right.sum())
        self.baseline = 0.9 * self.baseline + 0.1 * earned
        return total


class Losses(lightning.Callback):
    """Writes down the loss of every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.seen.append(float(args[2]["loss"].detach()))


@pytest.mark.parametrize(
    "rule",
    [
        {"reinforce": 0.1, "main_ce": 0.2, "main_reinforce": 0.2, "cap": None},
        {"reinforce": 0.1, "main_ce": 0.05, "main_reinforce": 0.05, "cap": 2},
    ],
    ids=["first stage", "second stage"],
)
def test_training_follows_the_released_rule(rule: dict[str, Any]) -> None:
    ours, theirs = network(), network()
    start = copy.deepcopy(theirs.state_dict())
    data = images()
    released = Released(theirs, rule)
    turns = cycle([data[i : i + BATCH] for i in range(0, len(data), BATCH)])
    wanted = [released.step(next(turns)) for _ in range(STEPS)]

    training = Training(
        ours,
        Settings(
            rule=Rule(**rule, likelihood="marginal"),
            policy="greedy",
            lr=LR,
            head_lr=LR,
            schedule="constant",
            warmup=0.0,
        ),
    )
    samples = [Sample(open_array(pixels), label, 0) for pixels, label in data]
    losses = Losses()
    trainer = quiet_trainer(
        -1, max_steps=STEPS, callbacks=[losses], limit_val_batches=0, precision="64-true"
    )
    loader: DataLoader[Any] = DataLoader(cast(Any, samples), batch_size=BATCH, collate_fn=list)
    trainer.fit(training, loader, loader)

    np.testing.assert_allclose(losses.seen, wanted, rtol=1e-4)
    torch.testing.assert_close(float(training.baseline), released.baseline, rtol=1e-6, atol=0)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-3, atol=1e-4, msg=key)
    # They did go somewhere.
    assert wanted[-1] < 0.7 * wanted[0]
    moved = [
        float((value - start[key]).detach().abs().max()) for key, value in ours.named_parameters()
    ]
    assert min(moved) > 1e-4
