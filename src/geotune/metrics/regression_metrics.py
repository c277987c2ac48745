"""Losses and metrics of numbers: of pixels, of images and of counts.

A label that is NaN is not counted. Losses are those of standardised numbers, so that they have
one size whatever the unit is; metrics are in the labels' own unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from geotune.metrics.state import Accumulator, MetricState

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


SUMS = ("numbers", "errors", "absolutes", "squares", "labels", "label_squares")


def zeros() -> dict[str, NDArray[np.float64]]:
    """The sums of no number."""
    return {name: np.zeros(()) for name in SUMS}


def error_sums(predicted: Tensor, labels: Tensor) -> dict[str, NDArray[np.float64]]:
    """What figures of errors follow from, by `SUMS`, of numbers `(N,)`.

    How many there are, their errors (predicted minus labelled) plain, absolute and squared, and the
    labels plain and squared. In float64, on the CPU: not every accelerator has it.
    """
    found, truth = (numbers.numpy(force=True).astype(np.float64) for numbers in (predicted, labels))
    error = found - truth
    each = (np.ones_like(error), error, abs(error), error**2, truth, truth**2)
    return {name: np.asarray(value.sum()) for name, value in zip(SUMS, each, strict=True)}


class ValueMetrics(nn.Module):
    """`rmse`, `mae`, `r2` and `bias` (mean of predicted minus labelled) of numbers.

    Args:
        mean: what is taken from all numbers before anything is summed up.
        std: what they are then divided by, so that sums of squares stay exact.
    """

    names = ("rmse", "mae", "r2", "bias")

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.tally = Accumulator(MetricState(zeros()))
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
        self.tally.add(MetricState(error_sums(predicted, labels)))

    def compute(self) -> dict[str, float]:
        """The figures by `names`; NaN where nothing was counted, `r2` where labels do not vary."""
        return self.of(self.tally.together())

    def parts(self) -> MetricState:
        """The sums of `error_sums`, of standardised numbers."""
        return self.tally.parts()

    def of(self, parts: MetricState) -> dict[str, float]:
        """The figures of such sums."""
        sums = {name: float(value) for name, value in parts.sums.items()}
        count = sums["numbers"] or math.nan
        varied = sums["label_squares"] - sums["labels"] ** 2 / count
        if not varied > 1e-12 * sums["label_squares"]:  # what is left of rounding
            varied = math.nan
        return {
            "rmse": math.sqrt(sums["squares"] / count) * self.std,
            "mae": sums["absolutes"] / count * self.std,
            "r2": 1 - sums["squares"] / varied,
            "bias": sums["errors"] / count * self.std,
        }

    def details(self) -> dict[str, Any]:
        """`pairs`: label and prediction of at most `PAIRS` numbers, each equally likely."""
        return {"pairs": self.pairs.kept.tolist()}

    def reset(self) -> None:
        """Forget what was seen."""
        self.tally.reset()
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
