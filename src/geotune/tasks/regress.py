"""Regression: a number for every pixel, or for every image."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from geotune.metrics.regression_metrics import ValueMetrics, loss_of


class Regress:
    """Loss, metrics and reading of outputs `(B, 1, H, W)` or `(B, 1)` against labels in any unit.

    Labels are float32 `(B, H, W)` or `(B,)`, NaN where nothing is known. The model gives
    standardised numbers, `(label - mean) / std`; mean and standard deviation are the training
    part's, and lie in the adapter with the rest of the task.

    Attributes:
        main_metric: the metric by which runs are compared; lower is better.
    """

    main_metric: ClassVar[str] = "rmse"
    lower_is_better: ClassVar[tuple[str, ...]] = ("rmse", "mae")
    summed: ClassVar[bool] = False

    def __init__(
        self,
        level: Literal["pixel", "image"] = "pixel",
        quantity: str = "value",
        unit: str = "",
        loss: str = "huber",
        mean: float | None = None,
        std: float | None = None,
    ) -> None:
        """`loss` is `l1`, `l2` or `huber`; without `mean` and `std` labels count as they are."""
        self.per = level
        self.quantity = quantity
        self.unit = unit
        self.kind = loss
        self.mean = 0.0 if mean is None else mean
        self.std = 1.0 if std is None else std
        self.classes: tuple[str, ...] = (quantity,)
        self.product = "values" if level == "pixel" else "table"

    @property
    def num_outputs(self) -> int:
        """One number."""
        return 1

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of what `metrics().compute()` gives."""
        return ValueMetrics.names

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss in units of the labels' standard deviation."""
        return loss_of(self.kind, outputs.squeeze(1), (labels - self.mean) / self.std)

    def metrics(self) -> RegressMetrics:
        """A fresh counter."""
        return RegressMetrics(self)

    def answers(self, outputs: Tensor) -> Tensor:
        """Numbers in the labels' unit, of the outputs' shape."""
        return outputs.float() * self.std + self.mean

    def predict(self, outputs: Tensor) -> Tensor:
        """Numbers `(B, H, W)` or `(B,)` in the labels' unit."""
        return self.answers(outputs).squeeze(1)

    def rows(self, answers: Tensor) -> list[dict[str, str | float]]:
        """A table's row for each image, of answers `(B, 1)`."""
        return [{self.quantity: value} for value in answers[:, 0].tolist()]

    def score(self, outputs: Tensor, labels: Tensor) -> float:
        """Minus the mean absolute error of one window; NaN where nothing is labelled."""
        counted = ~torch.isnan(labels)
        if not counted.any():
            return math.nan
        return -float((self.predict(outputs) - labels)[counted].abs().mean())

    def example(self, window: int) -> Tensor:
        """Labels of a batch of one window, of which only shape and type count."""
        return torch.zeros((1, window, window) if self.per == "pixel" else (1,))


class RegressMetrics(ValueMetrics):
    """Figures of what a task makes of a model's outputs."""

    def __init__(self, task: Regress) -> None:
        super().__init__(task.mean, task.std)
        self.task = task

    def update(self, outputs: Tensor, labels: Tensor) -> None:
        """Count outputs of a model."""
        super().update(self.task.predict(outputs), labels)
