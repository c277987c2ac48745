"""Counting by density estimation: a map of objects per pixel whose sum is the count.

Lempitsky and Zisserman, Learning to Count Objects in Images, NIPS 2010.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from geotune.config.task_options import DensityOptions
from geotune.metrics.regression_metrics import (
    PairReservoir,
    error_sums,
    regression_loss_sum,
    zero_sums,
)
from geotune.metrics.state import Accumulator, MetricState
from geotune.tasks.step_loss import LossFromTerms


class Density(LossFromTerms):
    """Loss, metrics and postprocessing of outputs `(B, 1, H, W)` and densities `(B, H, W)`.

    Densities are in objects per pixel, NaN for nodata; the model predicts them in units of `std`.
    Predictions are not clamped at zero: in empty areas small errors of both signs cancel in the
    sum, and clamping would bias the count upwards.
    """

    main_metric: ClassVar[str] = "mae"
    lower_is_better: ClassVar[tuple[str, ...]] = ("mae", "rmse", "relative")
    output_kind: ClassVar[str] = "values"
    unit: str = "objects a pixel"
    report_total: ClassVar[bool] = True

    def __init__(self, options: DensityOptions) -> None:
        """Without `std`, densities are not standardised."""
        self.objects = options.objects
        self.loss_name = options.loss
        self.std = 1.0 if options.std is None else options.std
        self.classes: tuple[str, ...] = (options.objects,)

    @property
    def num_outputs(self) -> int:
        """One channel."""
        return 1

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names that `metrics().compute()` returns."""
        return CountMetrics.names

    def loss_sums(self, outputs: Tensor, densities: Tensor) -> dict[str, Tensor]:
        """See `LossTerms`; in units of the densities' standard deviation."""
        densities = densities / self.std
        return {self.loss_name: regression_loss_sum(self.loss_name, outputs.squeeze(1), densities)}

    def loss_counts(self, outputs: Tensor, densities: Tensor) -> dict[str, Tensor]:
        """The number of pixels with data."""
        return {self.loss_name: (~torch.isnan(densities)).sum()}

    def metrics(self) -> CountMetrics:
        """New, empty metrics."""
        return CountMetrics(self)

    def postprocess(self, outputs: Tensor) -> Tensor:
        """Densities `(B, 1, H, W)` in objects per pixel."""
        return outputs.float() * self.std

    def predict(self, outputs: Tensor) -> Tensor:
        """Densities `(B, H, W)` in objects per pixel."""
        return self.postprocess(outputs).squeeze(1)

    def counts(self, outputs: Tensor, densities: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted and labelled objects in each window, `(B,)` each; nodata is left out."""
        valid = ~torch.isnan(densities)
        predicted = torch.where(valid, self.predict(outputs), 0.0)
        return predicted.sum((1, 2)), torch.where(valid, densities, 0.0).sum((1, 2))

    def score(self, outputs: Tensor, densities: Tensor) -> float:
        """Minus the absolute count error of one window; NaN if it is all nodata."""
        if torch.isnan(densities).all():
            return math.nan
        predicted, labelled = self.counts(outputs, densities)
        return -float((predicted - labelled).abs())

    def example_targets(self, window: int) -> Tensor:
        """See `Task`."""
        return torch.zeros(1, window, window)


class CountMetrics(nn.Module):
    """Metrics of the counts of windows.

    `mae`, `rmse` and `bias` in objects per window; `relative`: the sum of absolute errors over the
    number of labelled objects; `counted` and `labelled`: total numbers of objects.
    """

    names = ("mae", "rmse", "bias", "relative", "counted", "labelled")

    def __init__(self, task: Density) -> None:
        super().__init__()
        self.task = task
        self.accumulator = Accumulator(MetricState(zero_sums()))
        self.pairs = PairReservoir()

    @torch.no_grad()
    def update(self, outputs: Tensor, densities: Tensor) -> None:
        """Add a batch of windows; windows that are all nodata are skipped."""
        valid = ~torch.isnan(densities).flatten(1).all(dim=1)
        predicted, labelled = self.task.counts(outputs, densities)
        if valid.any():
            self.pairs.add(labelled[valid], predicted[valid])
        arrays = (x.numpy(force=True) for x in (predicted, labelled, valid))
        for count, truth, known in zip(*arrays, strict=True):
            sums = error_sums(count[None], truth[None]) if known else zero_sums()
            self.accumulator.add(MetricState(sums))

    def compute(self) -> dict[str, float]:
        """Metrics by `names`; NaN without windows."""
        return self.compute_from(self.accumulator.gather())

    def state(self) -> MetricState:
        """Sums: `error_sums` of the counts of windows."""
        return self.accumulator.state()

    def windows(self) -> list[MetricState]:
        """See `Metrics`."""
        return self.accumulator.states

    def compute_from(self, state: MetricState) -> dict[str, float]:
        """See `Metrics`."""
        sums = {name: float(value) for name, value in state.sums.items()}
        windows = sums["numbers"] or math.nan
        labelled = sums["labels"]
        return {
            "mae": sums["absolutes"] / windows,
            "rmse": math.sqrt(sums["squares"] / windows),
            "bias": sums["errors"] / windows,
            "relative": sums["absolutes"] / (labelled or math.nan),
            "counted": (labelled + sums["errors"]) * windows / windows,
            "labelled": labelled * windows / windows,
        }

    def details(self) -> dict[str, Any]:
        """`pairs`: (labelled, predicted) counts of a random sample of the windows."""
        return {"pairs": self.pairs.kept.tolist()}

    def reset(self) -> None:
        """Discard all windows."""
        self.accumulator.reset()
        self.pairs = PairReservoir()
