"""The curves of a training as SVG that takes its text colour from the page around it."""

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

ON_ANY_PAGE = "#757c87"
"""A text colour that can be read on white and on black."""

# Stands for the page's text colour until the SVG is written: matplotlib has no `currentColor`.
INK = "#010203"
BLUE, ORANGE = "#3b82d6", "#e07b26"
_MOST_CLASS_CURVES = 12

Series = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Curve:
    """A figure with its title, its SVG and what it shows in words."""

    title: str
    svg: str
    words: str


def curves(report: Report, page: TaskPage) -> list[Curve]:
    """Loss, the task's main metric and learning rate by epoch, as far as there are any."""
    made = (_loss(report), _score(report, page), _rate(report))
    return [curve for curve in made if curve is not None]


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
    many = has_class_curves(report, page)
    if many:
        for name, color in zip(report.classes, report.colors, strict=True):
            each = series(report.history, f"val/{page.each}/{name}")
            rgb = (color[0] / 255, color[1] / 255, color[2] / 255)
            (line,) = axes.plot(*each, color=rgb, linewidth=1.4)
            # A thin rim keeps the curve of a white or a black class visible on any page.
            line.set_path_effects([Stroke(linewidth=2.0, foreground="#808080"), Normal()])
    _line(axes, mean, INK, "mean of the classes" if many else page.title, width=3)
    if page.lower:
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, labelcolor=INK, fontsize=10, loc="best")
    words = f"{page.title} on the validation data by epoch: {_from_to('it went', mean)}"
    better = "lower" if page.lower else "higher"
    title = f"{page.title[0].upper()}{page.title[1:]}, validation ({better} is better)"
    return Curve(title, svg(figure, "score"), words)


def has_class_curves(report: Report, page: TaskPage) -> bool:
    """Whether the score's figure has a thin line a class: not for more than can be followed."""
    recorded = page.each is not None and any(
        series(report.history, f"val/{page.each}/{name}")[0] for name in report.classes
    )
    return recorded and len(report.classes) <= _MOST_CLASS_CURVES


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
    """The epochs that have a finite value of `key`, and the values."""
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


def new_axes(across: str, up: str, size: tuple[float, float] = (3.7, 2.5)) -> tuple[Figure, Axes]:
    """A figure of a size in inches with axes in the page's own colours."""
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
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
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
    """The figure as an SVG element that can stand in a page beside others.

    Its ids get a prefix, for they would repeat from figure to figure; size, metadata and
    namespaces go, for HTML needs none of them.
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
    """What `svg` gives as a file of its own, which pages of any colour may show."""
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    alone = element.replace("<svg", f'<svg {spaces} font-family="sans-serif"', 1)
    return alone.replace("currentColor", ON_ANY_PAGE) + "\n"
