"""The loss of a batch that is computed in micro-batches, by one or several processes.

A loss is a sum of terms, each a sum over pixels, boxes or images divided by a count (or a sum of
weights). The mean of the micro-batches' losses differs from the loss of the batch if their counts
differ: a window with 8 labelled pixels would weigh as much as one with 4096. Here the counts of
the whole batch are computed before the first backward pass, from the targets, so the gradients of
all micro-batches add up to the gradient of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

Terms = Mapping[str, Tensor]
"""A scalar for each term of a loss."""


Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes."""


class LossTerms(Protocol):
    """The part of a `Task` that defines its loss: the sum over the terms of sum / count."""

    def loss_sums(self, outputs: Any, targets: Any) -> Terms:
        """The sum of each term over a micro-batch, float32 and part of the autograd graph."""

    def loss_counts(self, outputs: Any, targets: Any) -> Terms:
        """What each sum is divided by, for any number of windows.

        The counts of windows add up, and depend on the targets only: `outputs`, which may be of
        other windows, only show the shapes of a detector's maps.
        """


class LossFromTerms:
    """Adds `loss` to a class with `loss_sums` and `loss_counts`."""

    def loss(self: LossTerms, outputs: Any, targets: Any) -> Tensor:
        """Scalar float32 loss; zero, but part of the autograd graph, without any labels."""
        return combine(self.loss_sums(outputs, targets), self.loss_counts(outputs, targets))


def combine(sums: Terms, counts: Terms) -> Tensor:
    """The sum over the terms of sum / count; terms with a count of 0 are 0."""
    return torch.stack([sums[name] / counts[name].clamp(min=1e-12) for name in sums]).sum()


class StepLoss:
    """The contributions of micro-batches to the loss of a batch.

    Args:
        task: defines the loss.
        targets: of the whole batch of this process.
        reduce: sums a tensor over all processes.
        world: number of processes; their gradients are averaged afterwards, therefore the
            contributions are multiplied by it.
    """

    def __init__(
        self,
        task: LossTerms,
        targets: Any,
        reduce: Reduce = lambda x: x,
        world: int = 1,
    ) -> None:
        self._task = task
        self._targets = targets
        self._reduce = reduce
        self._world = world
        self._counts: Terms | None = None

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """The contribution of one micro-batch; a collective call in the first one."""
        if self._counts is None:
            with torch.no_grad():
                counts = self._task.loss_counts(outputs, self._targets)
                total = self._reduce(torch.stack([c.float() for c in counts.values()]))
            self._counts = dict(zip(counts, total, strict=True))
        return combine(self._task.loss_sums(outputs, targets), self._counts) * self._world


class MeanLoss:
    """The loss of many batches together, as if they were one; Dice as in `StepLoss`."""

    def __init__(self, task: LossTerms) -> None:
        self._task = task
        self._totals: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, outputs: Any, targets: Any) -> None:
        """Add a batch."""
        sums = self._task.loss_sums(outputs, targets)
        counts = self._task.loss_counts(outputs, targets)
        for name in sums:
            added = torch.stack([_precise(sums[name]), _precise(counts[name])])
            self._totals[name] = self._totals[name] + added if name in self._totals else added

    def compute(self, reduce: Reduce = lambda x: x) -> Tensor:
        """The loss, a collective call if `reduce` is one; forgets all batches."""
        names = list(self._totals)
        totals = reduce(torch.stack([self._totals.pop(name) for name in names]))
        sums, counts = (dict(zip(names, column, strict=True)) for column in totals.unbind(dim=1))
        return combine(sums, counts).float()


def _precise(value: Tensor) -> Tensor:
    """As float64, if the device has it."""
    return value.to(torch.float32 if value.device.type == "mps" else torch.float64)
