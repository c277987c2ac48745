"""Predictions versus labels and a histogram of errors, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geotune.report.plots import BLUE, INK, Curve, new_axes, svg

BINS = 40
"""Maximum number of bins of a histogram."""


def scatter(pairs: Sequence[Sequence[float]], axis: str, prefix: str) -> Curve:
    """Scatter plot of predictions versus labels, with the identity line.

    Args:
        pairs: label and prediction; must not be empty.
        axis: quantity and unit of both axes.
        prefix: of the SVG's ids; must be unique in a page.
    """
    labels, predicted = np.asarray(pairs, dtype=np.float64).T
    figure, axes = new_axes(f"label: {axis}", f"prediction: {axis}", size=(3.9, 3.5))
    low = float(min(labels.min(), predicted.min()))
    high = float(max(labels.max(), predicted.max()))
    margin = 0.04 * (high - low) or 1.0
    axes.plot([low, high], [low, high], color=INK, alpha=0.5, linewidth=1, linestyle=(0, (3, 3)))
    axes.plot(labels, predicted, ".", color=BLUE, markersize=4, alpha=0.45)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - margin, high + margin)
    axes.set_aspect("equal")
    words = f"Predictions versus labels, {len(labels)} pairs, correlation "
    spread = labels.std() * predicted.std()
    words += f"{np.corrcoef(labels, predicted)[0, 1]:.2f}" if spread > 0 else "undefined"
    return Curve("Predictions versus labels", svg(figure, prefix), words)


def histogram(errors: Sequence[float], prefix: str) -> Curve:
    """Histogram of errors (prediction minus label), without the most extreme 1 %."""
    values = np.asarray(errors, dtype=np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    kept = values[(values >= low) & (values <= high)]
    figure, axes = new_axes("prediction minus label", "count", size=(3.9, 3.5))
    axes.hist(kept, bins=min(BINS, 5 + round(len(kept) ** 0.5)), color=BLUE, alpha=0.8)
    axes.axvline(0, color=INK, alpha=0.5, linestyle=(0, (3, 3)), linewidth=1)
    low, high = np.percentile(values, (25, 75))
    words = f"Errors: interquartile range {low:.3g} to {high:.3g}"
    return Curve("Errors", svg(figure, prefix), words)
