"""The task interface: loss, postprocessing and metrics.

Tasks are registered in `registry.py`; `docs/how-to/extending.md` shows how to add one.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from geotune.metrics.state import MetricState
from geotune.tasks.step_loss import LossTerms


class Metrics(Protocol):
    """Metrics over all windows seen since the last `reset`, across all processes."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Add a batch of outputs and targets."""

    def compute(self) -> dict[str, float]:
        """Metrics by `Task.metric_names`; NaN if undefined. Every process must call it."""

    def state(self) -> MetricState:
        """What this process has accumulated."""

    def windows(self) -> list[MetricState]:
        """The state of each window that this process has seen, in order; they can be merged."""

    def compute_from(self, state: MetricState) -> dict[str, float]:
        """Metrics of a given state, with the names that `compute` returns."""

    def details(self) -> dict[str, Any]:
        """Further results for the report, as plain Python values."""

    def reset(self) -> None:
        """Clear the accumulated state."""

    def to(self, device: torch.device) -> Self:
        """Move the metrics to a device."""


class Task(LossTerms, Protocol):
    """What a model is trained for.

    Outputs are what the model returns for a batch, targets what `Target.stack` makes of its
    samples; `[i : i + 1]` of either selects one window.

    Attributes:
        classes: class names, or the name of the one predicted quantity.
        lower_is_better: metrics that improve as they decrease; all others improve as they increase.
    """

    classes: tuple[str, ...]
    lower_is_better: ClassVar[tuple[str, ...]]

    @property
    def main_metric(self) -> str:
        """The metric by which epochs and runs are compared."""

    @property
    def output_kind(self) -> str:
        """What `geotune predict` writes: `classes` or `values` (maps), `objects` or a `table`.

        `none` if there is nothing to predict. Tasks with `values` implement `ValueTask`, those with
        a `table` `TableTask`.
        """

    @property
    def num_outputs(self) -> int:
        """Number of output channels of the decoder."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names that `metrics().compute()` returns."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Scalar float32 loss; see `LossFromTerms`."""

    def metrics(self) -> Metrics:
        """A new, empty metrics object."""

    def score(self, outputs: Any, targets: Any) -> float:
        """Quality of one window, higher is better; NaN if the window has nothing to score."""

    def postprocess(self, outputs: Any) -> Any:
        """Turn outputs into probabilities, or into values in the unit of the labels.

        Maps are `(B, K, H, W)`; overlapping windows are blended by their weighted mean.
        """

    def predict(self, outputs: Any) -> Any:
        """Final predictions for each window of a batch, as the report shows them."""

    def example_targets(self, window: int) -> Any:
        """Placeholder targets of one window (side in pixels); only shapes and dtypes matter."""


class ValueTask(Task, Protocol):
    """A task that predicts maps of numbers.

    Attributes:
        unit: unit of the values.
        report_total: whether the sum over a map is meaningful, as for densities.
    """

    unit: str
    report_total: ClassVar[bool]


class TableTask(Task, Protocol):
    """A task that predicts values for whole images."""

    def rows(self, answers: Tensor) -> list[dict[str, str | float]]:
        """One table row per image, from postprocessed outputs `(B, K)`."""
