"""Training curves."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import matplotlib

from geotune.report.context import Report
from geotune.report.plots import curves, has_class_curves, series
from geotune.report.tasks.segment_page import PAGE


def test_plots_are_self_contained_with_unique_ids(report: Report) -> None:
    plots = curves(report, PAGE)
    assert [curve.title.split()[0].strip(",") for curve in plots] == ["Loss", "Mean", "Learning"]
    ids = [name for curve in plots for name in re.findall(r'\sid="([^"]+)"', curve.svg)]
    assert len(ids) == len(set(ids))
    for curve in plots:
        assert curve.svg.startswith("<svg")
        assert curve.svg.endswith("</svg>")
        assert "http" not in curve.svg
        assert "currentColor" in curve.svg
        used = re.findall(r'(?:href="#|url\(#)([^")]+)', curve.svg)
        assert used
        assert set(used) <= set(ids)


def test_curve_coordinates(report: Report) -> None:
    falling = curves(
        replace(report, history=[{"epoch": 1, "lr": 2.0}, {"epoch": 9, "lr": 1.0}]), PAGE
    )
    path = re.search(r'<g id="rate-line2d_\d+">\s*<path d="M ([\d.]+) ([\d.]+) \s*L ([\d.]+) '
                     r'([\d.]+) \s*" clip-path="[^"]+" style="fill: none; stroke: #3b82d6',
                     falling[0].svg)  # fmt: skip
    assert path is not None
    x0, y0, x1, y1 = map(float, path.groups())
    assert x0 < x1
    assert y0 < y1, "a smaller value lies lower: y grows downwards"


def test_best_epoch_and_class_curves_are_drawn(report: Report) -> None:
    assert curves(report, PAGE)[0].svg.count("dasharray") == 1
    assert curves(replace(report, best_epoch=None), PAGE)[0].svg.count("dasharray") == 0
    assert "#ffc400" in curves(report, PAGE)[1].svg
    assert has_class_curves(report, PAGE)
    bare = [{"epoch": 1, "val/miou": 0.5}, {"epoch": 2, "val/miou": 0.6}]
    assert not has_class_curves(replace(report, history=bare), PAGE)


def test_missing_values_are_omitted(report: Report) -> None:
    history: list[dict[str, float]] = [
        {"epoch": 1, "lr": math.nan},
        {"epoch": 2, "lr": 0.5},
        {"epoch": 3},
    ]
    assert series(history, "lr") == ([2.0], [0.5])
    assert [curve.title for curve in curves(replace(report, history=history), PAGE)] == [
        "Learning rate"
    ]
    assert curves(replace(report, history=[]), PAGE) == []


def test_description_has_first_and_last_value(report: Report) -> None:
    assert "training from 1 at epoch 1 to 0.167 at 6" in curves(report, PAGE)[0].words


def test_matplotlib_settings_are_unchanged(report: Report) -> None:
    before = dict(matplotlib.rcParams)
    curves(report, PAGE)
    assert dict(matplotlib.rcParams) == before
