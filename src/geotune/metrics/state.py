"""Accumulated metric state that can be merged across windows and processes.

The state is kept for each window, so metrics of any subset of windows can be computed later: of one
region, or of all but one scene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.metrics.distributed import all_gather

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class MetricState:
    """Metric state of one or several windows.

    Attributes:
        sums: arrays by name that merge by addition, such as a confusion matrix.
        lists: arrays by name that merge by concatenation along the first axis, such as scores.
    """

    sums: Arrays = field(default_factory=dict)
    lists: Arrays = field(default_factory=dict)

    @staticmethod
    def merge(states: Sequence[MetricState]) -> MetricState:
        """Combine one or more states of the same task."""
        first = states[0]
        return MetricState(
            {name: np.sum([state.sums[name] for state in states], axis=0) for name in first.sums},
            {name: np.concatenate([state.lists[name] for state in states]) for name in first.lists},
        )


class Accumulator:
    """Collects the metric state of each window, and merges them across processes."""

    def __init__(self, empty: MetricState) -> None:
        """`empty`: the state of no window, with all names, shapes and dtypes."""
        self.empty = empty
        self.states: list[MetricState] = []

    def add(self, state: MetricState) -> None:
        """Add the state of one window."""
        self.states.append(state)

    def state(self) -> MetricState:
        """The merged state of this process."""
        return MetricState.merge([self.empty, *self.states])

    def gather(self) -> MetricState:
        """The merged state of all processes. A collective: every process must call it."""
        return MetricState.merge(all_gather([self.state()]))

    def reset(self) -> None:
        """Discard everything."""
        self.states = []
