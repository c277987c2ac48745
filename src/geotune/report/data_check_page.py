"""The page of `geotune check`: issues, images with labels, scenes, class balance, histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from geotune.report.context import SPLIT_NAMES
from geotune.report.page import new_environment, page_style
from geotune.report.plots import BLUE, INK, ORANGE, Curve, new_axes, svg
from geotune.report.scene_pictures import ScenePictures
from geotune.report.scene_table import SceneTable
from geotune.report.tables import ratio
from geotune.utils.colors import Color, palette

SPLIT_COLORS = {"train": BLUE, "val": ORANGE, "test": "#2f9e6e"}
BINS = 64
MAX_WIDENING = 20.0
"""Pretraining statistics are drawn if they widen the axis by at most this factor."""

PRETRAINING_STDS = 2


@dataclass(frozen=True)
class Histogram:
    """Sampled pixel values of a band.

    Attributes:
        values: one array per scene, by split; NaN for no data.
        pretraining: mean and standard deviation of the pretraining data, if published.
    """

    band: str
    values: Mapping[str, Sequence[NDArray[np.float32]]]
    pretraining: tuple[float, float] | None


@dataclass(frozen=True)
class CheckContext:
    """The content of the page.

    Attributes:
        issues: severity, check and text of each, errors first.
        unit: of the labels: `pixel`, `object` or `image`.
        splits: number of scenes read, by split.
        class_counts: number of labelled units by split and class.
        distances_m: distance between the nearest scenes of two splits, such as `train-test`.
        shown_bands: bands displayed as red, green and blue.
        pictures: of some scenes, by split.
        scenes: their table; None if none was read.
    """

    title: str
    issues: Sequence[tuple[str, str, str]]
    unit: str
    splits: Mapping[str, int]
    class_counts: Mapping[str, Mapping[str, int]]
    distances_m: Mapping[str, float]
    histograms: Sequence[Histogram]
    shown_bands: Sequence[str] = ()
    pictures: Mapping[str, Sequence[ScenePictures]] = field(default_factory=dict)
    scenes: SceneTable | None = None


def render_check(content: CheckContext) -> str:
    """Render the page as self-contained HTML."""
    curves = [draw(histogram, f"band{i}") for i, histogram in enumerate(content.histograms)]
    return (
        new_environment()
        .get_template("check.html.j2")
        .render(
            content=content,
            style=page_style(),
            split_names=SPLIT_NAMES,
            balance=balance(content.class_counts),
            curves=[(curve, Markup(curve.svg)) for curve in curves if curve is not None],
            compared=any(histogram.pretraining is not None for histogram in content.histograms),
        )
    )


def balance(
    class_counts: Mapping[str, Mapping[str, int]],
) -> list[tuple[str, Color, dict[str, tuple[int, float]]]]:
    """Name and colour of each class, and its count and share by split."""
    classes = list(next(iter(class_counts.values()), {}))
    return [
        (
            name,
            color,
            {
                split: (counts[name], ratio(counts[name], sum(counts.values())))
                for split, counts in class_counts.items()
            },
        )
        for name, color in zip(classes, palette(classes), strict=True)
    ]


def draw(histogram: Histogram, name: str) -> Curve | None:
    """Plot the histogram of a band by split; None if it has no values."""
    by_split = {
        split: values[~np.isnan(values)]
        for split, scenes in histogram.values.items()
        if (values := np.concatenate(scenes)).size
    }
    by_split = {split: values for split, values in by_split.items() if values.size}
    if not by_split:
        return None
    all_values = np.concatenate(list(by_split.values())).astype(np.float64)
    low, high = np.percentile(all_values, [0.1, 99.9])
    words = f"Values of band {histogram.band}: 99.8 % of the values from {low:.4g} to {high:.4g}"
    pretraining = histogram.pretraining
    if pretraining is not None:
        mean, std = pretraining
        words += f"; pretraining mean {mean:.4g}, standard deviation {std:.4g}"
        ends = min(low, mean - PRETRAINING_STDS * std), max(high, mean + PRETRAINING_STDS * std)
        if high - low < (ends[1] - ends[0]) / MAX_WIDENING:
            pretraining = None
        else:
            low, high = ends
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    figure, axes = new_axes("value in the files", "share of pixels")
    for split, values in by_split.items():
        shares = np.histogram(values, edges)[0] / values.size
        axes.stairs(
            shares, edges, color=SPLIT_COLORS[split], linewidth=1.6, label=SPLIT_NAMES[split]
        )
    if pretraining is not None:
        mean, std = pretraining
        axes.axvspan(mean - std, mean + std, color=INK, alpha=0.12, linewidth=0)
        axes.axvline(mean, color=INK, alpha=0.6, linewidth=1, linestyle=(0, (3, 3)))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 5))
    axes.xaxis.get_offset_text().set_color(INK)
    return Curve(histogram.band, svg(figure, name), words)
