"""The contract of a task: what is learnt, and how well it was."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor


class Metrics(Protocol):
    """A counter over all windows seen since the last `reset`, of every process together."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Count the outputs of a batch against its targets."""

    def compute(self) -> dict[str, float]:
        """The figures by `Task.metric_names`; NaN where there is nothing to tell."""

    def details(self) -> dict[str, Any]:
        """What a report shows beside them, as plain values."""

    def reset(self) -> None:
        """Forget what was seen."""

    def to(self, device: torch.device) -> Self:
        """Count on another device."""


class Task(Protocol):
    """What a model is trained for.

    Outputs are what the model gives for a batch and targets what `Target.stack` makes of its
    samples; `[i : i + 1]` of either is one window's share.

    Attributes:
        classes: their names.
        main_metric: the metric by which epochs and runs are compared.
        lower_is_better: metrics that shrink as the model gets better; the others grow.
    """

    classes: tuple[str, ...]
    main_metric: ClassVar[str]
    lower_is_better: ClassVar[tuple[str, ...]]

    @property
    def num_outputs(self) -> int:
        """What a decoder is asked for: channels of its output."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of what `metrics().compute()` gives."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Scalar, in float32, with a graph even where nothing is counted."""

    def metrics(self) -> Metrics:
        """A fresh counter."""

    def score(self, outputs: Any, targets: Any) -> float:
        """How well one window went, higher is better; NaN where it has nothing to judge."""

    def predict(self, outputs: Any) -> Any:
        """What is shown of each window of a batch."""
