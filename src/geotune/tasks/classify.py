"""Classification: a class for every image, or any number of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.errors import GeotuneError
from geotune.metrics.confusion_matrix import accuracy, f1
from geotune.metrics.state import Accumulator, MetricState
from geotune.tasks.base import Metrics


class Classify:
    """Loss, metrics and reading of logits `(B, K)`.

    Labels are class indices `(B,)`; with `several`, float32 `(B, K)` of ones and zeros.

    Attributes:
        main_metric: the metric by which runs are compared; higher is better: the mean F1 of the
            classes, or with `several` their mean average precision, which needs no threshold.
    """

    lower_is_better: ClassVar[tuple[str, ...]] = ()
    product: ClassVar[str] = "table"

    def __init__(
        self,
        classes: Sequence[str],
        class_weights: Sequence[float] | None = None,
        multilabel: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        """`class_weights` weigh images by their class; with `several` the terms of each class.

        `label_smoothing` s puts s / K on every class (arXiv 1512.00567, section 7); with `several`
        labels become s / 2 and 1 - s / 2. Raises `GeotuneError` for weights that do not fit.
        """
        if len(classes) < 2:
            raise GeotuneError(
                f"task.classes has {len(classes)} classes, expected at least 2; for one class of "
                "interest name the rest too, for instance other"
            )
        if class_weights is not None and len(class_weights) != len(classes):
            raise GeotuneError(
                f"task.class_weights has {len(class_weights)} values for {len(classes)} classes; "
                "give one for each class, in the order of task.classes"
            )
        self.classes = tuple(classes)
        self.class_weights = tuple(class_weights or [1.0] * len(classes))
        self.several = multilabel
        self.label_smoothing = label_smoothing
        self.main_metric = "ap" if multilabel else "f1"

    @property
    def num_outputs(self) -> int:
        """One logit a class."""
        return len(self.classes)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of what `metrics().compute()` gives."""
        figures = ("ap", "f1") if self.several else ("f1",)
        each = [f"{figure}/{name}" for figure in figures for name in self.classes]
        return (*figures, "accuracy", *each)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, or with `several` binary cross-entropy, of logits `(B, K)`."""
        logits = logits.float()
        weights = logits.new_tensor(self.class_weights)
        if self.several:
            smooth = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, smooth, weight=weights)
        return F.cross_entropy(logits, labels, weight=weights, label_smoothing=self.label_smoothing)

    def metrics(self) -> Metrics:
        """A fresh counter of images."""
        return MultilabelMetrics(self.classes) if self.several else MulticlassMetrics(self.classes)

    def answers(self, logits: Tensor) -> Tensor:
        """Probabilities `(B, K)`; they sum to one unless `several`."""
        return logits.float().sigmoid() if self.several else logits.float().softmax(dim=1)

    def predict(self, logits: Tensor) -> Tensor:
        """Probabilities `(B, K)`, of which those who show them take the highest or those > 0.5."""
        return self.answers(logits)

    def rows(self, answers: Tensor) -> list[dict[str, str | float]]:
        """A table's row for each image: what it is of, and the probability of each class."""
        rows: list[dict[str, str | float]] = []
        for shares in answers.tolist():
            each = dict(zip(self.classes, shares, strict=True))
            if self.several:
                named = ";".join(name for name, share in each.items() if share > 0.5)
                rows.append({"labels": named, **each})
            else:
                rows.append({"label": max(each, key=lambda name: each[name]), **each})
        return rows

    def score(self, logits: Tensor, labels: Tensor) -> float:
        """Probability of the truth of one image; with `several` the mean over the classes."""
        shares = self.answers(logits)[0]
        if self.several:
            return float(torch.where(labels[0] > 0.5, shares, 1 - shares).mean())
        return float(shares[int(labels[0])])

    def example(self, window: int) -> Tensor:
        """Labels of a batch of one image, of which only shape and type count."""
        del window
        return torch.zeros(1, len(self.classes)) if self.several else torch.zeros(1).long()


