"""Counting on the page: counts against counts, windows with both density maps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from geotune.data.labels.targets import ObjectDensity
from geotune.report import number_format as fmt
from geotune.report.context import Report
from geotune.report.images import difference_map, dots, shrunk, value_map
from geotune.report.split_names import scenes_of
from geotune.report.tasks.base import Picture, Shown, TaskPage
from geotune.report.tasks.regress_page import number_context

FIGURES = {
    "counted": "Counted in all",
    "labelled": "Labelled in all",
    "mae": "Mean absolute error of a window's count",
    "rmse": "Root mean square error of a window's count",
    "bias": "Mean of counted minus labelled, a window",
    "relative": "Windows' absolute errors over all objects",
}


def _draw(shown: Shown) -> tuple[str, Mapping[str, Picture]]:
    assert isinstance(shown.target, ObjectDensity)
    label, there = shown.target.values, ~np.isnan(shown.target.values)
    found = np.where(there, shown.prediction, np.nan)
    high = max(float(np.nanmax(label)), 1e-9)
    counted, labelled = float(np.nansum(found)), float(np.nansum(label))
    pictures = {
        "image": shrunk(shown.image),
        "label, an object a dot": dots(shown.image, shown.target.counts),
        "density of the label": value_map(label, 0, high),
        "density, predicted (same colours)": value_map(found, 0, high),
        "too much in red, too little in blue": difference_map(found - label, high),
    }
    return f"labelled {labelled:.1f}, counted {counted:.1f} {shown.classes[0]}", pictures


def _result(report: Report, part: str) -> list[str]:
    values = report.metrics[part]
    if fmt.missing(values.get("counted")) or fmt.missing(values.get("labelled")):
        return []
    counted, labelled = values["counted"], values["labelled"]
    text = (
        f"On {scenes_of(report, part, 'held-out ')}, it counts {counted:,.0f} "
        f"{report.classes[0]}, where {labelled:,.0f} are labelled"
    )
    if labelled:
        off = (counted - labelled) / labelled
        text += f" ({fmt.percent(abs(off))} too {'many' if off > 0 else 'few'})"
    return [text + "."]


def _overall(report: Report, part: str, value: float) -> str:
    share = fmt.percent(report.metrics[part].get("relative"))
    return (
        f"In a window its count is off by {fmt.number(value)} on average; the errors of "
        f"all windows together are {share} of all that is labelled, for too many here does not "
        "make up for too few there."
    )


PAGE = TaskPage(
    main="mae",
    title="count error",
    lower=True,
    each=None,
    counted="object",
    legend=False,
    template="numbers.html.j2",
    words=(
        (
            "Density",
            "Objects a pixel: each object is spread over the pixels around it so that it adds up "
            "to one, and the sum over an area is how many there are.",
        ),
        (
            "Mean absolute error of a window's count",
            "How many objects the model is off in a window, whichever way.",
        ),
        (
            "Label against prediction",
            "A dot is a window. On the line both counts agree; a cloud that lies flatter than the "
            "line says that the model counts too few where there are many.",
        ),
    ),
    purpose=lambda report: f"counts {report.classes[0]} by a map of their density",
    result=_result,
    overall=_overall,
    context=lambda report, parts: number_context(
        report, parts, FIGURES, f"{report.classes[0]} a window"
    ),
    draw=_draw,
    telling=lambda target, common: True,
)
