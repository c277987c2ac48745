"""Metrics from a confusion matrix, and segmentation metrics that accumulate one.

Rows are true classes and columns predicted ones. For a class that occurs in neither, IoU and F1 are
NaN and left out of the means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geotune.metrics.state import MetricState
from geotune.types import IGNORE


def iou(matrix: Tensor) -> Tensor:
    """IoU of each class `(K)` from a matrix `(K, K)`: `tp / (tp + fp + fn)`."""
    matrix = _exact(matrix)
    hits = matrix.diagonal()
    return hits / (matrix.sum(0) + matrix.sum(1) - hits)


def f1(matrix: Tensor) -> Tensor:
    """F1 of each class `(K)` from a matrix `(K, K)`: `2 tp / (2 tp + fp + fn)`."""
    matrix = _exact(matrix)
    return 2 * matrix.diagonal() / (matrix.sum(0) + matrix.sum(1))


def accuracy(matrix: Tensor) -> Tensor:
    """Share of correct predictions; NaN if the matrix is empty."""
    matrix = _exact(matrix)
    return matrix.diagonal().sum() / matrix.sum()


def _exact(matrix: Tensor) -> Tensor:
    # On the CPU: some accelerators lack float64, and float32 cannot hold large counts exactly.
    return matrix.cpu().double()


class SegmentMetrics(nn.Module):
    """Semantic segmentation metrics over all pixels since the last `reset`, across all processes.

    The state is one confusion matrix, so metrics are those of all pixels, not means over batches.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        """`classes`: names by index."""
        from torchmetrics.classification import MulticlassConfusionMatrix  # takes seconds

        super().__init__()
        self.classes = tuple(classes)
        self.matrix = MulticlassConfusionMatrix(
            len(self.classes), ignore_index=IGNORE, validate_args=False
        )

    @torch.no_grad()
    def update(self, logits: Tensor, masks: Tensor) -> None:
        """Add logits `(B, K, H, W)` and masks `(B, H, W)`; pixels labelled `IGNORE` are skipped."""
        self.matrix.update(logits.argmax(dim=1), masks)

    def compute(self) -> dict[str, float]:
        """`miou`, `f1` (mean over classes), `accuracy`, `iou/<class>` and `f1/<class>`."""
        return self.compute_from(
            MetricState({"confusion": self.matrix.compute().numpy(force=True)})
        )

    def state(self) -> MetricState:
        """Sum `confusion` `(K, K)`."""
        return MetricState({"confusion": self.matrix.confmat.numpy(force=True).copy()})

    def compute_from(self, state: MetricState) -> dict[str, float]:
        """See `Metrics`."""
        matrix = torch.from_numpy(state.sums["confusion"])
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
        """`confusion`: pixels by true class (rows) and predicted class (columns)."""
        return {"confusion": self.matrix.compute().tolist()}

    def reset(self) -> None:
        """Discard all pixels."""
        self.matrix.reset()
