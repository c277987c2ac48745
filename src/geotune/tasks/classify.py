"""Image classification: multi-class, or multi-label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.config.task_options import ClassifyOptions
from geotune.metrics.confusion_matrix import ConfusionMetrics
from geotune.metrics.state import Accumulator, MetricState
from geotune.tasks.base import Metrics
from geotune.tasks.step_loss import LossFromTerms


class Classify(LossFromTerms):
    """Loss, metrics and postprocessing of logits `(B, K)`.

    Labels are class indices `(B,)`; if `multilabel`, float32 `(B, K)` of zeros and ones.

    Attributes:
        main_metric: the mean F1 of the classes; if `multilabel`, their mean average precision,
            which needs no threshold.
    """

    lower_is_better: ClassVar[tuple[str, ...]] = ()
    output_kind: ClassVar[str] = "table"

    def __init__(self, options: ClassifyOptions) -> None:
        """Label smoothing `s` distributes `s` evenly over all `K` classes; if `multilabel`, labels
        become `s / 2` and `1 - s / 2`.
        """
        self.classes = tuple(options.classes)
        self.class_weights = tuple(options.class_weights or [1.0] * len(options.classes))
        self.multilabel = options.multilabel
        self.label_smoothing = options.label_smoothing
        self.main_metric = "ap" if options.multilabel else "f1"

    @property
    def num_outputs(self) -> int:
        """One logit per class."""
        return len(self.classes)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names that `metrics().compute()` returns."""
        metrics = ("ap", "f1") if self.multilabel else ("f1",)
        by_class = [f"{metric}/{name}" for metric in metrics for name in self.classes]
        return (*metrics, "accuracy", *by_class)

    def loss_sums(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of logits `(B, K)`; if `multilabel`, binary cross-entropy."""
        logits = logits.float()
        weights = logits.new_tensor(self.class_weights)
        smoothing = self.label_smoothing
        if self.multilabel:
            smooth = labels * (1 - smoothing) + smoothing / 2
            loss = F.binary_cross_entropy_with_logits(
                logits, smooth, weight=weights, reduction="sum"
            )
        else:
            loss = F.cross_entropy(
                logits, labels, weight=weights, label_smoothing=smoothing, reduction="sum"
            )
        return {"ce": loss}

    def loss_counts(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The weights of the images' classes; if `multilabel`, the number of labels."""
        if self.multilabel:
            return {"ce": logits.new_tensor(labels.numel(), dtype=torch.float32)}
        return {"ce": logits.new_tensor(self.class_weights, dtype=torch.float32)[labels].sum()}

    def metrics(self) -> Metrics:
        """New, empty metrics."""
        if self.multilabel:
            return MultilabelMetrics(self.classes)
        return ConfusionMetrics(self.classes, pixels=False)

    def postprocess(self, logits: Tensor) -> Tensor:
        """Probabilities `(B, K)`, which sum to one unless `multilabel`."""
        return logits.float().sigmoid() if self.multilabel else logits.float().softmax(dim=1)

    def predict(self, logits: Tensor) -> Tensor:
        """Probabilities `(B, K)`; displays pick the highest, or all above 0.5 if `multilabel`."""
        return self.postprocess(logits)

    def rows(self, answers: Tensor) -> list[dict[str, str | float]]:
        """A table row for each image: predicted label(s), and the probability of each class."""
        rows: list[dict[str, str | float]] = []
        for values in answers.tolist():
            by_class = dict(zip(self.classes, values, strict=True))
            if self.multilabel:
                labels = ";".join(name for name, value in by_class.items() if value > 0.5)
                rows.append({"labels": labels, **by_class})
            else:
                rows.append({"label": max(by_class, key=lambda name: by_class[name]), **by_class})
        return rows

    def score(self, logits: Tensor, labels: Tensor) -> float:
        """Probability of the true class of one image; if `multilabel`, the mean over classes."""
        probs = self.postprocess(logits)[0]
        if self.multilabel:
            return float(torch.where(labels[0] > 0.5, probs, 1 - probs).mean())
        return float(probs[int(labels[0])])

    def example_targets(self, window: int) -> Tensor:
        """See `Task`."""
        del window
        return torch.zeros(1, len(self.classes)) if self.multilabel else torch.zeros(1).long()


class MultilabelMetrics(nn.Module):
    """`ap`, `f1`, `accuracy`, `ap/<class>` and `f1/<class>` of multi-label predictions.

    F1 and accuracy (over all images and classes) use a threshold of 0.5.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        empty = np.zeros((0, len(self.classes)))
        self.accumulator = Accumulator(
            MetricState(lists={"shares": empty.astype(np.float32), "truth": empty.astype(np.int64)})
        )

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add logits `(B, K)` and labels `(B, K)` of zeros and ones."""
        probs, truth = logits.float().sigmoid().numpy(force=True), labels.long()
        for shares, labelled in zip(probs, truth.numpy(force=True), strict=True):
            self.accumulator.add(
                MetricState(lists={"shares": shares[None], "truth": labelled[None]})
            )

    def compute(self) -> dict[str, float]:
        """Classes without positive labels are NaN and left out of the means."""
        return self.compute_from(self.accumulator.gather())

    def state(self) -> MetricState:
        """Lists `shares` (probabilities) and `truth`, `(N, K)`, one row per image."""
        return self.accumulator.state()

    def windows(self) -> list[MetricState]:
        """See `Metrics`."""
        return self.accumulator.states

    def compute_from(self, state: MetricState) -> dict[str, float]:
        """See `Metrics`."""
        from torchmetrics.functional.classification import multilabel_average_precision

        matrix = _decisions(state).double()
        hits, errors = matrix[:, 1, 1], matrix[:, 0, 1] + matrix[:, 1, 0]
        present = matrix[:, 1].sum(dim=1) > 0
        f1s = 2 * hits / (2 * hits + errors)
        probs, truth = (torch.from_numpy(state.lists[name]) for name in ("shares", "truth"))
        precision = torch.full((len(self.classes),), math.nan, dtype=torch.double)
        if present.any():
            values = multilabel_average_precision(
                probs[:, present],
                truth[:, present],
                int(present.sum()),
                average="none",
                validate_args=False,
            )
            precision[present] = values.double()
        correct = matrix.diagonal(dim1=1, dim2=2).sum() / matrix.sum()
        return {
            "ap": float(precision.nanmean()),
            "f1": float(f1s.nanmean()),
            "accuracy": float(correct),
            **{f"ap/{name}": float(v) for name, v in zip(self.classes, precision, strict=True)},
            **{f"f1/{name}": float(v) for name, v in zip(self.classes, f1s, strict=True)},
        }

    def details(self) -> dict[str, Any]:
        """`decisions`: images `[[tn, fp], [fn, tp]]` of each class."""
        return {"decisions": _decisions(self.accumulator.gather()).tolist()}

    def reset(self) -> None:
        """Discard all images."""
        self.accumulator.reset()


def _decisions(state: MetricState) -> Tensor:
    """Number of images by class, truth and prediction, `(K, 2, 2)`."""
    predicted, truth = state.lists["shares"] > 0.5, state.lists["truth"] > 0
    cells = [[(t & p).sum(axis=0) for p in (~predicted, predicted)] for t in (~truth, truth)]
    return torch.from_numpy(np.array(cells)).permute(2, 0, 1)
