"""Metrics as people read them."""

from __future__ import annotations

METRICS = {
    "miou": "mean IoU",
    "iou": "IoU",
    "f1": "F1",
    "ap": "average precision",
    "ap50": "AP50",
    "ap75": "AP75",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R²",
    "relative": "relative error",
}
"""Readable names; other metrics keep their name."""


def metric_name(metric: str) -> str:
    """`IoU of ship` for `iou/ship`."""
    name, _, of = metric.partition("/")
    return METRICS.get(name, name) + (f" of {of}" if of else "")


def score(value: float | None) -> str:
    """A metric as text."""
    if value is None or value != value:
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
