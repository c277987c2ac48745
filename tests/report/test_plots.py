"""The curves."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import matplotlib

from geotune.report.context import Report
from geotune.report.plots import curves, has_class_curves, series
from geotune.report.tasks.segment_page import PAGE


def test_three_figures_that_load_nothing_and_share_no_id(report: Report) -> None:
    made = curves(report, PAGE)
    assert [curve.title.split()[0].strip(",") for curve in made] == ["Loss", "Mean", "Learning"]
    ids = [name for curve in made for name in re.findall(r'\sid="([^"]+)"', curve.svg)]
    assert len(ids) == len(set(ids))
    for curve in made:
        assert curve.svg.startswith("<svg")
        assert curve.svg.endswith("</svg>")
        assert "http" not in curve.svg
        assert "currentColor" in curve.svg
        used = re.findall(r'(?:href="#|url\(#)([^")]+)', curve.svg)
        assert used
        assert set(used) <= set(ids)


def test_the_curve_is_drawn_where_the_numbers_are(report: Report) -> None:
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


def test_the_kept_epoch_and_the_classes_are_drawn(report: Report) -> None:
    assert curves(report, PAGE)[0].svg.count("dasharray") == 1
    assert curves(replace(report, best_epoch=None), PAGE)[0].svg.count("dasharray") == 0
    assert "#ffc400" in curves(report, PAGE)[1].svg
    assert has_class_curves(report, PAGE)
    bare = [{"epoch": 1, "val/miou": 0.5}, {"epoch": 2, "val/miou": 0.6}]
    assert not has_class_curves(replace(report, history=bare), PAGE)


def test_what_is_missing_is_left_out(report: Report) -> None:
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


def test_words_say_what_the_eye_sees(report: Report) -> None:
    assert "training from 1 at epoch 1 to 0.167 at 6" in curves(report, PAGE)[0].words


def test_global_settings_stay_as_they_were(report: Report) -> None:
    before = dict(matplotlib.rcParams)
    curves(report, PAGE)
    assert dict(matplotlib.rcParams) == before
