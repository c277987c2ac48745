"""Semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import ClassVar, Self

import torch
from torch import Tensor

from geotune.config.task_options import SegmentOptions
from geotune.metrics.class_threshold import RareClass
from geotune.metrics.confusion_matrix import ConfusionMetrics, most_likely
from geotune.tasks.pixel_losses import LOSSES, labelled_windows, pixel_weight
from geotune.tasks.step_loss import LossFromTerms


class Segment(LossFromTerms):
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
        self.rare: tuple[RareClass, ...] = ()

    def with_rare_classes(self, rare: Sequence[RareClass]) -> Self:
        """A copy whose metrics include the IoU of classes by probability threshold."""
        task = copy(self)
        task.rare = tuple(rare)
        return task

    def with_class_counts(self, counts: Sequence[int]) -> Self:
        """A copy whose rare classes are all but the most common one, rarest first."""
        present = [index for index, count in enumerate(counts) if count]
        by_count = sorted(present, key=counts.__getitem__)
        return self.with_rare_classes([RareClass(index) for index in by_count[:-1]])

    @property
    def num_outputs(self) -> int:
        """One channel per class."""
        return len(self.classes)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names that `metrics().compute()` returns."""
        by_class = [f"{metric}/{name}" for metric in ("iou", "f1") for name in self.classes]
        return ("miou", "f1", "accuracy", *by_class)

    def loss_sums(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """See `LossTerms`; computed in float32 even under autocast."""
        log_probs = logits.float().log_softmax(dim=1)
        weights = log_probs.new_tensor(self.class_weights)
        return {term: LOSSES[term](log_probs, masks, weights) for term in self.terms}

    def loss_counts(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """The weights of the labelled pixels; for Dice the number of labelled windows."""
        weight = pixel_weight(masks, logits.new_tensor(self.class_weights, dtype=torch.float32))
        windows = labelled_windows(masks)
        return {term: windows if term == "dice" else weight for term in self.terms}

    def metrics(self) -> ConfusionMetrics:
        """New, empty metrics."""
        return ConfusionMetrics(self.classes, pixels=True, rare=self.rare)

    def predict(self, logits: Tensor) -> Tensor:
        """Most likely classes `(B, H, W)` as uint8."""
        return most_likely(logits).to(torch.uint8)

    def postprocess(self, logits: Tensor) -> Tensor:
        """Probabilities `(B, K, H, W)` as float32, summing to one over the classes."""
        return logits.float().softmax(dim=1)

    def score(self, logits: Tensor, masks: Tensor) -> float:
        """Mean IoU of one window over the classes in its mask or prediction.

        NaN if every pixel is ignored.
        """
        metrics = ConfusionMetrics(self.classes, pixels=True)
        metrics.update(logits, masks)
        # Not compute(), which is a collective: only this process has the window.
        return metrics.compute_from(metrics.windows()[0])["miou"]

    def example_targets(self, window: int) -> Tensor:
        """See `Task`."""
        return torch.zeros((1, window, window), dtype=torch.long)
