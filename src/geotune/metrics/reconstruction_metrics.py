"""Metrics of masked reconstruction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geotune.metrics.state import Accumulator, MetricState

SUMS = ("pixels", "absolutes", "distances", "windows")


class ReconstructionMetrics(nn.Module):
    """`masked_l1`, and with a teacher `cosine_distance`.

    `masked_l1` is the mean absolute error over all hidden pixels and bands, of normalised values.
    `cosine_distance` is the mean over windows of the mean over the teacher's stages.

    Args:
        names: those of the metrics that are computed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.accumulator = Accumulator(MetricState({name: np.zeros(()) for name in SUMS}))

    @torch.no_grad()
    def add(self, errors: Tensor, hidden: Tensor, distances: Tensor) -> None:
        """Add windows.

        Args:
            errors: absolute, `(B, C, H, W)`.
            hidden: which of them count, same shape.
            distances: `(B,)`, NaN for windows without data or without a teacher.
        """
        counts = hidden.flatten(1).sum(1).double().tolist()
        sums = torch.where(hidden, errors, 0).flatten(1).double().sum(1).tolist()
        for count, total, distance in zip(counts, sums, distances.tolist(), strict=True):
            known = not math.isnan(distance)
            values = (count, total, distance if known else 0.0, float(known))
            named = zip(SUMS, values, strict=True)
            self.accumulator.add(MetricState({name: np.asarray(value) for name, value in named}))

    def compute(self) -> dict[str, float]:
        """Metrics by `names`; NaN without hidden pixels."""
        return self.compute_from(self.accumulator.gather())

    def state(self) -> MetricState:
        """The sums of this process."""
        return self.accumulator.state()

    def windows(self) -> list[MetricState]:
        """See `Metrics`."""
        return self.accumulator.states

    def compute_from(self, state: MetricState) -> dict[str, float]:
        """See `Metrics`."""
        sums = {name: float(value) for name, value in state.sums.items()}
        values = {
            "masked_l1": sums["absolutes"] / (sums["pixels"] or math.nan),
            "cosine_distance": sums["distances"] / (sums["windows"] or math.nan),
        }
        return {name: values[name] for name in self.names}

    def details(self) -> dict[str, Any]:
        """None."""
        return {}

    def reset(self) -> None:
        """Discard all windows."""
        self.accumulator.reset()
