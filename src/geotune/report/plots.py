"""Training curves as SVG in the text colour of the page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from geotune.report.context import Report
from geotune.report.tasks.base import TaskPage

NEUTRAL_INK = "#757c87"
"""A text colour that is readable on white and on black."""

# Placeholder of the page's text colour: matplotlib has no `currentColor`.
INK = "#010203"
BLUE, ORANGE = "#3b82d6", "#e07b26"
_MAX_CLASS_CURVES = 12

Series = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Curve:
    """A plot as SVG, with its title and its description in words."""

    title: str
    svg: str
    words: str


def curves(report: Report, page: TaskPage) -> list[Curve]:
    """Loss, main metric and learning rate by epoch, without those that were not recorded."""
    plots = (_loss(report), _score(report, page), _rate(report))
    return [curve for curve in plots if curve is not None]


def _loss(report: Report) -> Curve | None:
    train, val = series(report.history, "train/loss"), series(report.history, "val/loss")
    if not train[0] and not val[0]:
        return None
    figure, axes = _axes(report, "loss")
    _line(axes, train, BLUE, "training")
    _line(axes, val, ORANGE, "validation")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, labelcolor=INK, fontsize=10)
    words = "; ".join(_from_to(name, s) for name, s in (("training", train), ("validation", val)))
    return Curve("Loss (lower is better)", svg(figure, "loss"), f"Loss by epoch: {words}")


def _score(report: Report, page: TaskPage) -> Curve | None:
    mean = series(report.history, f"val/{page.main}")
    if not mean[0]:
        return None
    figure, axes = _axes(report, page.title)
    with_classes = has_class_curves(report, page)
    if with_classes:
        for name, color in zip(report.classes, report.colors, strict=True):
            each = series(report.history, f"val/{page.per_class_metric}/{name}")
            rgb = (color[0] / 255, color[1] / 255, color[2] / 255)
            (line,) = axes.plot(*each, color=rgb, linewidth=1.4)
            # a grey outline keeps white and black curves visible on any page
            line.set_path_effects([Stroke(linewidth=2.0, foreground="#808080"), Normal()])
    _line(axes, mean, INK, "mean of the classes" if with_classes else page.title, width=3)
    if page.lower_is_better:
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, labelcolor=INK, fontsize=10, loc="best")
    words = f"{page.title} on the validation data by epoch: {_from_to('value', mean)}"
    better = "lower" if page.lower_is_better else "higher"
    title = f"{page.title[0].upper()}{page.title[1:]}, validation ({better} is better)"
    return Curve(title, svg(figure, "score"), words)


def has_class_curves(report: Report, page: TaskPage) -> bool:
    """Whether the score plot has a thin line per class."""
    recorded = page.per_class_metric is not None and any(
        series(report.history, f"val/{page.per_class_metric}/{name}")[0] for name in report.classes
    )
    return recorded and len(report.classes) <= _MAX_CLASS_CURVES


def _rate(report: Report) -> Curve | None:
    rate = series(report.history, "lr")
    if not rate[0]:
        return None
    figure, axes = _axes(report, "learning rate")
    _line(axes, rate, BLUE, "learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axes.yaxis.get_offset_text().set_color(INK)
    words = f"Learning rate by epoch: {_from_to('rate', rate)}"
    return Curve("Learning rate", svg(figure, "rate"), words)


def series(history: Sequence[Mapping[str, float]], key: str) -> Series:
    """The epochs with a finite value of `key`, and these values."""
    points = [
        (float(row.get("epoch", index)), float(row[key]))
        for index, row in enumerate(history)
        if row.get(key) is not None and math.isfinite(row[key])
    ]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _axes(report: Report, label: str) -> tuple[Figure, Axes]:
    figure, axes = new_axes("epoch", label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    if report.best_epoch is not None:
        axes.axvline(report.best_epoch, color=INK, alpha=0.45, linestyle=(0, (3, 3)), linewidth=1)
    return figure, axes


def new_axes(
    xlabel: str, ylabel: str, size: tuple[float, float] = (3.7, 2.5)
) -> tuple[Figure, Axes]:
    """Create a figure, `size` in inches, with axes in the colours of the page."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
        axes.spines[side].set_alpha(0.4)
    axes.tick_params(colors=INK, labelsize=10)
    axes.grid(color=INK, alpha=0.1, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    return figure, axes


def _line(axes: Axes, points: Series, color: str, label: str, width: float = 2) -> None:
    if points[0]:
        marker = "o" if len(points[0]) < 3 else None
        axes.plot(*points, color=color, linewidth=width, label=label, marker=marker)


def _from_to(name: str, points: Series) -> str:
    if not points[0]:
        return f"{name} not recorded"
    first, last = points[1][0], points[1][-1]
    return f"{name} from {first:.3g} at epoch {points[0][0]:g} to {last:.3g} at {points[0][-1]:g}"


def svg(figure: Figure, prefix: str) -> str:
    """Convert a figure to an SVG element to embed in HTML.

    Ids get a prefix, to be unique in the page; size, metadata and namespaces are removed.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    head, body = text.split(">", 1)
    head = re.sub(r'\s(xmlns(:\w+)?|width|height|version)="[^"]*"', "", head)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'((?:\sid|href)="#?|url\(#)', rf"\g<1>{prefix}-", body)
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", body)
    return (head + ">" + body).replace(INK, "currentColor").strip()


def as_file(element: str) -> str:
    """Convert the output of `svg` to a standalone SVG file, readable on any background."""
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    standalone = element.replace("<svg", f'<svg {namespaces} font-family="sans-serif"', 1)
    return standalone.replace("currentColor", NEUTRAL_INK) + "\n"
