"""Losses and metrics of numbers: of pixels, of images and of counts.

A label that is NaN is not counted. Losses are those of standardised numbers, so that they have
one size whatever the unit is; metrics are in the labels' own unit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PAIRS = 2000
"""Pairs of label and prediction that are kept for a report."""

LOSSES: dict[str, Callable[..., Tensor]] = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "huber": F.huber_loss,
}
"""Huber's is quadratic up to one standard deviation of the labels and linear beyond it."""


def loss_of(kind: str, outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of standardised outputs against standardised labels of one shape, in float32.

    It is 0, with a graph, where every label is NaN.
    """
    counted = ~torch.isnan(labels)
    # zero against zero: nothing is added, and no NaN comes back through the gradient
    outputs = torch.where(counted, outputs.float(), 0.0)
    labels = torch.where(counted, labels.float(), 0.0)
    return LOSSES[kind](outputs, labels, reduction="sum") / counted.sum().clamp(min=1)


class ValueMetrics(nn.Module):
    """`rmse`, `mae`, `r2` and `bias` (mean of predicted minus labelled) of numbers.

    Args:
        mean: what is taken from all numbers before anything is summed up.
        std: what they are then divided by, so that sums in float32 stay exact.
    """

    names = ("rmse", "mae", "r2", "bias")

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        from torchmetrics import (  # takes seconds
            MeanAbsoluteError,
            MeanMetric,
            MeanSquaredError,
            R2Score,
        )

        super().__init__()
        self.mean, self.std = mean, std
        self.squares = MeanSquaredError(squared=False)
        self.absolutes = MeanAbsoluteError()
        self.shift = MeanMetric()
        self.explained = R2Score()
        self.pairs = Pairs()

    @torch.no_grad()
    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Count numbers of any shape; where the label is NaN they are left out."""
        counted = ~torch.isnan(labels)
        if not counted.any():
            return
        predicted, labels = predicted[counted].float(), labels[counted].float()
        self.pairs.add(labels, predicted)
        predicted, labels = (predicted - self.mean) / self.std, (labels - self.mean) / self.std
        self.squares.update(predicted, labels)
        self.absolutes.update(predicted, labels)
        self.shift.update(predicted - labels)
        self.explained.update(predicted, labels)

    def compute(self) -> dict[str, float]:
        """The figures by `names`; NaN where nothing was counted, `r2` where less than two were."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            squares, absolutes = float(self.squares.compute()), float(self.absolutes.compute())
            shift = float(self.shift.compute())
            try:
                explained = float(self.explained.compute())
            except ValueError:  # of less than two numbers
                explained = math.nan
        return {
            "rmse": squares * self.std,
            "mae": absolutes * self.std,
            "r2": explained if math.isfinite(explained) else math.nan,
            "bias": shift * self.std,
        }

    def details(self) -> dict[str, Any]:
        """`pairs`: label and prediction of at most `PAIRS` numbers, each equally likely."""
        return {"pairs": self.pairs.kept.tolist()}

    def reset(self) -> None:
        """Forget what was seen."""
        for metric in (self.squares, self.absolutes, self.shift, self.explained):
            metric.reset()
        self.pairs = Pairs()


class Pairs:
    """A uniform sample of pairs: each gets a number by chance, and the smallest stay.

    Attributes:
        kept: `(n, 2)`, label and prediction.
    """

    def __init__(self) -> None:
        self.kept = torch.zeros(0, 2)
        self.keys = torch.zeros(0)
        self.chance = torch.Generator().manual_seed(0)

    def add(self, labels: Tensor, predicted: Tensor) -> None:
        """Take in numbers `(N,)`."""
        keys = torch.rand(len(labels), generator=self.chance)
        chosen = keys.topk(min(PAIRS, len(keys)), largest=False).indices
        found = torch.stack([labels, predicted], dim=1)[chosen.to(labels.device)].cpu()
        keys, found = torch.cat([self.keys, keys[chosen]]), torch.cat([self.kept, found])
        stay = keys.topk(min(PAIRS, len(keys)), largest=False).indices
        self.keys, self.kept = keys[stay], found[stay]