class MulticlassMetrics(nn.Module):
    """`f1` (mean of the classes), `accuracy` and `f1/<class>` where an image is of one class."""

    def __init__(self, classes: Sequence[str]) -> None:
        from torchmetrics.classification import MulticlassConfusionMatrix  # takes seconds

        super().__init__()
        self.classes = tuple(classes)
        self.matrix = MulticlassConfusionMatrix(len(self.classes), validate_args=False)

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count logits `(B, K)` against labels `(B,)`."""
        self.matrix.update(logits.argmax(dim=1), labels)

    def compute(self) -> dict[str, float]:
        """Classes in neither truth nor prediction are NaN and not in the mean."""
        return self.of(MetricState({"confusion": self.matrix.compute().numpy(force=True)}))

    def parts(self) -> MetricState:
        """`confusion`, `(K, K)`: a sum."""
        return MetricState({"confusion": self.matrix.confmat.numpy(force=True).copy()})

    def of(self, parts: MetricState) -> dict[str, float]:
        """The figures of a confusion matrix."""
        matrix = torch.from_numpy(parts.sums["confusion"])
        each = f1(matrix)
        return {
            "f1": float(each.nanmean()),
            "accuracy": float(accuracy(matrix)),
            **{f"f1/{name}": float(v) for name, v in zip(self.classes, each, strict=True)},
        }

    def details(self) -> dict[str, Any]:
        """`confusion`: images by true class (rows) and predicted class (columns)."""
        return {"confusion": self.matrix.compute().tolist()}

    def reset(self) -> None:
        """Forget all images."""
        self.matrix.reset()


class MultilabelMetrics(nn.Module):
    """`ap`, `f1`, `accuracy`, `ap/<class>` and `f1/<class>` where an image has several classes.

    F1 and accuracy (the share of right answers, over all images and classes) are those at a
    probability of 0.5.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        none = np.zeros((0, len(self.classes)))
        self.tally = Accumulator(
            MetricState(lists={"shares": none.astype(np.float32), "truth": none.astype(np.int64)})
        )

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count logits `(B, K)` against labels `(B, K)` of ones and zeros."""
        shares, truth = logits.float().sigmoid().numpy(force=True), labels.long()
        self.tally.add(MetricState(lists={"shares": shares, "truth": truth.numpy(force=True)}))

    def compute(self) -> dict[str, float]:
        """A class that no image has is NaN and not in the means."""
        return self.of(self.tally.together())

    def parts(self) -> MetricState:
        """`shares` and `truth`, `(N, K)`: a row an image."""
        return self.tally.parts()

    def of(self, parts: MetricState) -> dict[str, float]:
        """The figures of probabilities and labels."""
        from torchmetrics.functional.classification import multilabel_average_precision

        matrix = _decisions(parts).double()
        hits, wrong = matrix[:, 1, 1], matrix[:, 0, 1] + matrix[:, 1, 0]
        present = matrix[:, 1].sum(dim=1) > 0
        each = 2 * hits / (2 * hits + wrong)
        shares, truth = (torch.from_numpy(parts.lists[name]) for name in ("shares", "truth"))
        precision = torch.full((len(self.classes),), math.nan, dtype=torch.double)
        if present.any():
            found = multilabel_average_precision(
                shares[:, present],
                truth[:, present],
                int(present.sum()),
                average="none",
                validate_args=False,
            )
            precision[present] = found.double()
        right = matrix.diagonal(dim1=1, dim2=2).sum() / matrix.sum()
        return {
            "ap": float(precision.nanmean()),
            "f1": float(each.nanmean()),
            "accuracy": float(right),
            **{f"ap/{name}": float(v) for name, v in zip(self.classes, precision, strict=True)},
            **{f"f1/{name}": float(v) for name, v in zip(self.classes, each, strict=True)},
        }

    def details(self) -> dict[str, Any]:
        """`decisions`: of each class images `[[right no, wrong yes], [wrong no, right yes]]`."""
        return {"decisions": _decisions(self.tally.together()).tolist()}

    def reset(self) -> None:
        """Forget all images."""
        self.tally.reset()


def _decisions(parts: MetricState) -> Tensor:
    """Images by class, truth and answer, `(K, 2, 2)`."""
    said, truth = parts.lists["shares"] > 0.5, parts.lists["truth"] > 0
    cells = [[(there & yes).sum(axis=0) for yes in (~said, said)] for there in (~truth, truth)]
    return torch.from_numpy(np.array(cells)).permute(2, 0, 1)
