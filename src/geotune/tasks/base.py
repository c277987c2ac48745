"""The contract of a task: what is learnt, and how well it was."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from geotune.metrics.state import MetricState


class Metrics(Protocol):
    """A counter over all windows seen since the last `reset`, of every process together."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Count the outputs of a batch against its targets."""

    def compute(self) -> dict[str, float]:
        """The figures by `Task.metric_names`; NaN where there is nothing to tell."""

    def parts(self) -> MetricState:
        """What this process has counted, so that it can be put together with other windows'."""

    def of(self, parts: MetricState) -> dict[str, float]:
        """The figures of what was counted anywhere, as `compute` gives them."""

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
        classes: names of what its answers tell apart: classes, or the one quantity.
        lower_is_better: metrics that shrink as the model gets better; the others grow.
    """

    classes: tuple[str, ...]
    lower_is_better: ClassVar[tuple[str, ...]]

    @property
    def main_metric(self) -> str:
        """The metric by which epochs and runs are compared."""

    @property
    def product(self) -> str:
        """What a prediction leaves: a map of `classes`, a map of `values`, `objects`, or a
        `table`.

        A task of values is a `ValueTask`, one of tables a `TableTask`.
        """

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

    def answers(self, outputs: Any) -> Any:
        """The outputs as people read them: probabilities, or numbers in the labels' unit.

        Of a map `(B, K, H, W)`, where windows overlap their weighted mean is taken.
        """

    def predict(self, outputs: Any) -> Any:
        """What is shown of each window of a batch."""

    def example(self, window: int) -> Any:
        """Targets of a batch of one window of a side in pixels; only shapes and types count."""


class ValueTask(Task, Protocol):
    """A task whose answers are maps of numbers.

    Attributes:
        unit: in what they are measured.
        summed: whether their sum is what people ask for.
    """

    unit: str
    summed: ClassVar[bool]


class TableTask(Task, Protocol):
    """A task whose answers are about whole images."""

    def rows(self, answers: Tensor) -> list[dict[str, str | float]]:
        """A table's row for each image, of answers `(B, K)`."""
