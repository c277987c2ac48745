"""Label against prediction, and how the errors are spread, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geotune.report.plots import BLUE, INK, Curve, new_axes, svg

BINS = 40
"""Most columns of a histogram; of few errors there are fewer."""


def scatter(pairs: Sequence[Sequence[float]], axis: str, prefix: str) -> Curve:
    """A dot for each pair of label and prediction, with the line on which they agree.

    Args:
        pairs: label and prediction, at least one.
        axis: what both axes measure.
        prefix: of the SVG's ids, which may stand once in a page.
    """
    labels, predicted = np.asarray(pairs, dtype=np.float64).T
    figure, axes = new_axes(f"labelled: {axis}", f"predicted: {axis}", size=(3.9, 3.5))
    low = float(min(labels.min(), predicted.min()))
    high = float(max(labels.max(), predicted.max()))
    room = 0.04 * (high - low) or 1.0
    axes.plot([low, high], [low, high], color=INK, alpha=0.5, linewidth=1, linestyle=(0, (3, 3)))
    axes.plot(labels, predicted, ".", color=BLUE, markersize=4, alpha=0.45)
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(low - room, high + room)
    axes.set_aspect("equal")
    words = f"Label against prediction of {len(labels)} pairs, correlation "
    spread = labels.std() * predicted.std()
    words += f"{np.corrcoef(labels, predicted)[0, 1]:.2f}" if spread > 0 else "not defined"
    return Curve("Label against prediction", svg(figure, prefix), words)


def histogram(errors: Sequence[float], prefix: str) -> Curve:
    """How often each error, predicted minus labelled, occurs; the farthest 1 % is left out."""
    values = np.asarray(errors, dtype=np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    kept = values[(values >= low) & (values <= high)]
    figure, axes = new_axes("predicted minus labelled", "how many", size=(3.9, 3.5))
    axes.hist(kept, bins=min(BINS, 5 + round(len(kept) ** 0.5)), color=BLUE, alpha=0.8)
    axes.axvline(0, color=INK, alpha=0.5, linestyle=(0, (3, 3)), linewidth=1)
    words = f"Errors: half of them lie between {np.percentile(values, 25):.3g} and "
    return Curve("Errors", svg(figure, prefix), words + f"{np.percentile(values, 75):.3g}")
