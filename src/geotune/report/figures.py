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

from .content import Report

# Stands for the page's text colour until the SVG is written: matplotlib has no `currentColor`.
_INK = "#010203"
_BLUE, _ORANGE = "#3b82d6", "#e07b26"
_MOST_CLASS_CURVES = 12

Series = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Curve:
    """A figure with its title, its SVG and what it shows in words."""

    title: str
    svg: str
    words: str


def curves(report: Report) -> list[Curve]:
    """Loss, mean IoU and learning rate by epoch, as far as the history has them."""
    made = (_loss(report), _iou(report), _rate(report))
    return [curve for curve in made if curve is not None]


def _loss(report: Report) -> Curve | None:
    train, val = series(report.history, "train/loss"), series(report.history, "val/loss")
    if not train[0] and not val[0]:
        return None
    figure, axes = _axes(report, "loss")
    _line(axes, train, _BLUE, "training")
    _line(axes, val, _ORANGE, "validation")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, labelcolor=_INK, fontsize=10)
    words = "; ".join(_from_to(name, s) for name, s in (("training", train), ("validation", val)))
    return Curve("Loss (lower is better)", _svg(figure, "loss"), f"Loss by epoch: {words}")


def _iou(report: Report) -> Curve | None:
    mean = series(report.history, "val/miou")
    if not mean[0]:
        return None
    figure, axes = _axes(report, "IoU")
    if has_class_curves(report):
        for name, color in zip(report.classes, report.colors, strict=True):
            each = series(report.history, f"val/iou/{name}")
            rgb = (color[0] / 255, color[1] / 255, color[2] / 255)
            (line,) = axes.plot(*each, color=rgb, linewidth=1.4)
            # A thin rim keeps the curve of a white or a black class visible on any page.
            line.set_path_effects([Stroke(linewidth=2.0, foreground="#808080"), Normal()])
    _line(axes, mean, _INK, "mean of the classes", width=3)
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, labelcolor=_INK, fontsize=10, loc="best")
    words = f"IoU on the validation data by epoch: {_from_to('mean', mean)}"
    return Curve("IoU, validation (higher is better)", _svg(figure, "iou"), words)


def has_class_curves(report: Report) -> bool:
    """Whether the IoU figure has a thin line a class: not for so many that none can be followed."""
    recorded = any(series(report.history, f"val/iou/{name}")[0] for name in report.classes)
    return recorded and len(report.classes) <= _MOST_CLASS_CURVES


def _rate(report: Report) -> Curve | None:
    rate = series(report.history, "lr")
    if not rate[0]:
        return None
    figure, axes = _axes(report, "learning rate")
    _line(axes, rate, _BLUE, "learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axes.yaxis.get_offset_text().set_color(_INK)
    words = f"Learning rate by epoch: {_from_to('rate', rate)}"
    return Curve("Learning rate", _svg(figure, "rate"), words)


def series(history: Sequence[Mapping[str, float]], key: str) -> Series:
    """The epochs that have a finite value of `key`, and the values."""
    points = [
        (float(row.get("epoch", index)), float(row[key]))
        for index, row in enumerate(history)
        if row.get(key) is not None and math.isfinite(row[key])
    ]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _axes(report: Report, label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.7, 2.5), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_INK)
        axes.spines[side].set_alpha(0.4)
    axes.tick_params(colors=_INK, labelsize=10)
    axes.grid(color=_INK, alpha=0.1, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("epoch", color=_INK)
    axes.set_ylabel(label, color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    if report.best_epoch is not None:
        axes.axvline(report.best_epoch, color=_INK, alpha=0.45, linestyle=(0, (3, 3)), linewidth=1)
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


def _svg(figure: Figure, prefix: str) -> str:
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
    return (head + ">" + body).replace(_INK, "currentColor").strip()
