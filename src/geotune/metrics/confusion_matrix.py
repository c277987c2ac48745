"""Figures that follow from one confusion matrix, and the matrix gathered over batches.

Rows are truth and columns are prediction, both in class order. A class that is neither in the
truth nor in the prediction has no IoU and no F1: they are NaN and left out of the means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geotune.metrics.state import MetricState
from geotune.types import IGNORE


def iou(matrix: Tensor) -> Tensor:
    """IoU of each class `(K)` from a matrix `(K, K)`: `tp / (tp + fp + fn)`, NaN where absent."""
    matrix = _exact(matrix)
    hits = matrix.diagonal()
    return hits / (matrix.sum(0) + matrix.sum(1) - hits)


def f1(matrix: Tensor) -> Tensor:
    """F1 of each class `(K)` from a matrix `(K, K)`: `2 tp / (2 tp + fp + fn)`, NaN if absent."""
    matrix = _exact(matrix)
    return 2 * matrix.diagonal() / (matrix.sum(0) + matrix.sum(1))


def accuracy(matrix: Tensor) -> Tensor:
    """Share of counted pixels with the right class; NaN where no pixel was counted."""
    matrix = _exact(matrix)
    return matrix.diagonal().sum() / matrix.sum()


def _exact(matrix: Tensor) -> Tensor:
    # On the CPU: not every accelerator has float64, and counts outgrow float32.
    return matrix.cpu().double()


class SegmentMetrics(nn.Module):
    """Metrics of a map of classes over all pixels seen since the last `reset`.

    The only state is a confusion matrix, a sum: over several processes the metrics are those
    of all pixels together, not a mean of means.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        """`classes` name the rows, in the order of their indices."""
        from torchmetrics.classification import MulticlassConfusionMatrix  # takes seconds

        super().__init__()
        self.classes = tuple(classes)
        self.matrix = MulticlassConfusionMatrix(
            len(self.classes), ignore_index=IGNORE, validate_args=False
        )

    @torch.no_grad()
    def update(self, logits: Tensor, masks: Tensor) -> None:
        """Count logits `(B, K, H, W)` against masks `(B, H, W)`; `IGNORE` is not counted."""
        self.matrix.update(logits.argmax(dim=1), masks)

    def compute(self) -> dict[str, float]:
        """`miou`, `f1` (its mean), `accuracy`, and `iou/<class>` and `f1/<class>`.

        Classes in neither truth nor prediction are NaN and not in the means.
        """
        return self.of(MetricState({"confusion": self.matrix.compute().numpy(force=True)}))

    def parts(self) -> MetricState:
        """`confusion`, `(K, K)`: a sum."""
        return MetricState({"confusion": self.matrix.confmat.numpy(force=True).copy()})

    def of(self, parts: MetricState) -> dict[str, float]:
        """The figures of a confusion matrix."""
        matrix = torch.from_numpy(parts.sums["confusion"])
        ious, f1s = iou(matrix), f1(matrix)
        values = {
            "miou": float(ious.nanmean()),
            "f1": float(f1s.nanmean()),
            "accuracy": float(accuracy(matrix)),
        }
        values |= {f"iou/{name}": float(v) for name, v in zip(self.classes, ious, strict=True)}
        values |= {f"f1/{name}": float(v) for name, v in zip(self.classes, f1s, strict=True)}
        return values

    def details(self) -> dict[str, Any]:
        """`confusion`: counted pixels by true class (rows) and predicted class (columns)."""
        return {"confusion": self.matrix.compute().tolist()}

    def reset(self) -> None:
        """Forget all pixels."""
        self.matrix.reset()
