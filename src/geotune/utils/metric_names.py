"""Metrics as people read them."""

from __future__ import annotations

METRICS = {
    "miou": "mean IoU",
    "iou": "IoU",
    "f1": "F1",
    "ap": "average precision",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R²",
    "relative": "relative error",
}
"""Readable names; other metrics keep their name."""


def score(value: float | None) -> str:
    """A metric as text."""
    if value is None or value != value:
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
