"""Metrics from a confusion matrix, of pixels or images.

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


class ConfusionMetrics(nn.Module):
    """Metrics of all predictions since the last `reset`, across all processes.

    The state is one confusion matrix, so metrics are not means over batches.
    """

    def __init__(self, classes: Sequence[str], *, pixels: bool) -> None:
        """`classes`: names by index; `pixels`: predict maps, with IoU, rather than images."""
        from torchmetrics.classification import MulticlassConfusionMatrix  # takes seconds

        super().__init__()
        self.classes = tuple(classes)
        self.pixels = pixels
        self.matrix = MulticlassConfusionMatrix(
            len(self.classes), ignore_index=IGNORE if pixels else None, validate_args=False
        )

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add logits `(B, K)` and labels `(B,)`, or `(B, K, H, W)` and masks `(B, H, W)`.

        Pixels labelled `IGNORE` are skipped.
        """
        self.matrix.update(logits.argmax(dim=1), labels)

    def compute(self) -> dict[str, float]:
        """`f1` (mean over classes), `accuracy`, `f1/<class>`; of pixels also `miou`, `iou/<class>`.

        Classes in neither labels nor predictions are NaN and left out of the means.
        """
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
        values = {"miou": float(ious.nanmean())} if self.pixels else {}
        values |= {"f1": float(f1s.nanmean()), "accuracy": float(accuracy(matrix))}
        if self.pixels:
            values |= {f"iou/{name}": float(v) for name, v in zip(self.classes, ious, strict=True)}
        return values | {f"f1/{name}": float(v) for name, v in zip(self.classes, f1s, strict=True)}

    def details(self) -> dict[str, Any]:
        """`confusion`: counts by true class (rows) and predicted class (columns)."""
        return {"confusion": self.matrix.compute().tolist()}

    def reset(self) -> None:
        """Discard all predictions."""
        self.matrix.reset()
