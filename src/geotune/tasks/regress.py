"""Regression: a value for every pixel or every image."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from geotune.config.task_options import RegressOptions
from geotune.metrics.regression_metrics import ValueMetrics, regression_loss_sum
from geotune.tasks.step_loss import LossFromTerms


class Regress(LossFromTerms):
    """Loss, metrics and postprocessing of outputs `(B, 1, H, W)` or `(B, 1)`.

    Labels are float32 `(B, H, W)` or `(B,)` in any unit, NaN if unknown. The model predicts
    standardised values, `(label - mean) / std`, with the mean and standard deviation of the
    training split, which are saved in the adapter.
    """

    main_metric: ClassVar[str] = "rmse"
    lower_is_better: ClassVar[tuple[str, ...]] = ("rmse", "mae")
    report_total: ClassVar[bool] = False

    def __init__(self, options: RegressOptions) -> None:
        """Without `mean` and `std`, labels are not standardised."""
        self.level = options.level
        self.quantity = options.quantity
        self.unit = options.unit
        self.loss_name = options.loss
        self.mean = 0.0 if options.mean is None else options.mean
        self.std = 1.0 if options.std is None else options.std
        self.classes: tuple[str, ...] = (options.quantity,)
        self.output_kind = "values" if options.level == "pixel" else "table"

    @property
    def num_outputs(self) -> int:
        """One channel."""
        return 1

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names that `metrics().compute()` returns."""
        return ValueMetrics.names

    def loss_sums(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """See `LossTerms`; in units of the labels' standard deviation."""
        labels = (labels - self.mean) / self.std
        return {self.loss_name: regression_loss_sum(self.loss_name, outputs.squeeze(1), labels)}

    def loss_counts(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The number of labels."""
        return {self.loss_name: (~torch.isnan(labels)).sum()}

    def metrics(self) -> RegressMetrics:
        """New, empty metrics."""
        return RegressMetrics(self)

    def postprocess(self, outputs: Tensor) -> Tensor:
        """Values in the unit of the labels, in the shape of the outputs."""
        return outputs.float() * self.std + self.mean

    def predict(self, outputs: Tensor) -> Tensor:
        """Values `(B, H, W)` or `(B,)` in the unit of the labels."""
        return self.postprocess(outputs).squeeze(1)

    def rows(self, answers: Tensor) -> list[dict[str, str | float]]:
        """See `TableTask`."""
        return [{self.quantity: value} for value in answers[:, 0].tolist()]

    def score(self, outputs: Tensor, labels: Tensor) -> float:
        """Minus the mean absolute error of one window; NaN if it has no labels."""
        valid = ~torch.isnan(labels)
        if not valid.any():
            return math.nan
        return -float((self.predict(outputs) - labels)[valid].abs().mean())

    def example_targets(self, window: int) -> Tensor:
        """See `Task`."""
        return torch.zeros((1, window, window) if self.level == "pixel" else (1,))


class RegressMetrics(ValueMetrics):
    """`ValueMetrics` of the predictions of a `Regress` task."""

    def __init__(self, task: Regress) -> None:
        super().__init__(task.mean, task.std)
        self.task = task

    def update(self, outputs: Tensor, labels: Tensor) -> None:
        """Add outputs and labels of a batch."""
        super().update(self.task.predict(outputs), labels)
