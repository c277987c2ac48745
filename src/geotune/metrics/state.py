"""What windows add to a task's figures.

Kept of each window by itself, the figures of any choice of windows follow: of a region, or of
windows drawn anew to see how much a figure owes to which of them were looked at.
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
    """What was counted of one window, or of several together.

    Attributes:
        sums: by name what adds up from window to window, such as a confusion matrix.
        lists: by name what is joined along its first axis, such as the scores of detections.
    """

    sums: Arrays = field(default_factory=dict)
    lists: Arrays = field(default_factory=dict)

    @staticmethod
    def join(parts: Sequence[MetricState]) -> MetricState:
        """Of several together; at least one, and all of one task."""
        return MetricState(
            {name: np.sum([p.sums[name] for p in parts], axis=0) for name in parts[0].sums},
            {name: np.concatenate([p.lists[name] for p in parts]) for name in parts[0].lists},
        )


class Accumulator:
    """Parts that were counted one after the other."""

    def __init__(self, nothing: MetricState) -> None:
        """`nothing`: what stands for no window, with every name and shape."""
        self.nothing = nothing
        self.counted: list[MetricState] = []

    def add(self, parts: MetricState) -> None:
        """Count a window, or several."""
        self.counted.append(parts)

    def parts(self) -> MetricState:
        """What this process has counted."""
        return MetricState.join([self.nothing, *self.counted])

    def together(self) -> MetricState:
        """What all processes have counted; each of them has to call it."""
        return MetricState.join(all_gather([self.parts()]))

    def reset(self) -> None:
        """Forget what was counted."""
        self.counted = []
