"""Metrics from a confusion matrix, of pixels or images.

Rows are true classes and columns predicted ones. For a class that occurs in neither, IoU and F1 are
NaN and left out of the means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geotune.metrics.class_threshold import STEPS, RareClass, at_threshold, probability_counts
from geotune.metrics.distributed import all_gather
from geotune.metrics.state import Accumulator, MetricState
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


def most_likely(logits: Tensor) -> Tensor:
    """The class with the largest logit, `(B, ...)` from `(B, K, ...)`."""
    return logits.max(dim=1).indices  # on a CPU ten times as fast as argmax


def _exact(matrix: Tensor) -> Tensor:
    # On the CPU: some accelerators lack float64, and float32 cannot hold large counts exactly.
    return matrix.cpu().double()


class ConfusionMetrics(nn.Module):
    """Metrics of all predictions since the last `reset`, across all processes.

    The state is a confusion matrix, so metrics are not means over batches.
    """

    def __init__(
        self, classes: Sequence[str], *, pixels: bool, rare: Sequence[RareClass] = ()
    ) -> None:
        """New, empty metrics.

        Args:
            classes: names by index.
            pixels: predict maps, with IoU, rather than images.
            rare: of maps, classes whose IoU is also known for probability thresholds.
        """
        super().__init__()
        self.classes = tuple(classes)
        self.pixels = pixels
        self.rare = tuple(rare)
        self.probabilities = np.zeros((len(self.rare), 2, STEPS), np.int64)
        shape = (len(self.classes), len(self.classes))
        self.accumulator = Accumulator(MetricState({"confusion": np.zeros(shape, np.int64)}))

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add logits `(B, K)` and labels `(B,)`, or `(B, K, H, W)` and masks `(B, H, W)`.

        Pixels labelled `IGNORE` are skipped.
        """
        if self.rare:
            indices = [rare.index for rare in self.rare]
            self.probabilities += probability_counts(logits, labels, indices)
        for matrix in self._matrices(most_likely(logits), labels).numpy(force=True):
            # of a window: small numbers
            counts = matrix.astype(np.int32 if self.pixels else np.int8)
            self.accumulator.add(MetricState({"confusion": counts}))

    def _matrices(self, predicted: Tensor, labels: Tensor) -> Tensor:
        """The confusion matrix of each window, `(B, K, K)`."""
        windows, classes = len(labels), len(self.classes)
        cells = labels * classes + predicted
        if self.pixels:  # ignored pixels are counted in one further cell
            cells = torch.where(labels == IGNORE, classes**2, cells)
        first = torch.arange(windows, device=cells.device) * (classes**2 + 1)
        cells = cells.reshape(windows, -1) + first[:, None]
        counts = torch.bincount(cells.flatten(), minlength=windows * (classes**2 + 1))
        return counts.view(windows, -1)[:, :-1].reshape(windows, classes, classes)

    def compute(self) -> dict[str, float]:
        """`f1` (mean over classes), `accuracy`, `f1/<class>`; of pixels also `miou`, `iou/<class>`.

        Classes in neither labels nor predictions are NaN and left out of the means.
        """
        return self.compute_from(self.accumulator.gather())

    def state(self) -> MetricState:
        """Sum `confusion` `(K, K)`."""
        return self.accumulator.state()

    def windows(self) -> list[MetricState]:
        """See `Metrics`."""
        return self.accumulator.states

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
        """`confusion`: counts by true class (rows) and predicted class (columns).

        With rare classes also `class_thresholds`: for each its name, see `at_threshold`, and
        `iou_most_likely`, that of the map of the most likely classes. Each counts as the only
        class with a threshold.
        """
        matrix = self.accumulator.gather().sums["confusion"]
        details: dict[str, Any] = {"confusion": matrix.tolist()}
        if not self.rare:
            return details
        counts = np.sum(all_gather([self.probabilities]), axis=0)
        usual = iou(torch.from_numpy(matrix)).tolist()
        details["class_thresholds"] = [
            {"class": self.classes[rare.index], **found, "iou_most_likely": usual[rare.index]}
            for rare, count in zip(self.rare, counts, strict=True)
            if (found := at_threshold(count, rare.threshold)) is not None
        ]
        return details

    def reset(self) -> None:
        """Discard all predictions."""
        self.accumulator.reset()
        self.probabilities[:] = 0
