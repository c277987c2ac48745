"""Semantic segmentation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from geotune.config.task_options import SegmentOptions
from geotune.metrics.confusion_matrix import ConfusionMetrics, iou
from geotune.tasks.pixel_losses import LOSSES


class Segment:
    """Loss, metrics and postprocessing of logits `(B, K, H, W)`.

    Masks are int64 class indices `(B, H, W)`; pixels labelled `IGNORE` are skipped.
    """

    main_metric: ClassVar[str] = "miou"
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    output_kind: ClassVar[str] = "classes"

    def __init__(self, options: SegmentOptions) -> None:
        self.classes = tuple(options.classes)
        self.terms = tuple(term.strip() for term in options.loss.split("+"))
        self.class_weights = tuple(options.class_weights or [1.0] * len(options.classes))

    @property
    def num_outputs(self) -> int:
        """One channel per class."""
        return len(self.classes)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names that `metrics().compute()` returns."""
        by_class = [f"{metric}/{name}" for metric in ("iou", "f1") for name in self.classes]
        return ("miou", "f1", "accuracy", *by_class)

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Scalar loss of logits `(B, K, H, W)`, computed in float32 even under autocast.

        If every pixel is ignored it is 0, still part of the autograd graph. Dice is computed per
        micro-batch and per process, not over the whole effective batch.
        """
        log_probs = logits.float().log_softmax(dim=1)
        weights = log_probs.new_tensor(self.class_weights)
        return torch.stack([LOSSES[term](log_probs, masks, weights) for term in self.terms]).sum()

    def metrics(self) -> ConfusionMetrics:
        """New, empty metrics."""
        return ConfusionMetrics(self.classes, pixels=True)

    def predict(self, logits: Tensor) -> Tensor:
        """Most likely classes `(B, H, W)` as uint8."""
        return logits.argmax(dim=1).to(torch.uint8)

    def postprocess(self, logits: Tensor) -> Tensor:
        """Probabilities `(B, K, H, W)` as float32, summing to one over the classes."""
        return logits.float().softmax(dim=1)

    def score(self, logits: Tensor, masks: Tensor) -> float:
        """Mean IoU of one window over the classes in its mask or prediction.

        NaN if every pixel is ignored.
        """
        metrics = self.metrics().to(logits.device)
        metrics.update(logits, masks)
        # Not compute(), which is a collective: only this process has the window.
        return float(iou(metrics.matrix.confmat).nanmean())

    def example_targets(self, window: int) -> Tensor:
        """See `Task`."""
        return torch.zeros((1, window, window), dtype=torch.long)
