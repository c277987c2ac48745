"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from geotune.errors import GeotuneError
from geotune.metrics.confusion_matrix import SegmentMetrics, iou
from geotune.tasks.pixel_losses import LOSSES
from geotune.types import IGNORE


class Segment:
    """Loss, metrics and reading of logits `(B, K, H, W)` against masks `(B, H, W)`.

    Masks are int64 class indices, `IGNORE` where a pixel is not counted.

    Attributes:
        main_metric: the metric by which runs are compared; higher is better.
    """

    main_metric: ClassVar[str] = "miou"
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    product: ClassVar[str] = "classes"

    def __init__(
        self,
        classes: Sequence[str],
        loss: str = "ce+dice",
        class_weights: Sequence[float] | None = None,
    ) -> None:
        """`loss` is `ce`, `dice`, `focal` or a sum such as `ce+dice`.

        `class_weights` weigh the pixels of cross-entropy and focal loss by their class.
        Raises `GeotuneError` for a loss that is not known and for weights that do not fit.
        """
        if not 2 <= len(classes) <= IGNORE:
            raise GeotuneError(
                f"task.classes has {len(classes)} classes, expected 2 to {IGNORE}; "
                "for one class of interest name the rest too, for instance background"
            )
        if class_weights is not None and len(class_weights) != len(classes):
            raise GeotuneError(
                f"task.class_weights has {len(class_weights)} values for {len(classes)} classes; "
                "give one for each class, in the order of task.classes"
            )
        self.classes = tuple(classes)
        self.terms = tuple(term.strip() for term in loss.split("+"))
        for term in self.terms:
            if term not in LOSSES:
                raise GeotuneError(
                    f"task.loss names {term!r}, expected {', '.join(LOSSES)} "
                    "or a sum such as ce+dice"
                )
        self.class_weights = tuple(class_weights or [1.0] * len(classes))

    @property
    def num_outputs(self) -> int:
        """Channels of the logits: one for each class."""
        return len(self.classes)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of what `metrics().compute()` gives."""
        each = [f"{figure}/{name}" for figure in ("iou", "f1") for name in self.classes]
        return ("miou", "f1", "accuracy", *each)

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Scalar loss of logits `(B, K, H, W)`, in float32 under autocast too.

        It is 0, with a graph, where every pixel is ignored. Dice is that of the tensors given:
        with accumulated or spread batches, of each part by itself.
        """
        log_probs = logits.float().log_softmax(dim=1)
        weights = log_probs.new_tensor(self.class_weights)
        return torch.stack([LOSSES[term](log_probs, masks, weights) for term in self.terms]).sum()

    def metrics(self) -> SegmentMetrics:
        """A fresh counter of pixels."""
        return SegmentMetrics(self.classes)

    def predict(self, logits: Tensor) -> Tensor:
        """Most likely classes `(B, H, W)` as uint8, from logits `(B, K, H, W)`."""
        return logits.argmax(dim=1).to(torch.uint8)

    def answers(self, logits: Tensor) -> Tensor:
        """Probabilities `(B, K, H, W)` as float32; they sum to one over the classes."""
        return logits.float().softmax(dim=1)

    def score(self, logits: Tensor, masks: Tensor) -> float:
        """Mean IoU of one window, logits `(1, K, H, W)` and mask `(1, H, W)`.

        The mean is over classes in its truth or prediction; NaN where every pixel is ignored.
        """
        metrics = self.metrics().to(logits.device)
        metrics.update(logits, masks)
        # Not compute(): a window is scored by the process that has it, without any exchange.
        return float(iou(metrics.matrix.confmat).nanmean())

    def example(self, window: int) -> Tensor:
        """Masks of a batch of one window, of which only shape and type count."""
        return torch.zeros((1, window, window), dtype=torch.long)
