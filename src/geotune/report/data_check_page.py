"""The page of `geotune check`: what was found in data, and how its values are spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from geotune.report.page import new_environment, page_style
from geotune.report.plots import BLUE, INK, ORANGE, Curve, new_axes, svg
from geotune.report.split_names import PARTS
from geotune.report.tables import ratio
from geotune.utils.colors import Color, palette

PART_COLORS = {"train": BLUE, "val": ORANGE, "test": "#2f9e6e"}
BINS = 64
MOST_WIDER = 20.0
"""So many times the spread of the data a picture may be wide, for the pretraining to be in it."""

USUAL_STDS = 2


@dataclass(frozen=True)
class Histogram:
    """How the values of a band are spread.

    Attributes:
        values: some of the pixels' by part, one array a scene; NaN where there is no data.
        usual: mean and standard deviation in the backbone's pretraining, where published.
    """

    band: str
    values: Mapping[str, Sequence[NDArray[np.float32]]]
    usual: tuple[float, float] | None


@dataclass(frozen=True)
class Content:
    """What the page says.

    Attributes:
        findings: severity, check and text of each, errors first.
        unit: what is labelled: `pixel`, `object`, `image`.
        parts: scenes of each part that were read.
        class_counts: what is labelled of each class, by part.
        distances_m: between the nearest scenes of two parts, `train-test`.
    """

    title: str
    findings: Sequence[tuple[str, str, str]]
    unit: str
    parts: Mapping[str, int]
    class_counts: Mapping[str, Mapping[str, int]]
    distances_m: Mapping[str, float]
    histograms: Sequence[Histogram]


def render_check(content: Content) -> str:
    """The page as HTML that needs nothing else."""
    curves = [draw(histogram, f"band{i}") for i, histogram in enumerate(content.histograms)]
    return (
        new_environment()
        .get_template("check.html.j2")
        .render(
            content=content,
            style=page_style(),
            part_names=PARTS,
            balance=balance(content.class_counts),
            curves=[(curve, Markup(curve.svg)) for curve in curves if curve is not None],
            compared=any(histogram.usual is not None for histogram in content.histograms),
        )
    )


def balance(
    class_counts: Mapping[str, Mapping[str, int]],
) -> list[tuple[str, Color, dict[str, tuple[int, float]]]]:
    """Of each class its colour, and by part how much of it is labelled and which share that is."""
    classes = list(next(iter(class_counts.values()), {}))
    return [
        (
            name,
            color,
            {
                part: (counts[name], ratio(counts[name], sum(counts.values())))
                for part, counts in class_counts.items()
            },
        )
        for name, color in zip(classes, palette(classes), strict=True)
    ]


def draw(histogram: Histogram, name: str) -> Curve | None:
    """The spread of a band's values by part; None where there is no value."""
    together = {
        part: values[~np.isnan(values)]
        for part, scenes in histogram.values.items()
        if (values := np.concatenate(scenes)).size
    }
    together = {part: values for part, values in together.items() if values.size}
    if not together:
        return None
    everything = np.concatenate(list(together.values())).astype(np.float64)
    low, high = np.percentile(everything, [0.1, 99.9])
    words = f"Values of band {histogram.band}: the middle 99.8 % from {low:.4g} to {high:.4g}"
    usual = histogram.usual
    if usual is not None:
        mean, std = usual
        words += f"; the pretraining had {mean:.4g} on average, with a deviation of {std:.4g}"
        ends = min(low, mean - USUAL_STDS * std), max(high, mean + USUAL_STDS * std)
        if high - low < (ends[1] - ends[0]) / MOST_WIDER:
            usual = None
        else:
            low, high = ends
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    figure, axes = new_axes("value in the files", "share of pixels")
    for part, values in together.items():
        shares = np.histogram(values, edges)[0] / values.size
        axes.stairs(shares, edges, color=PART_COLORS[part], linewidth=1.6, label=PARTS[part])
    if usual is not None:
        mean, std = usual
        axes.axvspan(mean - std, mean + std, color=INK, alpha=0.12, linewidth=0)
        axes.axvline(mean, color=INK, alpha=0.6, linewidth=1, linestyle=(0, (3, 3)))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 5))
    axes.xaxis.get_offset_text().set_color(INK)
    return Curve(histogram.band, svg(figure, name), words)
