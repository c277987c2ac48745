"""The metric to look at first: that of the class that a model is worst at, beside the mean."""

from __future__ import annotations

import math
from collections.abc import Mapping

PER_CLASS = {"miou": "iou"}
"""The metric by class of a mean over classes, where it has another name."""


def lowest_class(metrics: Mapping[str, float | None], main: str) -> tuple[str, str, float] | None:
    """Metric, class and value of the class that lowers the main metric most; None without two.

    A mean over classes hides a class that is never found: a mean IoU of 0.498 can be 0.993 of
    background and 0.003 of ships.
    """
    metric = PER_CLASS.get(main, main)
    values = {
        name.partition("/")[2]: value
        for name, value in metrics.items()
        if name.startswith(f"{metric}/") and value is not None and not math.isnan(value)
    }
    if len(values) < 2:
        return None
    name = min(values, key=values.__getitem__)
    return metric, name, values[name]


def headline(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics to show first, by name: that of the lowest class, then the main (first) one."""
    main = next(iter(metrics))
    lowest = lowest_class(metrics, main)
    first = {} if lowest is None else {f"{lowest[0]}/{lowest[1]}": lowest[2]}
    return first | {main: metrics[main]}
