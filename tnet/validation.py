"""What is said of a model after each pass over the validation images.

B images, K classes.
"""

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_recall,
    binary_specificity,
)

from tnet.calibration import Calibration, calibrate
from tnet.supervision import Boxes, found_boxes
from tnet.trace import Trace


class Scores:
    """Collects predictions, and says how good all of them are together."""

    def __init__(self) -> None:
        self._logits: list[Tensor] = []
        self._target: list[Tensor] = []

    def add(self, logits_BK: Tensor, target: Tensor) -> None:
        """Take in a batch.

        Args:
            logits_BK: float (B, K).
            target: int64 (B,), class indices, or float (B, K), 1 where a class is present.
        """
        self._logits.append(logits_BK.detach().float().cpu())
        self._target.append(target.cpu())

    def results(self) -> dict[str, float]:
        """Return ``balanced_accuracy`` and ``auroc``; NaN where a measure is undefined.

        Balanced accuracy is the mean over the classes of the share of each that was recognised;
        with several labels an image, of the mean of sensitivity and specificity. The area under
        the curve is the mean over the classes of each against the rest. Classes without an
        image, or for the area without an image of another class, are left out.
        """
        if not self._target:
            return {"balanced_accuracy": float("nan"), "auroc": float("nan")}
        logits_BK, target = torch.cat(self._logits), torch.cat(self._target)
        single = target.ndim == 1
        probability_BK = logits_BK.softmax(dim=1) if single else logits_BK.sigmoid()
        classes = range(probability_BK.shape[1])
        predicted_BK = probability_BK > 0.5
        if single:
            predicted_BK = probability_BK.argmax(dim=1)[:, None] == torch.tensor([*classes])
        accuracies, areas = [], []
        for k in classes:
            present_B = (target == k).int() if single else (target[:, k] > 0.5).int()
            one_sided = bool(present_B.all() or not present_B.any())
            predicted_B = predicted_BK[:, k].int()
            if single and present_B.any():
                accuracies.append(binary_recall(predicted_B, present_B))
            elif not single and not one_sided:
                both = (
                    binary_recall(predicted_B, present_B),
                    binary_specificity(predicted_B, present_B),
                )
                accuracies.append((both[0] + both[1]) / 2)
            if not one_sided:
                areas.append(binary_auroc(probability_BK[:, k], present_B))
        return {"balanced_accuracy": _mean(accuracies), "auroc": _mean(areas)}

    def calibration(self) -> Calibration:
        """Return the temperature under which the predictions fit the labels best."""
        if not self._target:
            return calibrate(np.empty((0, 1)), np.empty(0, dtype=np.int64))
        target = torch.cat(self._target)
        present = target.numpy() if target.ndim == 1 else (target > 0.5).numpy()
        return calibrate(torch.cat(self._logits).double().numpy(), present)


class Recall:
    """Counts which of the known boxes the glimpses found."""

    def __init__(self) -> None:
        self._found = np.zeros(0, dtype=np.int64)
        self._boxes = 0

    def add(self, trace: Trace, boxes: Boxes) -> None:
        """Take in a batch's walks, and its images' boxes in pixels of level 0."""
        found = found_boxes(trace, boxes)
        levels = max(len(found), len(self._found))
        self._found = np.pad(self._found, (0, levels - len(self._found)))
        self._found[: len(found)] += found
        self._boxes += sum(map(len, boxes))

    def results(self) -> dict[str, float]:
        """Return the share of boxes of which a glimpse held the centre; empty without boxes.

        ``recall_1`` is of the first chosen level, and so on; ``recall`` is of the last.
        """
        if not self._boxes or not len(self._found):
            return {}
        shares = [float(count) / self._boxes for count in self._found]
        levels = {f"recall_{level}": share for level, share in enumerate(shares, start=1)}
        return levels | {"recall": shares[-1]}


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean()) if values else float("nan")
