"""Regression losses and metrics, for pixels, images and counts.

NaN labels are ignored. Losses are computed on standardised values, so their scale does not depend
on the unit; metrics are in the unit of the labels.
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

MAX_PAIRS = 2000
"""Number of (label, prediction) pairs sampled for the report."""

LOSSES: dict[str, Callable[..., Tensor]] = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "huber": F.huber_loss,
}
"""The Huber loss is quadratic up to one standard deviation of the labels and linear beyond."""


def regression_loss_sum(name: str, outputs: Tensor, labels: Tensor) -> Tensor:
    """Sum of the float32 loss `LOSSES[name]` of standardised outputs and labels of the same shape.

    If every label is NaN it is 0, still part of the autograd graph.
    """
    valid = ~torch.isnan(labels)
    # Masking both sides with zeros keeps NaN out of the gradient.
    outputs = torch.where(valid, outputs.float(), 0.0)
    labels = torch.where(valid, labels.float(), 0.0)
    return LOSSES[name](outputs, labels, reduction="sum")


SUMS = ("numbers", "errors", "absolutes", "squares", "labels", "label_squares")


def zero_sums() -> dict[str, NDArray[np.float64]]:
    """The sums over no values."""
    return {name: np.zeros(()) for name in SUMS}


def error_sums(
    predicted: NDArray[np.float32], labels: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """The sums, by `SUMS`, from which error metrics of values `(N,)` are computed.

    These are the count, the signed, absolute and squared errors (predicted minus labelled), and the
    labels and their squares, in float64.
    """
    values, truth = predicted.astype(np.float64), labels.astype(np.float64)
    error = values - truth
    terms = (np.ones_like(error), error, abs(error), error**2, truth, truth**2)
    return {name: np.asarray(term.sum()) for name, term in zip(SUMS, terms, strict=True)}


class ValueMetrics(nn.Module):
    """`rmse`, `mae`, `r2` and `bias` (mean of predicted minus labelled).

    Args:
        mean: subtracted from all values before summation.
        std: all values are divided by it, which keeps the sums of squares accurate.
    """

    names = ("rmse", "mae", "r2", "bias")

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.accumulator = Accumulator(MetricState(zero_sums()))
        self.pairs = PairReservoir()

    @torch.no_grad()
    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Add values `(B, ...)`; values whose label is NaN are skipped."""
        valid = ~torch.isnan(labels)
        if valid.any():
            self.pairs.add(labels[valid].float(), predicted[valid].float())
        windows = (
            ((x.float() - self.mean) / self.std).reshape(len(x), -1).numpy(force=True)
            for x in (predicted, labels)
        )
        for values, truth in zip(*windows, strict=True):
            known = ~np.isnan(truth)
            self.accumulator.add(MetricState(error_sums(values[known], truth[known])))

    def compute(self) -> dict[str, float]:
        """Metrics by `names`; NaN without labels; `r2` is NaN if the labels are constant."""
        return self.compute_from(self.accumulator.gather())

    def state(self) -> MetricState:
        """Sums: `error_sums` of the standardised values."""
        return self.accumulator.state()

    def windows(self) -> list[MetricState]:
        """See `Metrics`."""
        return self.accumulator.states

    def compute_from(self, state: MetricState) -> dict[str, float]:
        """See `Metrics`."""
        sums = {name: float(value) for name, value in state.sums.items()}
        count = sums["numbers"] or math.nan
        variation = sums["label_squares"] - sums["labels"] ** 2 / count
        if not variation > 1e-12 * sums["label_squares"]:  # rounding error only
            variation = math.nan
        return {
            "rmse": math.sqrt(sums["squares"] / count) * self.std,
            "mae": sums["absolutes"] / count * self.std,
            "r2": 1 - sums["squares"] / variation,
            "bias": sums["errors"] / count * self.std,
        }

    def details(self) -> dict[str, Any]:
        """`pairs`: (label, prediction) of a uniform sample of at most `MAX_PAIRS` values."""
        return {"pairs": self.pairs.kept.tolist()}

    def reset(self) -> None:
        """Discard all values."""
        self.accumulator.reset()
        self.pairs = PairReservoir()


class PairReservoir:
    """Uniform sample of (label, prediction) pairs: those with the smallest random keys are kept.

    Attributes:
        kept: `(n, 2)`, label and prediction.
    """

    def __init__(self) -> None:
        self.kept = torch.zeros(0, 2)
        self.keys = torch.zeros(0)
        self.generator = torch.Generator().manual_seed(0)

    def add(self, labels: Tensor, predicted: Tensor) -> None:
        """Add values `(N,)`."""
        keys = torch.rand(len(labels), generator=self.generator)
        index = keys.topk(min(MAX_PAIRS, len(keys)), largest=False).indices
        pairs = torch.stack([labels, predicted], dim=1)[index.to(labels.device)].cpu()
        keys, pairs = torch.cat([self.keys, keys[index]]), torch.cat([self.kept, pairs])
        index = keys.topk(min(MAX_PAIRS, len(keys)), largest=False).indices
        self.keys, self.kept = keys[index], pairs[index]
