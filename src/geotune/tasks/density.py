"""Counting by density: a map of objects a pixel, whose sum is their number.

The idea is that of Lempitsky and Zisserman, Learning to Count Objects in Images, NIPS 2010.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from geotune.metrics.regression_metrics import Pairs, error_sums, loss_of, zeros
from geotune.metrics.state import Accumulator, MetricState


class Density:
    """Loss, metrics and reading of outputs `(B, 1, H, W)` against densities `(B, H, W)`.

    A density is in objects a pixel, NaN where there is no data. The model gives it in units of
    `std`. It is not held above zero: where nothing is, small errors of both signs cancel in the
    sum, which a bound at zero would turn into a surplus.

    Attributes:
        main_metric: the metric by which runs are compared; lower is better.
    """

    main_metric: ClassVar[str] = "mae"
    lower_is_better: ClassVar[tuple[str, ...]] = ("mae", "rmse", "relative")
    product: ClassVar[str] = "values"
    unit: str = "objects a pixel"
    summed: ClassVar[bool] = True

    def __init__(
        self, objects: str = "objects", loss: str = "l2", std: float | None = None
    ) -> None:
        """`objects` names what is counted; `loss` is `l1`, `l2` or `huber`."""
        self.objects = objects
        self.kind = loss
        self.std = 1.0 if std is None else std
        self.classes: tuple[str, ...] = (objects,)

    @property
    def num_outputs(self) -> int:
        """One map."""
        return 1

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of what `metrics().compute()` gives."""
        return CountMetrics.names

    def loss(self, outputs: Tensor, densities: Tensor) -> Tensor:
        """Scalar loss of the map, in units of the densities' standard deviation."""
        return loss_of(self.kind, outputs.squeeze(1), densities / self.std)

    def metrics(self) -> CountMetrics:
        """A fresh counter."""
        return CountMetrics(self)

    def answers(self, outputs: Tensor) -> Tensor:
        """Densities `(B, 1, H, W)` in objects a pixel."""
        return outputs.float() * self.std

    def predict(self, outputs: Tensor) -> Tensor:
        """Densities `(B, H, W)` in objects a pixel."""
        return self.answers(outputs).squeeze(1)

    def counts(self, outputs: Tensor, densities: Tensor) -> tuple[Tensor, Tensor]:
        """Objects counted and labelled in each window, `(B,)` each, where there is data."""
        there = ~torch.isnan(densities)
        found = torch.where(there, self.predict(outputs), 0.0)
        return found.sum((1, 2)), torch.where(there, densities, 0.0).sum((1, 2))

    def score(self, outputs: Tensor, densities: Tensor) -> float:
        """Minus the error of one window's count; NaN where there is no data."""
        if torch.isnan(densities).all():
            return math.nan
        found, labelled = self.counts(outputs, densities)
        return -float((found - labelled).abs())

    def example(self, window: int) -> Tensor:
        """Densities of a batch of one window, of which only shape and type count."""
        return torch.zeros(1, window, window)


class CountMetrics(nn.Module):
    """Figures of the windows' counts.

    `mae`, `rmse` and `bias` in objects a window; `relative`: the windows' absolute errors together
    over all labelled objects; `counted` and `labelled`: objects in all.
    """

    names = ("mae", "rmse", "bias", "relative", "counted", "labelled")

    def __init__(self, task: Density) -> None:
        super().__init__()
        self.task = task
        self.tally = Accumulator(MetricState(zeros()))
        self.pairs = Pairs()

    @torch.no_grad()
    def update(self, outputs: Tensor, densities: Tensor) -> None:
        """Count the windows of a batch; those without any data are left out."""
        there = ~torch.isnan(densities).flatten(1).all(dim=1)
        if not there.any():
            return
        found, labelled = (count[there] for count in self.task.counts(outputs, densities))
        self.tally.add(MetricState(error_sums(found, labelled)))
        self.pairs.add(labelled, found)

    def compute(self) -> dict[str, float]:
        """The figures by `names`; NaN where no window was seen."""
        return self.of(self.tally.together())

    def parts(self) -> MetricState:
        """The sums of `error_sums`, of the windows' counts."""
        return self.tally.parts()

    def of(self, parts: MetricState) -> dict[str, float]:
        """The figures of such sums."""
        sums = {name: float(value) for name, value in parts.sums.items()}
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
        """`pairs`: objects labelled and counted in each window, of many windows some by chance."""
        return {"pairs": self.pairs.kept.tolist()}

    def reset(self) -> None:
        """Forget what was seen."""
        self.tally.reset()
        self.pairs = Pairs()
